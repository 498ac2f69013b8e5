"""Depth in files: ONE table of output formats, a writer for each, and readers for those that keep the values."""

from __future__ import annotations

import errno
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic, save_png
from dav2_jax.image.exr import openexr
from dav2_jax.inference import geometry
from dav2_jax.inference.edges import EDGE

if TYPE_CHECKING:
    from dav2_jax.inference.depth import Depth

RELATIVE_PLY = (
    "relative disparity has no scale and no shift, so the point cloud shows what is in front of what, not true "
    "proportions: use a metric model (such as metric-indoor-small) for a point cloud in metres"
)

_MILLIMETRES = 0.001  # metres a step, as NYU Depth V2: reaches 65.535 m
_KITTI_STEP = 1 / 256  # metres a step, as KITTI: reaches 255.996 m
_LARGEST_IN_MILLIMETRES = 65.0  # metres


def write_color(depth: Depth, path: Path) -> None:
    with atomic(path) as temporary:
        save_png(depth.color(), temporary)


def write_gray(depth: Depth, path: Path) -> None:
    with atomic(path) as temporary:
        save_png(depth.gray(), temporary)


def write_side_by_side(depth: Depth, path: Path) -> None:
    with atomic(path) as temporary:
        save_png(depth.side_by_side(), temporary)


def write_png16(depth: Depth, path: Path) -> None:
    """uint16 gray, value = offset + scale * stored; the three are in the PNG's text chunks and in `<path>.json`.

    Metres: offset 0 and a fixed scale, 0.001 (NYU) where max_depth is at most 65 m and 1/256 (KITTI) above; 0 is also
    "no value" as in both, and what is too far for the scale becomes 65535. Without max_depth the largest value decides.
    Disparity: the finite range over 0 to 65535, so scale and offset differ from photo to photo; non-finite becomes 0.
    """
    from PIL.PngImagePlugin import PngInfo

    finite = np.isfinite(depth.values)
    values = np.where(finite, depth.values, 0).astype(np.float64)
    if depth.unit == "metres":
        largest = values.max() if depth.max_depth is None else depth.max_depth
        offset, scale = 0.0, _MILLIMETRES if largest <= _LARGEST_IN_MILLIMETRES else _KITTI_STEP
    else:
        offset = values[finite].min() if finite.any() else 0.0
        scale = (values[finite].max() - offset) / 65535 if finite.any() else 0.0
    steps = (values - offset) / scale if scale else np.zeros_like(values)
    stored = np.where(finite, np.rint(steps).clip(0, 65535), 0).astype(np.uint16)

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
    """Channel Z, 32-bit float, ZIP; header attributes `unit`, and where known `focalLength` (pixels), `maxDepth`."""
    OpenEXR = openexr()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "unit": depth.unit}
    header |= {} if depth.focal_length is None else {"focalLength": float(depth.focal_length)}
    header |= {} if depth.max_depth is None else {"maxDepth": float(depth.max_depth)}
    with atomic(path) as temporary:
        try:
            OpenEXR.File(header, {"Z": np.ascontiguousarray(depth.values)}).write(str(temporary))
        except RuntimeError as error:  # OpenEXR states the cause in words only
            code = next((code for code in errno.errorcode if os.strerror(code) in str(error)), errno.EIO)
            raise OSError(code, os.strerror(code), str(path)) from error


def write_ply(depth: Depth, path: Path, *, edge: float | None = EDGE) -> None:
    """Binary little-endian points, x y z float32 (see `geometry`) and red green blue uchar, no point where no depth is.

    Pixels that fly between the surfaces at a depth edge are left out, see `edges.flying_pixels`; edge=None keeps them.

    The colors are the photo's, or the color map's without one. Disparity goes through `geometry.pseudo_depth`, with a
    UserWarning. Raises Dav2Error without a focal length: guessing one would bend the scene.
    """
    if depth.focal_length is None:
        raise Dav2Error(
            "a point cloud needs the camera's focal length and the photo does not state it: "
            "give focal_length (--focal-length, pixels of the photo) or fov (--fov, degrees from left to right edge)"
        )
    metres = depth.values if depth.unit == "metres" else geometry.pseudo_depth(depth.values)
    image = depth.color() if depth.image is None else depth.image
    points, colors = geometry.point_cloud(metres, depth.focal_length, image, edge=edge)
    if len(points) == 0:
        raise Dav2Error(
            "the depth map has no finite positive value that lies on a surface, so there is no point to write: "
            "check the photo"
        )
    if depth.unit == "disparity":
        warnings.warn(RELATIVE_PLY, stacklevel=2)

    vertices = np.empty(len(points), [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])
    for column, axis in enumerate("xyz"):
        vertices[axis] = points[:, column]
    for column, color in enumerate(("red", "green", "blue")):
        vertices[color] = colors[:, column]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment unit {'metres' if depth.unit == 'metres' else 'none (relative)'}",
        f"comment focal_length {depth.focal_length:.6g} pixels",
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {color}" for color in ("red", "green", "blue")),
        "end_header",
    ]
    with atomic(path) as temporary, temporary.open("xb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(vertices)


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
        "colored point cloud without the pixels that fly between surfaces, binary, x right, y down, z forward. "
        "Needs a focal length: from the photo's EXIF data, "
        "--focal-length or --fov. In metres with a metric model; true in order only with a relative one",
    ),
}

_BY_EXTENSION = {".png": "color", ".npy": "npy", ".npz": "npz", ".exr": "exr", ".ply": "ply"}


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
