"""Which image and which depth belong together in a user's own folder, or by a CSV file; see `readers/own.py`."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

from dav2_jax.data import listing
from dav2_jax.data.readers.images import is_photo
from dav2_jax.errors import Dav2Error, did_you_mean
from dav2_jax.image import depth_files

_IMAGES = ("images", "image", "rgb", "color", "photos")
_DEPTHS = ("depth", "depths")
_MARKS = ("_depth", "-depth", ".depth")
_OURS = ".png16.png"
_ENDINGS = frozenset(depth_files.READERS)
_COLUMNS = ("image", "depth", "mask", "scale", "unit", "fx", "fy", "cx", "cy")


class Entry(NamedTuple):
    """An image with its depth; paths are below the root, or absolute where a CSV has them so."""

    id: str
    image: str
    depth: str
    mask: str | None = None
    scale: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None  # fx, fy, cx, cy


def in_folder(root: Path, images: str | None, depths: str | None) -> tuple[list[Entry], tuple[str, ...]]:
    """The pairs below a folder, and what was left out. Raises Dav2Error where there is none, or one is ambiguous."""
    if images is None or depths is None:
        there = listing.folders(root)
        images = next((name for name in _IMAGES if name in there), None)
        depths = next((name for name in _DEPTHS if name in there), None)
    two = images is not None and depths is not None
    found: dict[str, list[str]] = {}  # key -> files of depth
    photos: list[tuple[str, str]] = []  # path in its tree, path below root
    for tree in dict.fromkeys((images, depths)) if two else (None,):
        for name in listing.files(root / (tree or ""), lambda name: is_photo(name) or listing.ending(name) in _ENDINGS):
            path = f"{tree}/{name}" if tree else name
            key = _key(name, bare_png=two) if tree in (None, depths) else None
            if key is not None:
                found.setdefault(key, []).append(path)
            elif tree in (None, images) and listing.ending(name) not in _ENDINGS - {".png"}:
                photos.append((name, path))
    pairs, missing, used = [], [], {}
    for name, path in photos:
        candidates = found.get(name, []) + found.get(listing.stem(name), [])
        if len(candidates) > 1:
            raise Dav2Error(f"{root / path}: its depth could be {candidates[0]} or {candidates[1]}: keep one")
        if not candidates:
            missing.append(path)
        elif candidates[0] in used:
            raise Dav2Error(f"{root / candidates[0]}: could belong to {used[candidates[0]]} or {path}: rename it")
        else:
            used[candidates[0]] = path
            pairs.append((path, candidates[0]))
    single = [path for paths in found.values() for path in paths if path not in used]
    about = listing.left_out("images without depth", missing) + listing.left_out("depth files without image", single)
    if not pairs:
        trees = f"{images}/x.jpg with {depths}/x.png" if two else "x.jpg with x_depth.png"
        raise listing.nothing(root, f"{trees} (npy, npz, exr, pfm, dpt)", about)
    ids = listing.ids([path for path, _ in pairs])
    return [Entry(id, *pair) for id, pair in zip(ids, pairs, strict=True)], about


def _key(name: str, *, bare_png: bool) -> str | None:
    """What depth has in common with its image: a/x_depth.png -> a/x, a/x.jpg.npy -> a/x.jpg. None: it is no depth."""
    if name.endswith(_OURS):
        return name.removesuffix(_OURS)
    stem, ending = listing.stem(name), listing.ending(name)
    if ending not in _ENDINGS:
        return None
    mark = next((mark for mark in _MARKS if stem.endswith(mark)), None)
    if mark is not None:
        return stem.removesuffix(mark)
    return None if ending == ".png" and not bare_png else stem


def in_csv(path: Path) -> tuple[list[Entry], str | None, tuple[str, ...]]:
    """The rows of a CSV file, their unit where a column says it, and what was left out.

    Raises Dav2Error with the line where a column or a value makes no sense, or where no row is left.
    """
    rows = []
    units: set[str] = set()
    missing = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or [])
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise Dav2Error(f"{where}: has not as many values as the header has columns")
                row = {name.strip(): value.strip() for name, value in row.items()}
                entry = _entry(where, row)
                units.add(row.get("unit", ""))
                gone = [
                    name
                    for name in (entry.image, entry.depth, entry.mask)
                    if name and not (path.parent / name).is_file()
                ]
                if gone:
                    missing.append(f"{where} ({gone[0]})")
                else:
                    rows.append(entry)
    except FileNotFoundError as error:
        raise Dav2Error(f"{path}: no such file: check the path") from error
    except (csv.Error, UnicodeDecodeError, ValueError) as error:
        raise Dav2Error(f"{path}: is no CSV text in UTF-8 ({str(error).splitlines()[0][:80]})") from error
    if len(units) > 1:
        raise Dav2Error(f"{path}: its rows have unlike units ({', '.join(sorted(units))}): make a CSV of each")
    about = listing.left_out("rows whose files are not there", missing)
    if not rows:
        raise listing.nothing(path, "rows of an image and a depth that exist", about)
    ids = listing.ids([entry.image for entry in rows])
    return [entry._replace(id=id) for id, entry in zip(ids, rows, strict=True)], next(iter(units)) or None, about


def _check_columns(path: Path, names: list[str]) -> None:
    names = [name.strip() for name in names]
    for name in names:
        if name not in _COLUMNS:
            near = did_you_mean(name.lower(), _COLUMNS)
            raise Dav2Error(f"{path}: has an unknown column {name!r}{near}: known are {', '.join(_COLUMNS)}")
    for name in ("image", "depth"):
        if names.count(name) != 1:
            raise Dav2Error(
                f"{path}: needs a header with the columns image and depth, each once: it has {', '.join(names)}"
            )


def _entry(where: str, row: dict[str, str]) -> Entry:
    numbers = {}
    for name in ("scale", "fx", "fy", "cx", "cy"):
        if text := row.get(name):
            try:
                numbers[name] = float(text)
            except ValueError:
                numbers[name] = math.nan
            if not math.isfinite(numbers[name]):
                raise Dav2Error(f"{where}: {name} is no number: {text[:40]!r}")
    if not row["image"] or not row["depth"]:
        raise Dav2Error(f"{where}: has no image, or no depth")
    if row.get("unit", "") not in ("", "metres", "disparity"):
        raise Dav2Error(f"{where}: the unit is {row['unit'][:40]!r}, not metres or disparity")
    camera = [numbers[name] for name in ("fx", "fy", "cx", "cy") if name in numbers]
    if len(camera) not in (0, 4):
        raise Dav2Error(f"{where}: has some of fx, fy, cx, cy: give all four, or none")
    return Entry("", row["image"], row["depth"], row.get("mask") or None, numbers.get("scale"), tuple(camera) or None)
