"""SA-1B (Kirillov et al., Segment Anything, ICCV 2023): 11 million photos without depth, with places on their objects.

As distributed, 1,000 .tar files, read in place; or unpacked, at any depth below the root:

    sa_000000.tar or sa_000000/
        sa_1.jpg      8-bit RGB, the shorter side 1500 pixels
        sa_1.json     {"image": {...}, "annotations": [{"point_coords": [[x, y]], "segmentation": COCO RLE, ...}]}

Source: README of facebookresearch/segment-anything, "Dataset". `points` holds the point of each mask, from which the
model had made it, turned from the file's (x, y) into (row, column): such are the pixels of which DA-2K's pairs were
made. They count from the center of the first pixel (the model adds 0.5 to them). Masks are not decoded. A photo
without annotations comes without points.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from dav2_jax.data import listing, tar_index
from dav2_jax.data.example import Example
from dav2_jax.data.readers.images import read_from_tar
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import read_image

_MAX_BYTES = 100_000_000  # of a .json; true ones have up to some MB

# A photo in a folder: its path below the root. In a .tar: the path of the .tar, the photo, its annotations or None.
Item = str | tuple[str, tar_index.Member, tar_index.Member | None]


def source(root: Path) -> Source:
    """Photos without depth, with `points` where annotations are there; `root` is a folder or one of the .tar files.

    Raises Dav2Error where nothing is found, or a .tar cannot be read.
    """
    paths = [root.name] if root.is_file() else listing.files(root, (".jpg", ".json", ".tar"))
    root = root.parent if root.is_file() else root
    items: list[Item] = []
    bare = []
    known = set(paths)
    for path in paths:
        if path.lower().endswith(".tar"):
            found = {member.name: member for member in tar_index.members(root / path)}
            for name in sorted(found):
                if name.lower().endswith(".jpg"):
                    notes = found.get(f"{listing.stem(name)}.json")
                    items.append((path, found[name], notes))
                    bare += [] if notes else [f"{path}/{name}"]
        elif path.lower().endswith(".jpg"):
            items.append(path)
            bare += [] if f"{listing.stem(path)}.json" in known else [path]
    if not items:
        raise listing.nothing(root, "sa_*.jpg with sa_*.json, in folders or .tar files")
    about = (f"{len(bare):,} photos have no annotations and so no points, the first is {bare[0]}",) if bare else ()
    return Source("sa1b", items, partial(_read, root), unit="none", about=about)


def _read(root: Path, item: Item) -> Example:
    if isinstance(item, str):
        image, _ = read_image(root / item)
        example = Example(id=listing.stem(item), image=image)
        notes = root / f"{listing.stem(item)}.json"
        if notes.exists():
            _check_size(notes, notes.stat().st_size)
            example["points"] = _points(notes.read_bytes(), str(notes), image)
        return example
    path, photo, annotations = item
    image = read_from_tar(root / path, photo)
    example = Example(id=f"{listing.stem(path)}/{listing.stem(photo.name)}", image=image)
    if annotations is not None:
        where = f"{root / path}: {annotations.name}"
        _check_size(where, annotations.size)
        example["points"] = _points(tar_index.read(root / path, *annotations), where, image)
    return example


def _check_size(where: str | Path, size: int) -> None:
    if size > _MAX_BYTES:
        raise Dav2Error(f"{where}: has {size:,} bytes, which no annotations of one photo have")


def _points(data: bytes, where: str, image: np.ndarray) -> np.ndarray:
    """float32 [K, 2], (row, column); a mask made from several points gives all of them."""
    try:
        annotations = json.loads(data)["annotations"]
        points = [point for annotation in annotations for point in annotation["point_coords"]]
        rows_and_columns = np.array(points, np.float64).reshape(len(points), 2)[:, ::-1]
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise Dav2Error(
            f"{where}: holds no annotations of SA-1B ({type(error).__name__}): download it again"
        ) from error
    if not ((rows_and_columns >= 0) & (rows_and_columns <= image.shape[:2])).all():  # NaN is outside, too
        raise Dav2Error(f"{where}: has a point outside of the photo, which is {image.shape[1]} x {image.shape[0]}")
    return rows_and_columns.astype(np.float32)
