"""Checkpoints in and out: official PyTorch files, Hugging Face folders, and our own checkpoint folders."""
