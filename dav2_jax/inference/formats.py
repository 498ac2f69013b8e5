"""Depth in files: ONE table of output formats, a writer for each, and readers for those that keep the values."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error, import_optional
from dav2_jax.files import atomic, save_png
from dav2_jax.image.colormap import value_range
from dav2_jax.inference.clouds import write_glb, write_ply

if TYPE_CHECKING:
    from dav2_jax.inference.depth import Depth

_ROWS = 256  # of a map at a time
_MILLIMETRES = 0.001  # metres a step, as NYU Depth V2: reaches 65.535 m
_KITTI_STEP = 1 / 256  # metres a step, as KITTI: reaches 255.996 m
_LARGEST_IN_MILLIMETRES = 65.0  # metres


def write_color(depth: Depth, path: Path) -> None:
    _write_in_strips(depth, path, lambda part, limits: part.color(limits))


def write_gray(depth: Depth, path: Path) -> None:
    with atomic(path) as temporary:
        save_png(depth.gray(), temporary)


def write_side_by_side(depth: Depth, path: Path) -> None:
    _write_in_strips(depth, path, lambda part, limits: part.side_by_side(limits))


def _write_in_strips(depth: Depth, path: Path, draw: Callable[[Depth, tuple[float, float]], np.ndarray]) -> None:
    """An RGB picture that is drawn from the top down: an array of all of it would double the memory of a large photo.

    draw  (some rows of the map, the values to draw as 0 and 255) -> uint8 [rows, W', 3]
    """
    from PIL import Image

    limits, picture = value_range(depth.values), None
    for top in range(0, depth.shape[0], _ROWS):
        rows = slice(top, top + _ROWS)
        image = None if depth.image is None else depth.image[rows]
        strip = draw(dataclasses.replace(depth, values=depth.values[rows], image=image), limits)
        picture = picture or Image.new("RGB", (strip.shape[1], depth.shape[0]))
        picture.paste(Image.fromarray(strip), (0, top))
    with atomic(path) as temporary:
        save_png(picture, temporary)


def write_png16(depth: Depth, path: Path) -> None:
    """uint16 gray, value = offset + scale * stored; the three are in the PNG's text chunks and in `<path>.json`.

    Metres: offset 0 and a fixed scale, 0.001 (NYU) where max_depth is at most 65 m and 1/256 (KITTI) above; 0 is also
    "no value" as in both, and what is too far for the scale becomes 65535. Without max_depth the largest value decides.
    Disparity: the finite range over 0 to 65535, so scale and offset differ from photo to photo; non-finite becomes 0.
    """
    from PIL.PngImagePlugin import PngInfo

    low, high = value_range(depth.values)
    if depth.unit == "metres":
        largest = high if depth.max_depth is None else depth.max_depth
        offset, scale = 0.0, _MILLIMETRES if largest <= _LARGEST_IN_MILLIMETRES else _KITTI_STEP
    else:
        offset, scale = np.float64(low), (np.float64(high) - low) / 65535
    stored = np.zeros(depth.shape, np.uint16)
    for top in range(0, len(stored) if scale else 0, _ROWS):  # in strips: this is in double precision
        values = depth.values[top : top + _ROWS]
        finite = np.isfinite(values)
        steps = (np.where(finite, values, 0).astype(np.float64) - offset) / scale
        stored[top : top + _ROWS] = np.where(finite, np.rint(steps).clip(0, 65535), 0)

    meaning = {"unit": depth.unit, "scale": float(scale), "offset": float(offset)}
    if depth.max_depth is not None:
        meaning["max_depth"] = float(depth.max_depth)
    text = PngInfo()
    for key, value in meaning.items():
        text.add_text(key, value if isinstance(value, str) else repr(value))
    note = json.dumps(meaning | {"formula": "value = offset + scale * stored"}, indent=2) + "\n"
    sidecar = path.with_name(path.name + ".json")
    with atomic(path) as picture:  # the picture is renamed last: where it is, its sidecar is
        save_png(stored, picture, pnginfo=text)
        with atomic(sidecar) as temporary:
            temporary.write_text(note, encoding="utf-8")


def write_npy(depth: Depth, path: Path) -> None:
    """(H, W) float32, the values and nothing else."""
    # np.save to a file says on a full disk how much it wrote, and not why. getvalue() makes no copy, and a getbuffer()
    # that an exception keeps alive crashes the garbage collector of Python 3.12.1.
    data = io.BytesIO()
    np.save(data, depth.values)
    with atomic(path) as temporary:
        temporary.write_bytes(data.getvalue())


def write_npz(depth: Depth, path: Path) -> None:
    """Arrays `depth` (H, W) float32 and `unit`, and where known `focal_length` (pixels) and `max_depth` (metres)."""
    known = {name: getattr(depth, name) for name in ("focal_length", "max_depth") if getattr(depth, name) is not None}
    data = io.BytesIO()  # a zip file that fails half-way (full disk) complains again when it is collected
    np.savez_compressed(data, depth=depth.values, unit=np.array(depth.unit), **known)
    with atomic(path) as temporary:
        temporary.write_bytes(data.getvalue())


def write_exr(depth: Depth, path: Path) -> None:
    """Channel Z, 32-bit float, ZIP; header attributes `unit`, and where known `focalLength` (pixels), `maxDepth`.

    Raises Dav2Error where OpenEXR is not installed.
    """
    OpenEXR = import_optional("OpenEXR")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "unit": depth.unit}
    header |= {} if depth.focal_length is None else {"focalLength": float(depth.focal_length)}
    header |= {} if depth.max_depth is None else {"maxDepth": float(depth.max_depth)}
    with atomic(path) as temporary, _nameable(temporary) as name:
        try:
            OpenEXR.File(header, {"Z": np.ascontiguousarray(depth.values)}).write(name)
        except RuntimeError as error:  # OpenEXR states the cause in words only
            code = next((code for code in errno.errorcode if os.strerror(code) in str(error)), errno.EIO)
            raise OSError(code, os.strerror(code), str(path)) from error


@contextlib.contextmanager
def _nameable(path: Path) -> Iterator[str]:
    """A name to write `path` under that is UTF-8: OpenEXR takes no other, and file names may hold any bytes."""
    try:
        str(path).encode()
        yield str(path)
        return
    except UnicodeEncodeError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder, "depth.exr")
        yield str(elsewhere)
        shutil.copyfile(elsewhere, path)


class Format(NamedTuple):
    suffix: str  # appended to the photo's file name
    write: Callable[[Depth, Path], None]
    about: str  # for the help of the command line


# No suffix ends with another, so two different photos, or two formats of one photo, never share a file.
FORMATS = {
    "color": Format(".color.png", write_color, "8-bit RGB picture, near is red, far is blue; for looking at"),
    "gray": Format(".gray.png", write_gray, "8-bit gray picture, smallest value black, largest white"),
    "png16": Format(
        ".png16.png",
        write_png16,
        "16-bit gray PNG, value = offset + scale * stored; unit, scale and offset are in the PNG's text and in a .json "
        "beside it. Metres: millimetres as in NYU, or 1/256 m as in KITTI for models that reach beyond 65 m",
    ),
    "npy": Format(".npy", write_npy, "NumPy array, height x width, float32: np.load(file)"),
    "npz": Format(".npz", write_npz, 'NumPy archive, compressed: "depth", "unit", and "focal_length" if known'),
    "exr": Format(".exr", write_exr, 'OpenEXR, one 32-bit float channel "Z", for Blender, Nuke and others'),
    "side-by-side": Format(".side-by-side.png", write_side_by_side, "photo, white strip and color map in one picture"),
    "ply": Format(
        ".ply",
        write_ply,
        "colored point cloud without the pixels that fly between surfaces, binary, x right, y down, z forward (OpenCV, "
        "COLMAP). Needs a focal length: from the photo's EXIF data, "
        "focal_length or fov. In metres with a metric model; true in order only with a relative one",
    ),
    "glb": Format(
        ".glb",
        write_glb,
        "the same points as binary glTF, x right, y up, z backward, for Blender, three.js and other viewers",
    ),
}
NEED_FOCAL = ("ply", "glb")  # the formats that cannot be written without a focal length

_BY_EXTENSION = {".png": "color", ".npy": "npy", ".npz": "npz", ".exr": "exr", ".ply": "ply", ".glb": "glb"}


def name_from_extension(path: Path) -> str:
    """The format that a file name asks for; a .png is `color`. Raises Dav2Error for an extension of no format."""
    if path.suffix.lower() not in _BY_EXTENSION:
        raise Dav2Error(
            f"{path}: the extension {path.suffix!r} names no format: use {' '.join(_BY_EXTENSION)}, "
            f"or say format= one of {', '.join(FORMATS)}"
        )
    return _BY_EXTENSION[path.suffix.lower()]


def read(path: Path) -> dict:
    """The fields of a Depth (`values`, and what else the file states) from a file that keeps the values.

    Raises Dav2Error for another extension, a damaged file, or one that does not hold a depth map.
    """
    from dav2_jax.image import depth_files

    values, stated = depth_files.load(path)
    return {
        "values": values,
        "unit": stated.unit,
        "max_depth": stated.max_depth,
        "focal_length": stated.focal_length,
    }
