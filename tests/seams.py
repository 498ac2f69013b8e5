"""How visible the seams of a depth map are that was put together from tiles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dav2_jax.inference.tiles import Grid

_BESIDE = range(3, 11)  # pixels to both sides: what the steps are compared with


class SeamError(NamedTuple):
    """step: mean absolute step across the seams, over that beside them, as a share of the map's range (2nd to 98th
    percentile). ratio: the same two as a quotient. No seams: 0 and 1, up to what the scene has there by chance."""

    step: float
    ratio: float


def seam_error(values: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> SeamError:
    """Of a map (H, W) whose parts meet before these rows and columns (1 is between the first two).

    Steps beside a seam, 3 to 10 pixels away, say what the scene itself does there.
    """
    across, beside = [], []
    for lines, places in ((values, rows), (values.T, columns)):
        steps = np.abs(np.diff(lines.astype(np.float64), axis=0)).mean(1)  # [k]: between k and k + 1
        for place in places:
            across.append(steps[place - 1])
            beside += [steps[k] for d in _BESIDE for k in (place - 1 - d, place - 1 + d) if 0 <= k < len(steps)]
    low, high = np.percentile(values, (2, 98))
    return SeamError(
        float((np.mean(across) - np.mean(beside)) / (high - low)), float(np.mean(across) / np.mean(beside))
    )


def meetings(grid: Grid) -> tuple[list[int], list[int]]:
    """(rows, columns) in the middle of each overlap, where tiles that are not blended meet."""
    return tuple(
        [(before + size + after) // 2 for before, after in itertools.pairwise(starts)]
        for starts, size in ((grid.rows, grid.height), (grid.columns, grid.width))
    )


def borders(grid: Grid) -> tuple[list[int], list[int]]:
    """(rows, columns) where a tile begins or ends within the photo."""
    return tuple(
        sorted({*starts[1:], *(start + size for start in starts[:-1])})
        for starts, size in ((grid.rows, grid.height), (grid.columns, grid.width))
    )


def mosaic(parts: Sequence[np.ndarray], grid: Grid) -> np.ndarray:
    """(H, W): the tiles as they are, cut in the middle of their overlaps; what `tiles.blended` is compared with."""
    height, width = grid.rows[-1] + grid.height, grid.columns[-1] + grid.width
    rows, columns = meetings(grid)
    values = np.empty((height, width), np.float32)
    for k, (part, (down, across)) in enumerate(zip(parts, grid.windows(), strict=True)):
        i, j = divmod(k, len(grid.columns))
        top, bottom = [0, *rows, height][i : i + 2]
        left, right = [0, *columns, width][j : j + 2]
        values[top:bottom, left:right] = part[
            top - down.start : bottom - down.start, left - across.start : right - across.start
        ]
    return values
