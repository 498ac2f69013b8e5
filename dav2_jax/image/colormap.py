"""Depth as a picture: gray levels, and the color map of the official scripts. NumPy alone, no matplotlib.

Both follow `run.py` and `metric_depth/run.py` of the official repository to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Literal

import numpy as np

# ColorBrewer's Spectral, 11 classes (Cynthia Brewer, Apache-2.0): matplotlib interpolates between these in sRGB.
_SPECTRAL = np.array(
    [
        [158, 1, 66],
        [213, 62, 79],
        [244, 109, 67],
        [253, 174, 97],
        [254, 224, 139],
        [255, 255, 191],
        [230, 245, 152],
        [171, 221, 164],
        [102, 194, 165],
        [50, 136, 189],
        [94, 79, 162],
    ]
)
_ROWS = 256  # of a picture at a time: the temporaries of a large photo stay small

Near = Literal["high", "low"]  # which values are near: high ones (disparity) or low ones (metres)


@functools.cache
def color_table(near: Near) -> np.ndarray:
    """(256, 3) uint8 RGB, red for near and blue for far: matplotlib's Spectral_r ("high") or Spectral ("low")."""
    # In the order of matplotlib's roundings (colors._create_lookup_table), because the official script truncates.
    colors, at = _SPECTRAL / 255, np.linspace(0, 1, len(_SPECTRAL))
    if near == "high":
        colors, at = colors[::-1], 1 - at[::-1]
    at, level = at * 255, np.linspace(0, 1, 256) * 255
    k = np.searchsorted(at, level)[1:-1]
    share = ((level[1:-1] - at[k - 1]) / (at[k] - at[k - 1]))[:, None]
    table = np.concatenate([colors[:1], share * (colors[k] - colors[k - 1]) + colors[k - 1], colors[-1:]])
    return (table * 255).astype(np.uint8)


def value_range(values: np.ndarray, limits: tuple[float, float] | None = None) -> tuple[np.float32, np.float32]:
    """(low, high) of the finite values, or `limits` where given; (0, 0) where no value is finite."""
    if limits is not None:
        return np.float32(limits[0]), np.float32(limits[1])
    strips = (strip[np.isfinite(strip)] for strip in _strips(values))
    ends = [(strip.min(), strip.max()) for strip in strips if strip.size]
    if not ends:
        return np.float32(0), np.float32(0)
    return min(low for low, _ in ends), max(high for _, high in ends)


def to_gray(values: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """(H, W) float32 -> (H, W) uint8: smallest value 0, largest 255, truncated as in the official run.py.

    limits  values (low, high) to draw as 0 and 255 in place of those two, so that pictures of different maps compare;
            what lies beyond is clipped.

    Non-finite values do not count for the range and become 0; without any range (high not above low) all is 0.
    """
    gray = np.zeros(values.shape, np.uint8)
    for strip, drawn in zip(_gray_strips(values, limits), _strips(gray), strict=False):  # none without a range
        drawn[:] = strip
    return gray


def to_color(
    values: np.ndarray, near: Near, limits: tuple[float, float] | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """(H, W) float32 -> (H, W, 3) uint8 RGB, into `out` where given: `to_gray` through `color_table`."""
    table = color_table(near)
    color = np.empty((*values.shape, 3), np.uint8) if out is None else out
    color[:] = table[0]
    for strip, drawn in zip(_gray_strips(values, limits), _strips(color), strict=False):
        drawn[:] = table.take(strip, axis=0)  # four times as fast as table[...], and eight bytes a pixel meanwhile
    return color


def _gray_strips(values: np.ndarray, limits: tuple[float, float] | None) -> Iterator[np.ndarray]:
    """`to_gray` in strips; nothing where there is no range."""
    low, high = value_range(values, limits)
    if not high > low:
        return
    for strip in _strips(values):
        v = (np.where(np.isfinite(strip), strip, low) - low) / (high - low) * np.float32(255.0)
        yield (v if limits is None else v.clip(0, 255)).astype(np.uint8)


def _strips(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[row : row + _ROWS] for row in range(0, len(array), _ROWS))
