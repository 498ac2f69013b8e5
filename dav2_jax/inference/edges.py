"""Flying pixels: what interpolation leaves between two surfaces, on neither of them.

A network draws a depth edge as a ramp a few pixels wide, and as points the ramp is a curtain from the near surface to
the far one. A large difference between neighbors does not tell a ramp: on a road, neighbors differ more and more
towards the horizon. What tells it is that the surfaces on both sides do not lead there. Disparity, 1 / depth, of a
plane is linear in the pixel at any slant, so surfaces are continued as lines in disparity.
"""

import math

import numpy as np

from dav2_jax.errors import Dav2Error

EDGE = 0.1  # of the depth
_RAMP = 3 / 518  # of the shorter side: what a network at its usual size makes of an edge, at most
_ON_SURFACE = 0.25  # of `edge`: nearer than this to a surface is on it
_ROWS = 64  # at a time: the temporaries stay in the cache


def flying_pixels(depth: np.ndarray, edge: float = EDGE, ramp: int | None = None) -> np.ndarray:
    """(H, W) bool, true where a pixel lies between two surfaces, on neither.

    depth  (H, W) metres along the optical axis, or anything proportional; not finite or not positive: no value.
    edge   how far apart two surfaces are at least, as a share of the nearer one's depth, the same near and far.
    ramp   width of the widest ramp to look for, in pixels; None: what the network leaves at input size 518, which is
           3 / 518 of the shorter side, and 2 at least.

    For windows of 1, 2, 4 ... pixels to both sides, to twice the ramp, along rows and along columns: a pixel flies when
    the surfaces outside of the window, continued to the pixel, are further apart there than `edge`, with the nearer one
    on the nearer side; when it is off both by a quarter of that; and when the depth changes at the pixel itself, or
    else it is a thin surface in between. Raises Dav2Error unless edge is positive.
    """
    if not edge > 0:
        raise Dav2Error(f"edge is {edge:g}: give a share of the depth, such as {EDGE}, or None to keep all pixels")
    ramp = max(2, min(depth.shape) * _RAMP) if ramp is None else ramp
    windows = [2**k for k in range(math.ceil(math.log2(2 * ramp)) + 1)]
    disparity = np.full(depth.shape, np.nan, np.float32)
    np.divide(1, depth, out=disparity, where=np.isfinite(depth) & (depth > 0), casting="same_kind")
    flying = np.zeros(depth.shape, bool)
    for lines, result in ((disparity, flying), (disparity.T, flying.T)):
        for start in range(0, len(lines), _ROWS):
            rows = slice(start, start + _ROWS)
            some = np.ascontiguousarray(lines[rows])
            for window in windows:
                result[rows] |= _flying_in_rows(some, window, edge)
    return flying


def _flying_in_rows(d: np.ndarray, window: int, edge: float) -> np.ndarray:
    """(h, W) bool for disparity (h, W) along its rows. What lies beyond the ends of a row is no surface."""
    beyond = np.full((len(d), 2 * window), np.nan, np.float32)
    padded = np.concatenate([beyond, d, beyond], axis=1)

    def at(offset):
        return padded[:, 2 * window + offset : 2 * window + offset + d.shape[1]]

    left, right = at(-window), at(window)
    from_left, from_right = 2 * left - at(-2 * window), 2 * right - at(2 * window)  # the surfaces, continued to here
    step = right - left
    gap = np.where(step > 0, from_right - from_left, from_left - from_right)
    flying = np.minimum(np.abs(step), gap) > edge * np.minimum(left, right)  # NaN is never more
    if not flying.any():
        return flying
    for surface in (from_left, from_right):
        flying &= np.abs(d - surface) > _ON_SURFACE * edge * np.minimum(d, surface)
    # In logarithms, because a ramp in depth is flat in disparity at its far end.
    with np.errstate(divide="ignore", invalid="ignore"):
        steepness = np.maximum(np.abs(np.log(at(1) / d)), np.abs(np.log(d / at(-1))))
        mean = np.abs(np.log(right / left)) / (2 * window)
    return flying & (steepness >= mean / 4)
