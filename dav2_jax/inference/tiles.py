"""Finer depth from tiles of a photo, each predicted alone, brought together on a prediction of the whole photo.

A tile lacks the rest of the scene, so its scale and shift are its own (and a metric model takes it for a photo through
a longer lens), and its large shapes bend a little. The whole has these right, and lacks the detail. So a tile is put on
the whole by a scale and a shift, least squares, and by a smooth correction that gives it the means of the whole over
large blocks; then neighbors are faded into each other. On analytic scenes with bent tiles the correction halved the
error and divided the steps between tiles by two to eight; solving for all scales and shifts at once, so that overlaps
agree, divided them by 1.2 and drew the tiles away from the truth.

Disparity gets a scale and a shift a tile. Metres get a scale alone: a longer lens changes nothing else, and a shift
could put things behind the camera. In logarithms a scale is a shift, so metres are aligned and blended there.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.depth import Depth

MOST_TILES = 16  # along a side
_MOST_AUTO = 4  # the paper (appendix B.8) shows finer edges up to four times the usual size
_SAMPLES = 48  # along the shorter side of a tile, for the fit: means over pixels that the whole can tell apart too
_BLOCKS = 8  # along the shorter side of a tile, for the correction; 6 to 10 measured about alike
_AGREE = 0.5  # least correlation of a tile with the whole


class Grid(NamedTuple):
    """Tiles of one size (height, width), in pixels; each starts at one of `rows` and one of `columns`."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    height: int
    width: int

    def windows(self) -> list[tuple[slice, slice]]:
        """Where the tiles lie, row by row."""
        return [
            (slice(r, r + self.height), slice(c, c + self.width)) for r, c in itertools.product(self.rows, self.columns)
        ]


def plan(
    height: int, width: int, tiles: int | Literal["auto"], *, input_size: int = 518, overlap: float = 0.25
) -> Grid:
    """tiles x tiles tiles that cover a photo of (height, width), all of its proportions and of one size.

    tiles    along each side; "auto": as many as it takes to show every pixel of the photo to the model at `input_size`
             (its shorter side), at most 4. 1 is the photo itself.
    overlap  of neighbors, as a share of a tile, above 0 and at most 0.5

    Raises Dav2Error for other values, and for a photo too small for that many tiles.
    """
    check_tiles(tiles)
    if not 0 < overlap <= 0.5:
        raise Dav2Error(f"overlap is {overlap:g}: give a share of a tile, above 0 and at most 0.5")

    def size(side: int, count: int) -> int:
        return math.ceil(side / (count - (count - 1) * overlap))

    if tiles == "auto":
        shorter = min(height, width)
        tiles = next((n for n in range(1, _MOST_AUTO) if size(shorter, n) <= input_size), _MOST_AUTO)
    if tiles > 1 and min(height, width) < 14 * tiles:
        raise Dav2Error(f"tiles={tiles}: too many for a photo of {width} x {height}: give fewer")

    def starts(side: int) -> tuple[int, ...]:
        return tuple(round(k * (side - size(side, tiles)) / max(1, tiles - 1)) for k in range(tiles))

    return Grid(starts(height), starts(width), size(height, tiles), size(width, tiles))


def check_tiles(tiles: int | Literal["auto"]) -> None:
    """Raises Dav2Error for what no photo can be cut into."""
    is_count = hasattr(tiles, "__index__") and not isinstance(tiles, bool)
    if not (isinstance(tiles, str) and tiles == "auto") and not (is_count and 1 <= tiles <= MOST_TILES):
        raise Dav2Error(f"tiles={tiles}: give 'auto' or a number along each side, from 1 to {MOST_TILES}")


def predict_tiled(
    predict: Callable[[Sequence], Iterable[Depth]],
    photo,
    *,
    tiles: int | Literal["auto"] = "auto",
    input_size: int = 518,
    overlap: float = 0.25,
) -> Depth:
    """Depth of a photo with the detail of its tiles and the large shapes of the whole, at the photo's size.

    predict     takes a list of photos and gives a Depth with `image` for each, in order; it is called with [photo], and
                then with the tiles, uint8 RGB arrays (views) of one size. Such as `Model.predict`.
    photo       whatever `predict` takes
    tiles       along each side, or "auto": see `plan`, also for `input_size` (that of `predict`) and `overlap`. With
                n tiles along each side the model runs n * n + 1 times.

    A tile that does not go with the whole (constant, as a clear sky is; or correlated by less than 0.5; or upside down)
    is left out, and the whole stands in for it. Raises Dav2Error as `plan` and `predict`.
    """
    (whole,) = predict([photo])
    grid = plan(*whole.shape, tiles, input_size=input_size, overlap=overlap)
    windows = grid.windows()
    if len(windows) == 1:
        return whole
    metric = whole.unit == "metres"
    base = _to_linear(whole.values, metric)
    depths = predict([whole.image[window] for window in windows])
    parts = (
        aligned(_to_linear(depth.values, metric), base[window], metric=metric)
        for depth, window in zip(depths, windows, strict=True)
    )
    values = blended(parts, grid)
    values = np.exp(values) if metric else np.maximum(values, min(0, base.min()))
    return dataclasses.replace(whole, values=values)


def aligned(part: np.ndarray, whole: np.ndarray, *, metric: bool = False) -> np.ndarray:
    """A tile (h, w), put on its place in the whole's map (h, w): float32; `whole` where they do not go together.

    metric  both are logarithms, of which the scale is right: a shift alone
    """
    tile_means, whole_means = _means(part, _SAMPLES), _means(whole, _SAMPLES)
    if not _go_together(tile_means, whole_means):
        return whole
    if not metric:
        scale = np.cov(tile_means.ravel(), whole_means.ravel())[0, 1] / tile_means.var(ddof=1)
        part = (scale * part).astype(np.float32)
    rest = _means(whole, _BLOCKS) - _means(part, _BLOCKS)  # the shift is in it
    return part + _spread(rest, part.shape).astype(np.float32)


def blended(parts: Iterable[np.ndarray], grid: Grid) -> np.ndarray:
    """(H, W) float32: the tiles, each faded in and out by sin ** 2 across its overlaps, but not at the photo's edge."""
    shape = grid.rows[-1] + grid.height, grid.columns[-1] + grid.width
    total, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    down, across = _fades(grid.rows, grid.height), _fades(grid.columns, grid.width)
    for k, (part, window) in enumerate(zip(parts, grid.windows(), strict=True)):
        row, column = divmod(k, len(grid.columns))
        weight = down[row][:, None] * across[column][None]
        total[window] += weight * part
        weights[window] += weight
    return total / weights


def _fades(starts: Sequence[int], size: int) -> list[np.ndarray]:
    """The weight of each tile along one side, (size,) float32."""
    fades = [np.ones(size) for _ in starts]
    for k in range(1, len(starts)):
        shared = starts[k - 1] + size - starts[k]
        rise = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / shared) ** 2
        fades[k][:shared] *= rise
        fades[k - 1][size - shared :] *= rise[::-1]
    return [fade.astype(np.float32) for fade in fades]


def _go_together(tile: np.ndarray, whole: np.ndarray) -> bool:
    """Whether two (h, w) maps say the same but for a scale above 0 and a shift; no, where one of them is constant."""
    if not (np.isfinite(tile).all() and np.isfinite(whole).all()):
        return False
    constant = any(np.ptp(x) <= 1e-5 * np.abs(x).max() for x in (tile, whole))
    return not constant and np.corrcoef(tile.ravel(), whole.ravel())[0, 1] >= _AGREE


def _means(x: np.ndarray, count: int) -> np.ndarray:
    """(H, W) -> (h, w) float64: means over blocks, about square, `count` of them along the shorter side."""
    shape = x.shape
    for axis, size in enumerate(shape):
        edges = _edges(size, min(size, round(count * size / min(shape))))
        x = np.add.reduceat(x, edges[:-1], axis, dtype=np.float64) / np.expand_dims(np.diff(edges), 1 - axis)
    return x


def _spread(means: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(h, w) -> (H, W): bilinear between the centers of the blocks, constant beyond the outer ones."""
    for axis, size in enumerate(shape):
        edges = _edges(size, means.shape[axis])
        centers = (edges[1:] + edges[:-1]) / 2
        weights = np.stack([np.interp(np.arange(size) + 0.5, centers, one) for one in np.eye(len(centers))])  # h H
        means = weights.T @ means if axis == 0 else means @ weights
    return means


def _edges(size: int, count: int) -> np.ndarray:
    """Where each of `count` blocks along a side begins, and the last one ends."""
    return np.linspace(0, size, count + 1).astype(int)


def _to_linear(values: np.ndarray, metric: bool) -> np.ndarray:
    return np.log(np.maximum(values, 1e-6)) if metric else values
