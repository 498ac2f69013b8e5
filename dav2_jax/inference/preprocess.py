"""The same preprocessing as `image.preprocess`, on the device and for a batch."""

import jax
import jax.numpy as jnp

from dav2_jax.image.normalize import normalize
from dav2_jax.image.resize import network_size
from dav2_jax.model import ops


def preprocess_on_device(images: jax.Array, input_size: int = 518) -> jax.Array:
    """uint8 [B, H, W, 3] -> float32 [B, H', W', 3]: `preprocess` under `jit`."""
    height, width = images.shape[1:3]
    net_height, net_width = network_size(height, width, input_size)
    x = ops.resample(images.astype(jnp.float32), ops.cubic_taps(height, net_height), axis=1)
    x = ops.resample(x, ops.cubic_taps(width, net_width), axis=2)
    return normalize(x)
