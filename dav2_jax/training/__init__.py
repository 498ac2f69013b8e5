"""Training: losses, optimiser, step, loop and checkpoints."""
