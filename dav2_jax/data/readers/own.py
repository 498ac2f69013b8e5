"""Your own images with depth: a folder, or a CSV file that says what belongs together.

A folder with two trees, `images/` (or image, rgb, color, photos) and `depth/` (or depths), paired by the path below
them, or with everything in one tree. `x.jpg` goes with the one of these that is there:

    x.png (two trees), x_depth.png, x-depth.png, x.depth.png     and .npy .npz .exr .pfm .dpt, with or without _depth
    x.jpg.png16.png, x.jpg.npy, x.jpg.npz, x.jpg.exr             as `dav2 predict` writes them

A CSV file in UTF-8 with a header: the columns image and depth, and where wanted mask (paths relative to the CSV),
scale, unit, fx fy cx cy (pixels of the image, center of the first pixel at (0, 0)).

What is stored, times `scale`, is depth along the optical axis in metres, or disparity. Integers, as in 16-bit PNG, mean
nothing without a scale (0.001 for millimetres, 1/256 for KITTI's), so it must be given, unless the file states it
(those of `dav2 predict` do). Not valid are 0, negative values, NaN, both infinities, and what `invalid` and the mask
say; so sparse depth needs nothing special. `sky` names the stored value that means infinitely far, as 65535 or inf.
A disparity of 0 is a measured one, sky, only where `sky=0` says so or the file is one of ours and states its unit.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dav2_jax.data import depth_files, listing
from dav2_jax.data.example import Example, from_disparity, labeled
from dav2_jax.data.fit import fit, scale_intrinsics
from dav2_jax.data.own_pairs import Entry, in_csv, in_folder
from dav2_jax.data.source import Source
from dav2_jax.data.stated import stated
from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import read_image

Unit = Literal["metres", "disparity"]


class _How(NamedTuple):
    """How stored numbers become depth, for all files of a source."""

    unit: str
    invalid: float | None
    sky: float | None
    resize: Literal["image", "depth"] | None


def source(
    root: Path,
    *,
    scale: float | None = None,
    unit: Unit | None = None,
    invalid: float | None = None,
    sky: float | None = None,
    resize: Literal["image", "depth"] | None = None,
    images: str | None = None,
    depths: str | None = None,
) -> Source:
    """Images with depth or disparity, from a folder or a .csv.

    scale     what one stored step is worth, in metres or in disparity; a CSV's column goes before it
    unit      of the files; None is what they state, and metres where they state nothing
    invalid   a stored number that means "unknown", beside those that always do
    sky       a stored number that means infinitely far
    resize    for pairs of unlike size but like shape, which of the two is brought to the other's size: the image (an
              average where it shrinks) or the depth (by nearest pixel); None refuses them
    images    the folders of the two trees, where they have other names
    depths

    Raises Dav2Error where nothing is found, more than one file could be the depth of an image, a column is unknown, or
    integers have no scale.
    """
    if (images is None) != (depths is None):
        raise Dav2Error("images= and depths= name two trees: give both, or none for one tree")
    if root.suffix.lower() == ".csv" and not root.is_dir():
        entries, csv_unit, about = in_csv(root)
        if unit and csv_unit and unit != csv_unit:
            raise Dav2Error(f"{root}: its column unit says {csv_unit}, and unit= {unit}")
        unit, root = unit or csv_unit, root.parent
    else:
        entries, about = in_folder(root, images, depths)
    entries = [entry if entry.scale is not None else entry._replace(scale=scale) for entry in entries]
    unit = unit or stated(root / entries[0].depth).unit or "metres"
    how = _How(unit, invalid, sky, resize)
    first = next((entry for entry in entries if listing.ending(entry.depth) == ".png"), None)
    if first is not None:
        _scale(root / first.depth, first, unit, np.dtype(np.uint16))  # better said now than by a worker
    return Source("own", entries, partial(_read, root, how), "disparity" if unit == "disparity" else "metres", about)


def _read(root: Path, how: _How, entry: Entry) -> Example:
    image, _ = read_image(root / entry.image)
    path = root / entry.depth
    stored = depth_files.read(path)
    scale, offset, zero_is_sky = _scale(path, entry, how.unit, stored.dtype)
    values = stored if scale == 1 and offset == 0 else offset + scale * stored.astype(np.float64)
    known = np.ones(stored.shape, bool) if entry.mask is None else _mask(root / entry.mask, stored.shape)
    valid = known & np.isfinite(stored)
    if how.invalid is not None:
        valid &= stored != how.invalid
    sky = known & (stored == how.sky) if how.sky is not None else np.zeros_like(known)
    if how.unit == "metres":
        values = np.where(sky, np.inf, np.where(valid, values, 0))
    else:
        valid &= (values > 0) | ((values == 0) & zero_is_sky)
        values = np.where(sky, 0, np.where(valid, values, np.nan))
    factors = (1.0, 1.0)
    if how.resize is not None:
        image, values, factors = fit(entry.id, image, values, how.resize)
    intrinsics = None if entry.intrinsics is None else scale_intrinsics(np.array(entry.intrinsics), factors)
    return (labeled if how.unit == "metres" else from_disparity)(entry.id, image, values, intrinsics=intrinsics)


def _mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    mask = depth_files.read_mask(path)
    if mask.shape != shape:
        raise Dav2Error(f"{path}: is {mask.shape[1]} x {mask.shape[0]} and its depth {shape[1]} x {shape[0]}")
    return mask


def _scale(path: Path, entry: Entry, unit: str, dtype: np.dtype) -> tuple[float, float, bool]:
    """Scale and offset of what is stored, and whether the file states that it is disparity, of which 0 is a value."""
    known = stated(path)
    if known.unit not in (None, unit):
        raise Dav2Error(f"{path}: states that it is {known.unit}, where {unit} is expected: keep them apart")
    ours = known.unit == "disparity"
    if known.scale is not None:
        if entry.scale not in (None, known.scale):
            raise Dav2Error(f"{path}: states its scale, {known.scale:g}, and {entry.scale:g} is given: leave scale out")
        return known.scale, known.offset, ours
    if entry.scale is None and dtype.kind != "f":
        raise Dav2Error(f"{path}: holds integers and does not state what one step is worth: give scale, 0.001 for mm")
    return 1.0 if entry.scale is None else entry.scale, 0.0, ours
