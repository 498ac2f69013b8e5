"""Training: losses, optimizer, step, loop and checkpoints."""
