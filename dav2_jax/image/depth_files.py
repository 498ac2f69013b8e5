"""Depth and disparity from files: 16-bit PNG, npy, npz, EXR, PFM, HDF5 and Sintel's dpt. NumPy alone, no JAX.

The readers give the stored numbers, [H, W]; what they mean (unit, invalid values) is the caller's matter, and `load`
applies what the file itself states. A file is refused, as Dav2Error in one line that starts with its path, before
anything larger than the file itself, or than `MAX_PIXELS` pixels, is allocated. Missing files raise FileNotFoundError.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from dav2_jax.errors import Dav2Error, first_line
from dav2_jax.image import exr
from dav2_jax.image.depth_metadata import Metadata, metadata, npy_header, npy_values
from dav2_jax.image.read import MAX_PIXELS


def read(path: Path, channel: str | None = None) -> np.ndarray:
    """The stored numbers, [H, W], in any of the formats, by the extension of the name.

    channel   of an EXR file; None is the one that holds depth

    Raises Dav2Error for another extension, a damaged file, and an EXR file that does not say where its depth is.
    """
    extension = path.suffix.lower()
    if extension not in READERS:
        raise Dav2Error(f"{path}: depth cannot be read from {extension!r}: use one of {' '.join(READERS)}")
    return read_exr(path, channel) if extension == ".exr" else READERS[extension](path)


def load(path: Path) -> tuple[np.ndarray, Metadata]:
    """Values, float32 [H, W], in the unit that the file states, and what else it states.

    Raises Dav2Error as `read`, for a file that is missing, and for integers without a stated scale.
    """
    if not path.is_file():
        raise Dav2Error(f"{path}: no such file: check the path")
    known = metadata(path)
    if path.suffix.lower() == ".png" and known.scale is None:
        raise Dav2Error(f"{path}: is no png16 file: it states no unit, scale and offset, nor does a {path.name}.json")
    stored = read_png16(path) if path.suffix.lower() == ".png" else read(path)
    if known.scale is not None:
        stored = known.offset + known.scale * stored.astype(np.float64)
    return stored.astype(np.float32), known


def read_png(path: Path) -> np.ndarray:
    """uint8 or uint16 [H, W], the stored steps of a gray PNG."""
    from PIL import Image

    with _named(path), Image.open(path) as image:
        _check_size(*image.size[::-1])
        if image.mode not in ("L", "I;16", "I;16B", "I"):
            raise Dav2Error(f"is a {image.mode} picture, not one of 8- or 16-bit gray")
        values = np.asarray(image)
    return values.astype(np.uint8 if values.dtype == np.uint8 else np.uint16)


def read_mask(path: Path) -> np.ndarray:
    """bool [H, W], true where a gray, palette or black-and-white picture, or a .npy of any number type, is not 0."""
    from PIL import Image

    with _named(path):
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                values = _npy(file)
            return _two_axes(values.view(np.uint8) if values.dtype == np.bool_ else values) != 0
        with Image.open(path) as image:
            _check_size(*image.size[::-1])
            if len(image.getbands()) > 1:
                raise Dav2Error(f"is a {image.mode} picture, not a mask of one channel")
            return np.asarray(image) != 0


def read_npy(path: Path) -> np.ndarray:
    """The array as stored, without axes of length 1 at the end. Objects, which could run code, are refused."""
    with _named(path), path.open("rb") as file:
        return _two_axes(_npy(file)).copy()


def read_npz(path: Path, name: str = "depth") -> np.ndarray:
    """The array of this name, or the only one there is."""
    with _named(path), zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
        entry = entries[0] if len(entries) == 1 else f"{name}.npy"
        if entry not in entries:
            raise Dav2Error(f'has no array "{name}": it has {", ".join(Path(one).stem for one in entries)}')
        with archive.open(entry) as file:
            header = npy_header(file)
            if header.dtype.kind not in "fiu":
                raise Dav2Error(f"holds {header.dtype} {list(header.shape)}, not numbers [H, W]")
            _check_size(math.prod(header.shape[:1]), math.prod(header.shape[1:]))
            return _two_axes(npy_values(file, header)).copy()


def read_exr(path: Path, channel: str | None = None, *, color: str | None = None) -> np.ndarray:
    """float32 [H, W] (stored as half, float or uint): the channel of this name, or the one that holds depth.

    color   "R", "G" or "B": that one, where the file holds a color picture, which is refused otherwise

    See `exr.depth_channels`. Raises Dav2Error, which lists them, where several channels could be meant, or none.
    """
    with _named(path):
        return exr.read_channel(path, channel, MAX_PIXELS, color)


def read_pfm(path: Path) -> np.ndarray:
    """float32, top row first. A PFM keeps the bottom row first; the sign of its scale says the order of bytes.

    A color PFM gives its first channel. The magnitude of the scale is not applied, as in every dataset's own reader.
    Source: http://netpbm.sourceforge.net/doc/pfm.html
    """
    with _named(path):
        data = path.read_bytes()
        fields = data[:200].split(maxsplit=4)
        if len(fields) < 4 or fields[0] not in (b"PF", b"Pf"):
            raise Dav2Error("is no PFM file")
        kind, width, height, scale = fields[0], int(fields[1]), int(fields[2]), float(fields[3])
        start = 0
        for field in fields[:4]:
            start = data.index(field, start) + len(field)
        start += 1  # one white space; binary data may begin with bytes that look like more
        channels = 3 if kind == b"PF" else 1
        values = _raw(data[start:], height, width, "<f4" if scale < 0 else ">f4", channels)
    return values[::-1].astype(np.float32)


def read_dpt(path: Path) -> np.ndarray:
    """float32, from MPI Sintel's depth format: the tag 202021.25, width, height, values, all little-endian."""
    with _named(path):
        data = path.read_bytes()
        if len(data) < 12 or struct.unpack_from("<f", data)[0] != 202021.25:
            raise Dav2Error("is no Sintel depth file: it does not begin with the tag 202021.25")
        width, height = struct.unpack_from("<ii", data, 4)
        return _raw(data[12:], height, width, "<f4").astype(np.float32)


def read_png16(path: Path) -> np.ndarray:
    """uint16 [H, W]. An 8-bit PNG is refused: metres in steps of centimetres or less do not fit, so it is a picture."""
    steps = read_png(path)
    if steps.dtype != np.uint16:
        raise Dav2Error(f"{path}: has 8 bits where depth needs 16: it is a picture of depth for looking at")
    return steps


def read_png_floats(path: Path) -> np.ndarray:
    """float32 [H, W] of a PNG whose four 8-bit channels hold the bytes of one little-endian float, as OpenCV orders
    them: blue, green, red, alpha. TartanAir V2 keeps depth so.
    """
    from PIL import Image

    with _named(path), Image.open(path) as image:
        _check_size(*image.size[::-1])
        if image.mode != "RGBA":
            raise Dav2Error(f"is a {image.mode} picture, not one of four channels that hold floats")
        values = np.asarray(image)[..., [2, 1, 0, 3]]
    return np.ascontiguousarray(values).view("<f4")[..., 0].astype(np.float32)


def read_hdf5(path: Path, name: str, index: int | None = None) -> np.ndarray:
    """The dataset of this name, or its part `index` along the first axis, as stored (MATLAB reverses all axes)."""
    with _hdf5(path, name) as values:
        shape = values.shape if index is None else values.shape[1:]
        if values.dtype.kind not in "fiu" or not shape or not 0 < math.prod(shape) <= 3 * MAX_PIXELS:
            raise Dav2Error(f'"{name}" holds {values.dtype} {list(shape)}, not numbers of a picture')
        return values[() if index is None else index]


def hdf5_length(path: Path, name: str) -> int:
    """How many parts `read_hdf5` may be asked for."""
    with _hdf5(path, name) as values:
        return len(values)


def read_raw(path: Path, height: int, width: int) -> np.ndarray:
    """float32, from little-endian float32 values without a header, as ETH3D stores depth."""
    with _named(path):
        return _raw(path.read_bytes(), height, width, "<f4").astype(np.float32)


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".png": read_png,
    ".npy": read_npy,
    ".npz": read_npz,
    ".exr": read_exr,
    ".pfm": read_pfm,
    ".dpt": read_dpt,
}


@contextlib.contextmanager
def _hdf5(path: Path, name: str) -> Iterator[Any]:
    """The dataset of this name. The file is opened anew each time: an open one must not be shared by forked workers."""
    import h5py

    with _named(path):
        path.stat()  # h5py does not name a missing file
        with h5py.File(path, "r") as file:
            if not isinstance(file.get(name), h5py.Dataset):
                raise Dav2Error(f'has no dataset "{name}": it has {", ".join(file) or "none"}')
            yield file[name]


def _raw(data: bytes, height: int, width: int, dtype: str, channels: int = 1) -> np.ndarray:
    _check_size(height, width)
    wanted = height * width * channels * 4
    if len(data) != wanted:
        raise Dav2Error(f"{len(data):,} bytes of values where {width} x {height} need {wanted:,}: is it whole?")
    return np.frombuffer(data, dtype).reshape(height, width, channels)[..., 0]


def _npy(file: IO[bytes]) -> np.ndarray:
    """Read-only. Raises ValueError where the header promises more than the file holds, before that is allocated."""
    header = npy_header(file)
    left = os.fstat(file.fileno()).st_size - file.tell()
    if math.prod(header.shape) * header.dtype.itemsize > left:
        raise ValueError(f"{left:,} bytes of values are fewer than {header.dtype} {list(header.shape)}")
    return npy_values(file, header)


def _two_axes(values: np.ndarray) -> np.ndarray:
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise Dav2Error(f"holds {values.dtype} {list(values.shape)}, not numbers [H, W]")
    return values


def _check_size(height: int, width: int = 1, *more: int) -> None:
    if height <= 0 or width <= 0 or height * width > MAX_PIXELS:
        raise Dav2Error(f"claims {width} x {height} pixels: from 1 to {MAX_PIXELS:,} can be read")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever a format's reader raises becomes a Dav2Error that starts with the path; a missing file stays one."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Dav2Error as error:
        raise Dav2Error(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, SyntaxError, RuntimeError, EOFError, struct.error, zipfile.BadZipFile) as e:
        reason = first_line(e)
        raise Dav2Error(f"{path}: damaged or unreadable ({reason}): check the file") from e
