"""ImageNet normalization, for NumPy and JAX arrays alike."""

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, RGB
STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalize(images, *, full: float = 255):
    """RGB [..., 3] of 0 to `full`, any dtype of NumPy or JAX -> float32, (images / full - mean) / std."""
    lead = (None,) * (images.ndim - 1)
    images = images if images.dtype == np.float32 else images.astype(np.float32)
    return images * (1 / (full * STD))[lead] - (MEAN / STD)[lead]
