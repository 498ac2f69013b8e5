"""Frames in, steady depth out: one clip to another, resumable and in constant memory."""
