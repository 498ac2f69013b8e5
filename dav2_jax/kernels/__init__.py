"""Hand-written kernels, each an exact twin of a plain operation of the network, and the one way to choose between them."""
