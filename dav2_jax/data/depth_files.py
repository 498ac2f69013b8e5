"""Arrays of depth or disparity from files: 16-bit PNG, npy, npz, EXR, PFM, HDF5 and Sintel's dpt.

Each reader gives the stored numbers, [H, W]; what they mean (unit, what is invalid) is the dataset's matter. A file is
refused, as Dav2Error in one line that starts with its path, before anything larger than the file itself, or than
`MAX_PIXELS` pixels, is allocated. Missing files raise FileNotFoundError.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import MAX_PIXELS


def read(path: Path) -> np.ndarray:
    """[H, W] from any of the formats, by the ending of the name. Raises Dav2Error for others, or damaged files."""
    ending = path.suffix.lower()
    if ending not in READERS:
        raise Dav2Error(f"{path}: depth cannot be read from {ending!r}: use one of {' '.join(READERS)}")
    return READERS[ending](path)


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
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            return np.asarray(_two_axes(values.view(np.uint8) if values.dtype == np.bool_ else values)) != 0
        with Image.open(path) as image:
            _check_size(*image.size[::-1])
            if len(image.getbands()) > 1:
                raise Dav2Error(f"is a {image.mode} picture, not a mask of one channel")
            return np.asarray(image) != 0


def read_npy(path: Path) -> np.ndarray:
    """The array as stored, without axes of length 1 at the end. Objects, which could run code, are refused."""
    with _named(path):
        # Mapped first: a header that promises more than the file holds fails here.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(_two_axes(values))


def read_npz(path: Path, name: str = "depth") -> np.ndarray:
    """The array of this name, or the only one there is."""
    with _named(path), zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
        entry = entries[0] if len(entries) == 1 else f"{name}.npy"
        if entry not in entries:
            raise Dav2Error(f'has no array "{name}": it has {", ".join(Path(one).stem for one in entries)}')
        with archive.open(entry) as file:
            shape, dtype = npy_header(file)
            if dtype.kind not in "fiu":
                raise Dav2Error(f"holds {dtype} {list(shape)}, not numbers [H, W]")
            _check_size(math.prod(shape[:1]), math.prod(shape[1:]))
        with archive.open(entry) as file:
            return _two_axes(np.lib.format.read_array(file, allow_pickle=False))


def npy_header(file) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in NumPy's format, from an open file, before anything is allocated for it."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    return shape, dtype


def read_exr(path: Path, channels: tuple[str, ...] = ("Z", "Y", "R")) -> np.ndarray:
    """The first of these channels that the file has, or its only one; float32 (stored as half, float or uint)."""
    import OpenEXR

    with _named(path):
        path.stat()  # OpenEXR has one exception for everything
        _check_exr_size(path)
        with OpenEXR.File(str(path), separate_channels=True) as file:
            found = {name: channel.pixels for name, channel in file.channels().items()}
    name = next((name for name in channels if name in found), next(iter(found)) if len(found) == 1 else None)
    if name is None:
        raise Dav2Error(f"{path}: has the channels {', '.join(found)}, none of which is {', '.join(channels)}")
    return found[name].astype(np.float32)


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


def _two_axes(values: np.ndarray) -> np.ndarray:
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise Dav2Error(f"holds {values.dtype} {list(values.shape)}, not numbers [H, W]")
    return values


def _check_size(height: int, width: int = 1, *more: int) -> None:
    if height <= 0 or width <= 0 or height * width > MAX_PIXELS:
        raise Dav2Error(f"claims {width} x {height} pixels: from 1 to {MAX_PIXELS:,} can be read")


def _check_exr_size(path: Path) -> None:
    import OpenEXR

    with OpenEXR.File(str(path), header_only=True) as file:
        (left, top), (right, bottom) = file.header()["dataWindow"]
    _check_size(int(bottom) - int(top) + 1, int(right) - int(left) + 1)


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
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise Dav2Error(f"{path}: damaged or unreadable ({reason}): check the file") from e
