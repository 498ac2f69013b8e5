"""Hand-written kernels, each an exact twin of a plain operation of the network."""
