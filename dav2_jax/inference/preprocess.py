"""From a photo to the network's input and from its output back to the photo's size, exactly as the official code does.

Source: `image2tensor` and `infer_image` in the official `depth_anything_v2/dpt.py`, and `util/transform.py`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from dav2_jax.errors import Dav2Error
from dav2_jax.model import ops
from dav2_jax.model.config import PATCH

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

MAX_TOKENS = 65_536  # patches of one photo: 3584 x 3584 pixels of network input


def network_size(height: int, width: int, input_size: int = 518) -> tuple[int, int]:
    """The size (H', W') at which the network sees a photo of (height, width).

    The shorter side becomes `input_size`, the aspect is kept, and both are rounded to multiples of 14, upwards
    where they would fall below `input_size`. Raises Dav2Error when that is too much for one pass.
    """
    check_input_size(input_size)
    scale = max(input_size / height, input_size / width)
    size = tuple(_to_patches(scale * side, input_size) for side in (height, width))
    tokens = size[0] * size[1] // PATCH**2
    if tokens > MAX_TOKENS:
        raise Dav2Error(
            f"{width} x {height} at input size {input_size} is {size[1]} x {size[0]} for the network, "
            f"{tokens:,} patches where {MAX_TOKENS:,} are the limit: "
            "choose a smaller input_size (--input-size) or crop it"
        )
    return size


def check_input_size(input_size: int) -> None:
    """Raises Dav2Error for an input size that no photo can have."""
    if input_size < PATCH:
        raise Dav2Error(f"input_size (--input-size) {input_size} is less than one patch: give at least {PATCH}")


def _to_patches(side: float, minimum: int) -> int:
    rounded = round(side / PATCH) * PATCH  # to even at .5, like NumPy
    return rounded if rounded >= minimum else math.ceil(side / PATCH) * PATCH


def preprocess(image: np.ndarray, input_size: int = 518) -> np.ndarray:
    """uint8 [H, W, 3] -> the network's input, float32 [H', W', 3]: cubic resize, then ImageNet normalisation.

    The cubic overshoots 0..1 at edges and is not clipped, as in the official code.
    """
    height, width = image.shape[:2]
    net_height, net_width = network_size(height, width, input_size)
    rows = _matrix(ops.cubic_taps(height, net_height), height)
    columns = _matrix(ops.cubic_taps(width, net_width), width)
    x = rows @ image.reshape(height, width * 3).astype(np.float32)  # [H', W * 3]
    x = x.reshape(net_height, width, 3).transpose(1, 0, 2).reshape(width, net_height * 3)
    x = (columns @ x).reshape(net_width, net_height, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(x * (1 / (255 * STD)) - MEAN / STD)


def postprocess(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """The network's output [H', W'] -> float32 [height, width], bilinear with corners aligned."""
    x = np.asarray(depth, np.float32)
    columns = _matrix(ops.linear_taps(x.shape[1], width), x.shape[1])
    rows = _matrix(ops.linear_taps(x.shape[0], height), x.shape[0])
    return rows @ np.ascontiguousarray((columns @ x.T).T)


def _matrix(taps: ops.ResizeTaps, size_in: int) -> sparse.csr_array:
    """The resize of one axis as a sparse matrix [out, in]: several times faster than gathering in NumPy."""
    out, count = taps.index.shape
    ends = np.arange(0, out * count + 1, count, dtype=np.int32)
    weight = taps.weight.astype(np.float32).ravel()
    return sparse.csr_array((weight, taps.index.ravel(), ends), shape=(out, size_in))


def preprocess_on_device(images: jax.Array, input_size: int = 518) -> jax.Array:
    """uint8 [B, H, W, 3] -> float32 [B, H', W', 3]: `preprocess` under `jit`."""
    height, width = images.shape[1:3]
    net_height, net_width = network_size(height, width, input_size)
    x = ops.resample(images.astype(jnp.float32), ops.cubic_taps(height, net_height), axis=1)
    x = ops.resample(x, ops.cubic_taps(width, net_width), axis=2)
    return x * (1 / (255 * STD))[None, None, None] - (MEAN / STD)[None, None, None]
