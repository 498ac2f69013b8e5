"""What a depth file states about itself: the unit, scale and offset that `dav2 predict` writes into its files."""

from __future__ import annotations

import json
import math
import threading
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error, first_line
from dav2_jax.image import exr

_UNITS = ("metres", "disparity")
_MAX_BYTES = 10_000  # of a .json beside a PNG, or of a value in an .npz
_PARSER = threading.Lock()  # NumPy parses headers by `ast`, which in CPython 3.11 two threads may not do at once
_EXR_NAMES = {"unit": "unit", "focalLength": "focal_length", "maxDepth": "max_depth"}


class Metadata(NamedTuple):
    """None where the file says nothing."""

    unit: str | None = None  # "metres" or "disparity"
    scale: float | None = None  # value = offset + scale * stored
    offset: float = 0.0
    max_depth: float | None = None  # metres, the largest value that the model could give
    focal_length: float | None = None  # pixels
    orientation: int = 1  # EXIF, of a PNG: how to turn the stored pixels


def metadata(path: Path) -> Metadata:
    """From the text of a PNG or the .json beside it, the scalars of an .npz, or the header of an EXR.

    Reads headers only. Raises Dav2Error where what is stated makes no sense; FileNotFoundError.
    """
    reader = {".png": _png, ".npz": _npz, ".exr": _exr}.get(path.suffix.lower())
    if reader is None:
        return Metadata()
    path.stat()  # raises FileNotFoundError with the path
    try:
        known = reader(path)
        unit = str(known.pop("unit")) if "unit" in known else None
        orientation = known.pop("orientation", 1)
        numbers = {name: float(value) for name, value in known.items()}
    except FileNotFoundError:
        raise
    except Dav2Error as error:
        raise Dav2Error(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        reason = first_line(error)
        raise Dav2Error(f"{path}: damaged or unreadable ({reason}): check the file") from error
    if unit not in (None, *_UNITS) or not all(map(math.isfinite, numbers.values())):
        facts = {"unit": unit} | numbers
        raise Dav2Error(f"{path}: states what is no depth: {', '.join(f'{k} {v}' for k, v in facts.items())[:80]}")
    return Metadata(unit, **numbers, orientation=orientation)


class ArrayHeader(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def npy_header(file: IO[bytes]) -> ArrayHeader:
    """The header of an array in NumPy's format, from an open file, before anything is allocated for the array."""
    with _PARSER:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return ArrayHeader(*read_header(file))


def npy_values(file: IO[bytes], header: ArrayHeader) -> np.ndarray:
    """The array behind its header, read-only. Raises ValueError for objects, which could run code, and a short file."""
    if header.dtype.hasobject:
        raise ValueError("objects, not numbers")
    size = math.prod(header.shape) * header.dtype.itemsize
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"{len(data):,} bytes of values where {size:,} are needed")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.fortran_order else "C")


def _png(path: Path) -> dict[str, Any]:
    from PIL import ExifTags, Image

    with Image.open(path) as image:
        text = dict(image.info)
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    orientation = {"orientation": found if found in range(1, 9) else 1}
    needed = {"unit", "scale", "offset"}
    beside = path.with_name(path.name + ".json")
    if not needed <= text.keys() and beside.exists() and beside.stat().st_size < _MAX_BYTES:
        text = json.loads(beside.read_text(encoding="utf-8"))  # an editor may have dropped the text of the PNG
    if not isinstance(text, dict) or not needed <= text.keys():
        return orientation
    return orientation | {name: text[name] for name in ("unit", "scale", "offset", "max_depth") if name in text}


def _npz(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in ("unit", "max_depth", "focal_length") if f"{name}.npy" in archive.namelist()]
        if "unit" not in names:  # not a file of ours
            return {}
        scalars = {name: _scalar(archive, f"{name}.npy") for name in names}
    return {name: value for name, value in scalars.items() if value is not None}


def _scalar(archive: zipfile.ZipFile, entry: str) -> Any:
    """The one value of an array in an .npz; None for an array that is larger, and so something else."""
    if archive.getinfo(entry).file_size > _MAX_BYTES:
        return None
    with archive.open(entry) as file:
        header = npy_header(file)
        if math.prod(header.shape) != 1 or header.dtype.itemsize > _MAX_BYTES:
            return None
        return npy_values(file, header).item()


def _exr(path: Path) -> dict[str, Any]:
    header = exr.header(path)
    return {
        ours: header[theirs] for theirs, ours in _EXR_NAMES.items() if header.get("unit") in _UNITS and theirs in header
    }
