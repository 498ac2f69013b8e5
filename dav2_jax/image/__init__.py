"""Photos in, numbers out: reading, exact resizing, normalization, color maps. NumPy alone: knows no JAX."""
