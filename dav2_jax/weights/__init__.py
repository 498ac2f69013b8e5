"""From a name or path to `Weights`: released checkpoints, checkpoint folders, training runs, PyTorch files."""
