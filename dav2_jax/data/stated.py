"""What a depth file states about itself: the unit, scale and offset that `dav2 predict` writes into its files."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dav2_jax.data.depth_files import npy_header
from dav2_jax.errors import Dav2Error

_UNITS = ("metres", "disparity")
_MAX_BYTES = 10_000  # of a .json beside a PNG, or of the unit in an .npz


class Stated(NamedTuple):
    """None where the file says nothing."""

    unit: str | None = None  # "metres" or "disparity"
    scale: float | None = None  # value = offset + scale * stored
    offset: float = 0.0


def stated(path: Path) -> Stated:
    """From the text of a PNG, the .json beside it, the `unit` of an .npz, or the header of an EXR.

    Reads headers only. Raises Dav2Error where what is stated makes no sense; FileNotFoundError.
    """
    readers = {".png": _png, ".npz": _npz, ".exr": _exr}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        return Stated()
    path.stat()  # OpenEXR has one exception for everything
    try:
        known = reader(path)
        numbers = {name: float(known[name]) for name in ("scale", "offset") if name in known}
        unit = str(known["unit"]) if "unit" in known else None
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Dav2Error(f"{path}: damaged or unreadable ({reason}): check the file") from error
    if unit not in (None, *_UNITS) or not all(map(math.isfinite, numbers.values())):
        raise Dav2Error(f"{path}: states what is no depth: {', '.join(f'{k} {v}' for k, v in known.items())[:80]}")
    return Stated(unit, **numbers)


def _png(path: Path) -> dict:
    from PIL import Image

    with Image.open(path) as image:
        known = {name: image.info[name] for name in ("unit", "scale", "offset") if name in image.info}
    beside = path.with_name(path.name + ".json")  # an editor may have dropped the text
    if len(known) < 3 and beside.exists() and beside.stat().st_size < _MAX_BYTES:
        note = json.loads(beside.read_text(encoding="utf-8"))
        if isinstance(note, dict) and {"unit", "scale", "offset"} <= note.keys():
            return {name: note[name] for name in ("unit", "scale", "offset")}
    return known if len(known) == 3 else {}


def _npz(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        if "unit.npy" not in archive.namelist() or archive.getinfo("unit.npy").file_size > _MAX_BYTES:
            return {}
        with archive.open("unit.npy") as file:
            shape, dtype = npy_header(file)
        if math.prod(shape) != 1 or dtype.itemsize > _MAX_BYTES:
            return {}
        with archive.open("unit.npy") as file:
            return {"unit": np.lib.format.read_array(file, allow_pickle=False).item()}


def _exr(path: Path) -> dict:
    import OpenEXR

    with OpenEXR.File(str(path), header_only=True) as file:
        header = dict(file.header())
    return {"unit": header["unit"]} if header.get("unit") in _UNITS else {}
