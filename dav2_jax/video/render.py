"""How a frame of a depth video is drawn: colors or gray, alone or beside the frame, in 8 or 16 bits a sample."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, get_args

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.depth import STRIP_WIDTH, Depth, Unit
from dav2_jax.inference.formats import FORMATS

Format = Literal["picture", "npz", "npy", "png16", "exr"]
Bits = Literal[8, 10]

_TABLE_SIZE = 4096  # colors: four for each step of a 10-bit sample


@dataclasses.dataclass(frozen=True)
class RenderOptions:
    """What to write of each frame.

    format        "picture", or the values themselves, one file a frame: npz npy png16 exr (`formats.FORMATS`)
    gray          pictures in gray, not in colors
    side_by_side  frame, white strip and depth in one picture
    limits        values to draw at the ends of the colors; None: 0 and max_depth for metres, a steady range otherwise
    bits          of a sample of the video, 8 or 10; with 10, gray shows 877 levels in place of 220

    Raises Dav2Error for values and combinations that do not exist.
    """

    format: Format = "picture"
    gray: bool = False
    side_by_side: bool = False
    limits: tuple[float, float] | None = None
    bits: Bits = 8

    def __post_init__(self):
        if self.format not in get_args(Format):
            raise Dav2Error(f"unknown format {self.format!r}: use one of {', '.join(get_args(Format))}")
        if self.bits not in get_args(Bits):
            raise Dav2Error(f"bits={self.bits}: give 8 or 10")
        if self.format != "picture" and (self.gray or self.side_by_side or self.limits):
            raise Dav2Error(
                f"gray, side by side and range are for pictures, and format is {self.format}: leave one away"
            )
        if self.limits and not (np.isfinite(self.limits).all() and self.limits[0] < self.limits[1]):
            raise Dav2Error(f"the range is {self.limits[0]:g} to {self.limits[1]:g}: give the smaller value first")

    def draw(self, depth: Depth, limits: tuple[float, float]) -> np.ndarray:
        """(H, W or 2W + 50, 3) RGB, uint8, or for 10 bits uint16 over the whole range 0 to 65535"""
        if self.bits > 8:
            return self._draw_fine(depth, limits)
        if self.side_by_side:
            return depth.side_by_side(limits, gray=self.gray)
        return np.repeat(depth.gray(limits)[..., None], 3, axis=-1) if self.gray else depth.color(limits)

    def _draw_fine(self, depth: Depth, limits: tuple[float, float]) -> np.ndarray:
        levels = _levels(depth.values, limits)
        if self.gray:
            picture = np.repeat((levels * 65535 + 0.5).astype(np.uint16)[..., None], 3, axis=-1)
        else:
            picture = _fine_colors(depth.unit).take((levels * (_TABLE_SIZE - 1) + 0.5).astype(np.uint16), axis=0)
        if not self.side_by_side:
            return picture
        strip = np.full((depth.shape[0], STRIP_WIDTH, 3), 65535, np.uint16)
        return np.concatenate([depth.image.astype(np.uint16) * 257, strip, picture], axis=1)

    def picture_size(self, depth: Depth) -> tuple[int, int]:
        """(H, W) of what `draw` returns."""
        height, width = depth.shape
        return height, 2 * width + STRIP_WIDTH if self.side_by_side else width

    @property
    def suffix(self) -> str:
        """How the files of single frames end."""
        name = "side-by-side" if self.side_by_side else "gray" if self.gray else "color"
        return FORMATS[name if self.format == "picture" else self.format].suffix


def _levels(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """(H, W) float32, 0 to 1 between the limits, clipped; 0 where not finite or without a range, as `Depth.gray`"""
    low, high = np.float32(limits[0]), np.float32(limits[1])
    if not high > low:
        return np.zeros(values.shape, np.float32)
    return ((np.where(np.isfinite(values), values, low) - low) / (high - low)).clip(0, 1)


@functools.cache
def _fine_colors(unit: Unit) -> np.ndarray:
    """(4096, 3) uint16 RGB: the 256 colors of `Depth.color`, and those between them."""
    colors = Depth(np.arange(256)[None], unit).color((0, 255))[0] * 257.0
    at = np.linspace(0, 255, _TABLE_SIZE)
    return np.stack([np.interp(at, np.arange(256), channel) for channel in colors.T], axis=-1).round().astype(np.uint16)
