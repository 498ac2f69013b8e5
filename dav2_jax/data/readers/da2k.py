"""DA-2K, the benchmark of Depth Anything V2 (Yang et al., NeurIPS 2024, section 6): which of two pixels is closer.

    annotations.json               {image path: [{"point1": [h, w], "point2": [h, w], "closer_point": "point1"}, ...]}
    images/<scene>/*.jpg (png)     or <scene>/*.jpg, as the keys have it

The points are (row, column) in the pixels of the stored image, and point1 is always the closer one; a file of another
make may say "point2", which is turned around here. Scenes: the eight folder names of `SCENES`. About 1,035 images and
2,068 pairs. Source: DA-2K.md of DepthAnything/Depth-Anything-V2.

Traps: the points are no (x, y); an image has more than one pair, and each pair counts once in the benchmark's accuracy;
some images are known to miss in the download, so missing ones are reported and the rest is read.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dav2_jax.data import listing
from dav2_jax.data.example import Example
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import read_image

Scene = Literal[
    "indoor", "outdoor", "non_real", "transparent_reflective", "adverse_style", "aerial", "underwater", "object"
]
SCENES: tuple[str, ...] = get_args(Scene)
_MAX_BYTES = 100_000_000  # the true file has less than 1 MB

Pair = tuple[tuple[int, int], tuple[int, int]]  # (row, column) of the closer and of the farther pixel


def source(root: Path, *, scene: Scene | None = None) -> Source:
    """Images with `pairs` and `scene`, without depth; in the order of their paths.

    root    the folder that holds annotations.json
    scene   only images of this kind; None is all

    Raises Dav2Error where the annotations cannot be read, or no image is found.
    """
    path = root / "annotations.json"
    images = _annotations(path)
    items, missing = [], []
    for name in sorted(images, key=lambda name: name.split("/")):
        kind = next((part for part in name.split("/")[:-1] if part in SCENES), "")
        if scene is None or kind == scene:
            place = next((place for place in (name, f"images/{name}") if (root / place).is_file()), None)
            if place is None:
                missing.append(name)
            else:
                items.append((place, kind, images[name]))
    about = listing.left_out("images that are not there", missing)
    if not items:
        raise listing.nothing(root, f"the images that annotations.json names{f' of {scene}' if scene else ''}", about)
    return Source("da2k", items, partial(_read, root), unit="none", about=about)


def _annotations(path: Path) -> dict[str, tuple[Pair, ...]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise Dav2Error(f"{path}: has {path.stat().st_size:,} bytes: it is not DA-2K's file")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Dav2Error(f"{path}: no such file: give the folder that holds it") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise Dav2Error(f"{path}: is no JSON file ({type(error).__name__}): download it again") from error
    if not isinstance(data, dict):
        raise Dav2Error(f"{path}: is no object of image paths: download it again")
    return {name: tuple(_pair(path, name, pair) for pair in _list(path, name, pairs)) for name, pairs in data.items()}


def _list(path: Path, name: str, pairs) -> list:
    if not isinstance(pairs, list) or ".." in name.split("/") or name.startswith("/"):
        raise Dav2Error(f"{path}: {name!r}: a list of pairs under a path below this folder is expected")
    return pairs


def _pair(path: Path, name: str, pair) -> Pair:
    try:
        closer = pair["closer_point"]
        first, second = ((int(row), int(column)) for row, column in (pair["point1"], pair["point2"]))
        if not all(0 <= place < 2**31 for place in (*first, *second)):
            raise ValueError("outside of any image")
        return {"point1": (first, second), "point2": (second, first)}[closer]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Dav2Error(f"{path}: {name!r}: is no pair: {str(pair)[:80]}") from error


def _read(root: Path, item: tuple[str, str, tuple[Pair, ...]]) -> Example:
    name, scene, pairs = item
    image, _ = read_image(root / name)
    points = np.array(pairs, np.int32).reshape(-1, 2, 2)
    if (points >= image.shape[:2]).any():
        raise Dav2Error(
            f"{root / name}: is {image.shape[1]} x {image.shape[0]}, and a pair of points lies outside of it"
        )
    return Example(id=listing.stem(name), image=image, pairs=points, scene=scene)
