"""From a name or path to weights: released checkpoints, checkpoint folders, training runs, PyTorch files."""
