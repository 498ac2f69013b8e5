"""The size at which the network sees a photo, and the weights of every exact resize. NumPy alone: knows no JAX.

It stands below all rooms: the network's ops, the preparation of a photo and the loader's worker processes use it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error, InvalidValueError, check_whole

if TYPE_CHECKING:
    from scipy import sparse

PATCH = 14  # pixels a side of one patch token
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
            "choose a smaller input_size or crop it"
        )
    return size


def check_input_size(input_size: int) -> None:
    """Raises Dav2Error for an input size that no photo can have."""
    check_whole("input_size", input_size, least=-math.inf)
    if input_size < PATCH:
        raise InvalidValueError(f"input_size={input_size} is less than one patch: give at least {PATCH}")


def _to_patches(side: float, minimum: int) -> int:
    rounded = round(side / PATCH) * PATCH  # to even at .5, like NumPy
    return rounded if rounded >= minimum else math.ceil(side / PATCH) * PATCH


class ResizeTaps(NamedTuple):
    """A separable resize along one axis: out[i] = sum over t of weight[i, t] * in[index[i, t]]."""

    index: np.ndarray  # [out, taps] int32
    weight: np.ndarray  # [out, taps] float32

    def transposed(self, size_in: int) -> ResizeTaps:
        """The transposed resize, from `out` to `size_in` pixels, with as many taps as the most used input pixel has."""
        count = self.index.shape[1]
        used = np.flatnonzero(self.weight)
        used = used[np.argsort(self.index.ravel()[used], kind="stable")]  # by the input pixel
        pixel = self.index.ravel()[used]
        times = np.bincount(pixel, minlength=size_in)
        place = np.arange(len(used)) - (np.cumsum(times) - times)[pixel]
        index, weight = np.zeros((size_in, times.max()), np.int32), np.zeros((size_in, times.max()), np.float32)
        index[pixel, place], weight[pixel, place] = used // count, self.weight.ravel()[used]
        return ResizeTaps(index, weight)


def cubic_taps(size_in: int, size_out: int, step: float | None = None) -> ResizeTaps:
    """Keys' cubic with a = -0.75, half-pixel centers, replicated border, no antialias, no clipping.

    The kernel of both `cv2.resize(INTER_CUBIC)` and `torch.interpolate(mode="bicubic")`, with their float32
    coefficients. `step` is the distance between samples in input pixels; None is in / out as OpenCV has it, in double
    precision, and a number is 1 / `scale_factor` of PyTorch, which rounds it to float32.
    """
    step = size_in / size_out if step is None else float(np.float32(step))
    position = ((np.arange(size_out) + 0.5) * step - 0.5).astype(np.float32)
    first = np.floor(position)
    t = position - first
    a = np.float32(-0.75)
    one = np.float32(1)

    def inner(x):  # |x| <= 1
        return ((a + 2) * x - (a + 3)) * x * x + one

    def outer(x):  # 1 < |x| < 2
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    weight = np.stack([outer(t + one), inner(t), inner(one - t)], -1)
    weight = np.concatenate([weight, one - weight.sum(-1, keepdims=True)], -1)
    index = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    return ResizeTaps(np.clip(index, 0, size_in - 1).astype(np.int32), weight.astype(np.float32))


def linear_taps(size_in: int, size_out: int) -> ResizeTaps:
    """Bilinear with corners aligned (`align_corners=True`), positions in float32 as PyTorch computes them."""
    step = np.float32(size_in - 1) / np.float32(size_out - 1) if size_out > 1 else np.float32(0)
    position = np.arange(size_out, dtype=np.float32) * step
    first = position.astype(np.int32)
    t = position - first
    index = np.stack([first, np.minimum(first + 1, size_in - 1)], -1)
    return ResizeTaps(index, np.stack([1 - t, t], -1))


def nearest_index(size_in: int, size_out: int) -> np.ndarray:
    """int32 [out]: the input pixel that each output pixel takes in `cv2.resize(INTER_NEAREST)`: floor(i * in / out)."""
    step = 1 / (size_out / size_in)  # in the order of OpenCV's roundings
    return np.minimum(np.floor(np.arange(size_out) * step), size_in - 1).astype(np.int32)


def center_index(size_in: int, size_out: int) -> np.ndarray:
    """[out]: the input pixel under the center of each output pixel."""
    return (2 * np.arange(size_out) + 1) * size_in // (2 * size_out)


def matrix(taps: ResizeTaps, size_in: int) -> sparse.csr_array:
    """The resize of one axis as a sparse matrix [out, in]: several times faster than gathering in NumPy."""
    from scipy import sparse

    out, count = taps.index.shape
    ends = np.arange(0, out * count + 1, count, dtype=np.int32)
    weight = taps.weight.astype(np.float32).ravel()
    return sparse.csr_array((weight, taps.index.ravel(), ends), shape=(out, size_in))
