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

A photo is turned by its EXIF orientation. Depth is taken to be upright already, unless its PNG has an orientation of
its own, or `turn` says that it is stored as the photo's pixels are.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from dav2_jax.data import listing
from dav2_jax.data.example import Example, from_disparity, labeled
from dav2_jax.data.fit import ASPECT, fit, scale_intrinsics, upright
from dav2_jax.data.own_pairs import Entry, in_csv, in_folder
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.depth_metadata import Metadata, metadata
from dav2_jax.image.read import read_image

Unit = Literal["metres", "disparity"]


class _How(NamedTuple):
    """How stored numbers become depth, for all files of a source."""

    unit: str
    invalid: float | None
    sky: float | None
    resize: Literal["image", "depth"] | None
    channel: str | None
    turn: bool | None


def source(
    root: Path,
    *,
    scale: float | None = None,
    unit: Unit | None = None,
    invalid: float | None = None,
    sky: float | None = None,
    resize: Literal["image", "depth"] | None = None,
    channel: str | None = None,
    turn: bool | None = None,
    images: str | None = None,
    depths: str | None = None,
) -> Source:
    """Images with depth or disparity, from a folder or a .csv.

    scale     what one stored step is worth, in metres or in disparity; a CSV's column takes precedence
    unit      of the files; None is what they state, and metres where they state nothing
    invalid   a stored number that means "unknown", beside those that always do
    sky       a stored number that means infinitely far
    resize    for pairs of unlike size but like shape, which of the two is brought to the other's size: the image (an
              average where it shrinks) or the depth (by nearest pixel); None refuses them
    channel   of EXR files; None is the one that holds depth (`exr.depth_channels`)
    turn      True: depth is stored as the photo's pixels are, so the photo's EXIF orientation turns it too. False: it
              is upright. None is False, and `dav2 data check` names the pairs where that is not certain
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
    unit = unit or metadata(root / entries[0].depth).unit or "metres"
    how = _How(unit, invalid, sky, resize, channel, turn)
    first = next((entry for entry in entries if listing.ending(entry.depth) == ".png"), None)
    if first is not None:
        _check_scale(root, how, first)  # better said now than by a worker
    notes = partial(_notes, root, how)
    kind = "disparity" if unit == "disparity" else "metres"
    return Source("own", entries, partial(_read, root, how), kind, about, notes=notes)


def _read(root: Path, how: _How, entry: Entry) -> Example:
    image, exif = read_image(root / entry.image)
    path = root / entry.depth
    stored, known = depth_files.read(path, how.channel), metadata(path)
    scale, offset, zero_is_sky = _scale(path, known, entry, how.unit, stored.dtype)
    values = stored if scale == 1 and offset == 0 else offset + scale * stored.astype(np.float64)
    given = np.ones(stored.shape, bool) if entry.mask is None else _mask(root / entry.mask, stored.shape)
    valid = given & np.isfinite(stored)
    sky = np.zeros_like(given)
    with np.errstate(over="ignore"):  # 1e10 is infinite where values are stored as float16
        if how.invalid is not None:
            valid &= stored != how.invalid
        if how.sky is not None:
            sky = given & (stored == how.sky)
    if how.unit == "metres":
        values = np.where(sky, np.inf, np.where(valid, values, 0))
    else:
        valid &= (values > 0) | ((values == 0) & zero_is_sky)
        values = np.where(sky, 0, np.where(valid, values, np.nan))
    turned = _orientation(exif)
    values = upright(values, turned if how.turn else known.orientation)
    if problem := _misfit(image.shape[:2], values.shape, 1 if how.turn else turned, how.resize):
        raise Dav2Error(f"{entry.id}: {problem}")
    factors = (1.0, 1.0)
    if how.resize is not None:
        image, values, factors = fit(entry.id, image, values, how.resize)
    intrinsics = None if entry.intrinsics is None else scale_intrinsics(np.array(entry.intrinsics), factors)
    return (labeled if how.unit == "metres" else from_disparity)(entry.id, image, values, intrinsics=intrinsics)


def _orientation(exif) -> int:
    """The EXIF orientation of a photo, 1 where it states none."""
    found = 1 if exif is None else exif.get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def _misfit(
    image: tuple[int, int], depth: tuple[int, int], orientation: int, resize: Literal["image", "depth"] | None
) -> str | None:
    """What to do about an upright image and a depth of unlike size, (height, width) each; None where all is well."""
    if image == depth:
        return None
    sizes = f"the image is {image[1]} x {image[0]} and its depth {depth[1]} x {depth[0]}"
    if _alike(image, depth):
        if resize is not None:
            return None
        return f"{sizes}: add ?resize=depth for depth at the size of the image, or ?resize=image, if they are a pair"
    if orientation >= 5 and _alike(image[::-1], depth):
        both = "" if resize or image[::-1] == depth else "&resize=depth"
        return f"{sizes}: the photo carries EXIF orientation {orientation}, its depth does not: add ?turn=true{both}"
    return f"{sizes}: they differ in shape, not only in size, so they are not a pair"


def _alike(image: tuple[int, int], depth: tuple[int, int]) -> bool:
    """Whether two (height, width) have the same shape, as `fit` has it."""
    return abs(image[1] * depth[0] / (image[0] * depth[1]) - 1) <= ASPECT


def _notes(root: Path, how: _How, entry: Entry, example: Example) -> list[str]:
    """A photo that was turned where nothing says whether its depth is upright, as the sizes of the two would."""
    known = metadata(root / entry.depth)
    if how.turn is not None or known.unit is not None or known.orientation != 1:  # `dav2 predict` writes it upright
        return []
    with Image.open(root / entry.image) as photo:
        turned = _orientation(photo.getexif())
    size = example["image"].shape[:2]
    if turned == 1 or (turned >= 5 and not _alike(size, size[::-1])):
        return []
    return [
        f"where the photo carries EXIF orientation {turned}, its depth does not: look at them with dav2 data preview, "
        "then add ?turn=true, or ?turn=false where the depth is upright"
    ]


def _mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    mask = depth_files.read_mask(path)
    if mask.shape != shape:
        raise Dav2Error(f"{path}: is {mask.shape[1]} x {mask.shape[0]} and its depth {shape[1]} x {shape[0]}")
    return mask


def _check_scale(root: Path, how: _How, entry: Entry) -> None:
    """Raises Dav2Error where the PNG needs a scale; with whatever else this pair needs, as far as headers tell."""
    path = root / entry.depth
    try:
        _scale(path, metadata(path), entry, how.unit, np.dtype(np.uint16))
    except Dav2Error as error:
        more = None
        with contextlib.suppress(OSError, ValueError, SyntaxError):
            with Image.open(root / entry.image) as photo, Image.open(path) as depth:
                turned, image, deep = _orientation(photo.getexif()), photo.size[::-1], depth.size[::-1]
            image = image[::-1] if turned >= 5 else image
            deep = deep[::-1] if turned >= 5 and how.turn else deep
            more = _misfit(image, deep, 1 if how.turn else turned, how.resize)
        if more is None:
            raise
        raise Dav2Error(f"{error}; {more}") from error


def _scale(path: Path, known: Metadata, entry: Entry, unit: str, dtype: np.dtype) -> tuple[float, float, bool]:
    """Scale and offset of what is stored, and whether the file states that it is disparity, of which 0 is a value."""
    if known.unit not in (None, unit):
        raise Dav2Error(f"{path}: states that it is {known.unit}, where {unit} is expected: keep them apart")
    ours = known.unit == "disparity"
    if known.scale is not None:
        if entry.scale not in (None, known.scale):
            raise Dav2Error(f"{path}: states its scale, {known.scale:g}, and {entry.scale:g} is given: leave scale out")
        return known.scale, known.offset, ours
    if entry.scale is None and dtype.kind != "f":
        raise Dav2Error(
            f"{path}: holds integers and does not state what one step is worth: give scale, as in ?scale=0.001 for "
            "millimetres"
        )
    return 1.0 if entry.scale is None else entry.scale, 0.0, ours
