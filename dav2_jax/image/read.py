"""A photo from a file, bytes, an address, a PIL image or an array: upright uint8 RGB, or one line that says why not.

Knows no JAX. What is odd about a photo that can be read (its end is missing, its values are dark because they have 10
bits in a container of 16) is said in notes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile

from dav2_jax.errors import Dav2Error, first_line
from dav2_jax.image import kinds, tiff
from dav2_jax.image.fetch import download, is_url, read_open_file
from dav2_jax.image.quiet import quiet_pillow
from dav2_jax.image.repair import PNG, core_of_png, exif_of_png, what_is_missing, with_an_end

MAX_PIXELS = 178_956_970  # Pillow's own limit, beyond which it suspects a decompression bomb

# Pillow knows these names and opens none of them as a photo: stubs for others' readers, vector graphics, video.
_NO_PHOTOS = {"BUFR", "GRIB", "HDF5", "WMF", "EPS", "MPEG"}

_UPRIGHT = {  # EXIF orientation -> what makes the photo upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ROWS = 256  # at a time, of what is copied from Pillow


class Photo(NamedTuple):
    """A photo as it was read."""

    image: np.ndarray  # uint8 RGB [H, W, 3], upright
    exif: Image.Exif | None  # of a file or a PIL image
    notes: tuple[str, ...] = ()  # what a user should know about it, one line each


class Header(NamedTuple):
    """What the first bytes of a photo say."""

    height: int  # as stored, before EXIF orientation
    width: int
    exif: Image.Exif | None


@functools.cache
def photo_extensions() -> frozenset[str]:
    """The endings, in lower case and with the dot, of files that `read_image` can read."""
    _load_plugins()
    names = Image.registered_extensions()
    return frozenset(ext for ext, kind in names.items() if kind in Image.OPEN and kind not in _NO_PHOTOS)


def read_image(source, *, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, Image.Exif | None]:
    """(image, exif) of `read_photo`, without its tolerance: a photo that lacks its end is refused."""
    photo = read_photo(source, max_pixels=max_pixels, tolerant=False)
    return photo.image, photo.exif


def read_photo(source, *, max_pixels: int = MAX_PIXELS, tolerant: bool = True) -> Photo:
    """Decodes a photo to uint8 RGB [H, W, 3], upright (EXIF orientation applied), with its EXIF and notes on it.

    source: a path, an http(s) address, the bytes of a file, a file open in binary mode, a PIL image, or a uint8 array
        [H, W, 3] or [H, W]. Alpha is dropped, not blended, gray is repeated, 16 bits keep the high byte (all as OpenCV
        reads them), palette and CMYK are converted, and an animation gives its first frame. A PIL image is turned by
        its EXIF orientation while it is the file that was opened; what was made from it (by `rotate`, `convert`, ...)
        is taken as it is. A photo of more than `max_pixels` is refused before it is decoded.
    tolerant: a JPEG that lacks its end is read as far as it goes, as OpenCV does, with a note; False: refused.
    Raises Dav2Error for anything that is not such an image, in one line that starts with the path where there is one.
    May be called from several threads.
    """
    if isinstance(source, np.ndarray) or (hasattr(source, "__array__") and not isinstance(source, Image.Image)):
        return Photo(_check_array(np.asarray(source)), None)
    if isinstance(source, Image.Image):
        with _readable_errors(max_pixels):
            return _decode(source, max_pixels, tolerant)
    name = name_of(source)
    try:
        with _readable_errors(max_pixels):
            if is_url(source):
                return _from_file(io.BytesIO(download(source)), source, max_pixels, tolerant)
            if isinstance(source, bytes | bytearray | memoryview):
                return _from_file(io.BytesIO(source), "", max_pixels, tolerant)
            if hasattr(source, "read") and not isinstance(source, str | os.PathLike):
                return _from_file(io.BytesIO(read_open_file(source)), name, max_pixels, tolerant)
            if isinstance(source, str | os.PathLike):
                with _open(Path(source)) as file:
                    return _from_file(file, name, max_pixels, tolerant)
    except Dav2Error as error:
        raise Dav2Error(f"{name}: {error}" if name else str(error)) from error
    raise Dav2Error(
        f"a {type(source).__name__} is no image: give a path, an address, bytes, a PIL image or a uint8 array [H, W, 3]"
    )


def read_header(source, *, max_pixels: int = MAX_PIXELS) -> Header | None:
    """Size and EXIF of a photo without decoding it; None where they cannot be known without more work (addresses)."""
    if isinstance(source, Image.Image):
        return Header(source.height, source.width, _exif(source, []))
    if hasattr(source, "__array__"):
        shape = np.shape(source)
        return Header(shape[0], shape[1], None) if len(shape) >= 2 else None
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            return _header(io.BytesIO(source), max_pixels)
        if isinstance(source, str | os.PathLike) and not is_url(source):
            with _open(Path(source)) as file:
                return _header(file, max_pixels)
        if hasattr(source, "read") and source.seekable():
            return _header(source, max_pixels)
    except Exception:  # whatever it is, `read_photo` says it
        return None
    return None


def name_of(source) -> str:
    """What errors and notes call a photo: its path or address; "" for one that has no name."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", "") if hasattr(source, "read") else ""
    return name if isinstance(name, str) else ""


def _header(file: BinaryIO, max_pixels: int) -> Header:
    _load_plugins()
    with quiet_pillow(max_pixels):
        image = Image.open(file)
    width, height = image.size
    if image.format == "PNG" and "exif" not in image.info and (late := exif_of_png(file)):
        image.info["exif"] = late
    return Header(height, width, _exif(image, []))


@functools.cache
def _load_plugins() -> None:
    """Pillow's own formats, and HEIC where pillow-heif is installed."""
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise Dav2Error("is a folder, not an image")
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise Dav2Error("no such file") from error
    if file.seekable():
        return file
    with file:  # a pipe
        return io.BytesIO(file.read())


def _from_file(file: BinaryIO, name: str, max_pixels: int, tolerant: bool) -> Photo:
    head = file.read(4096)
    is_tiff = head[:4] in (b"II*\0", b"MM\0*")
    if is_tiff and kinds.kind_of(name, head) == "raw" and not name.lower().endswith(".dng"):
        raise Dav2Error(kinds.advice("raw", name))
    first, page = tiff.photo_page(file, name) if is_tiff else (None, None)
    file.seek(0)
    try:
        if page is not first:
            return _from_page(file, page, max_pixels, tolerant)
        if head.startswith(PNG):
            return _from_png(file, max_pixels, tolerant)
        return _from_opened(file, max_pixels, tolerant)
    except Image.UnidentifiedImageError as error:
        file.seek(0)
        if page is not None and (image := tiff.read_plain(file.read(), page, max_pixels)) is not None:
            return Photo(image, None)
        kind = kinds.kind_of(name, head)
        if kind == "heic" and ".heic" in photo_extensions():
            kind = None  # damaged
        size = file.seek(0, os.SEEK_END)
        what = kinds.advice(kind, name) if kind else f"not an image that Pillow can read ({size:,} bytes)"
        raise Dav2Error(what) from error


def _from_png(file: BinaryIO, max_pixels: int, tolerant: bool) -> Photo:
    """Where metadata are damaged, the pixels without them."""
    try:
        return _from_opened(file, max_pixels, tolerant)
    except (Dav2Error, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:  # which types a damaged file gives differs by chunk
        file.seek(0)
        photo = _from_opened(io.BytesIO(core_of_png(file.read())), max_pixels, tolerant)
        return photo._replace(notes=("its metadata are damaged and were ignored", *photo.notes))


def _from_page(file: BinaryIO, page: tiff.Page, max_pixels: int, tolerant: bool) -> Photo:
    """The photo that is not the first image of a TIFF file; orientation and the like are those of the first."""
    with quiet_pillow(max_pixels):
        exif = _exif(Image.open(file), [])
        file.seek(0)
        image = Image.open(io.BytesIO(tiff.starting_at(file.read(), page)))
    return _decode(image, max_pixels, tolerant, exif)


def _from_opened(file: BinaryIO, max_pixels: int, tolerant: bool) -> Photo:
    _load_plugins()
    with quiet_pillow(max_pixels):
        image = Image.open(file)
    with image:
        return _decode(image, max_pixels, tolerant)


@contextlib.contextmanager
def _readable_errors(max_pixels: int) -> Iterator[None]:
    """Whatever Pillow and its codecs raise becomes a Dav2Error: which types a damaged file gives differs by format."""
    try:
        yield
    except (Dav2Error, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Dav2Error(f"more pixels than the limit of {max_pixels:,}: raise max_pixels") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise Dav2Error(f"damaged or unreadable image ({reason}): check the file") from error


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise Dav2Error(f"an array photo must be uint8 RGB [H, W, 3], not {array.dtype} {list(array.shape)}")
    return array


def _exif(image: Image.Image, notes: list[str]) -> Image.Exif:
    """The EXIF data of a photo; none where they are damaged, which is noted.

    Of a PNG that is not decoded yet, those that come before its pixels: Pillow would decode it to see the others.
    """
    try:
        with quiet_pillow():
            return Image.Image.getexif(image)
    except Exception:  # struct.error, SyntaxError, ...: any, as codecs do
        notes.append("its EXIF data are damaged, so neither orientation nor focal length are known")
        return Image.Exif()


def _decode(image: Image.Image, max_pixels: int, tolerant: bool, exif: Image.Exif | None = None) -> Photo:
    """Pixels and notes; `exif` where it is not that of the image itself."""
    width, height = image.size
    if width * height > max_pixels:
        raise Dav2Error(
            f"{width} x {height} = {width * height:,} pixels are over the limit of {max_pixels:,}: raise max_pixels"
        )
    notes: list[str] = []
    is_file = isinstance(image, ImageFile.ImageFile)
    samples = _samples(image)
    try:
        image.load()
    except OSError as error:
        is_cut_jpeg = image.format in ("JPEG", "MPO") and "truncated" in str(error) and image.fp is not None
        if not (tolerant and is_cut_jpeg):
            raise
        image = with_an_end(image, max_pixels)
        notes.append(what_is_missing(image))
    exif = _exif(image, notes) if exif is None else exif
    rgb = _to_rgb(image, samples, notes)
    orientation = exif.get(ExifTags.Base.Orientation)
    if isinstance(orientation, int) and orientation in _UPRIGHT:
        if is_file:
            rgb = rgb.transpose(_UPRIGHT[orientation])
        else:
            notes.append(
                f"this PIL image carries EXIF orientation {orientation} and is not the file that was opened, so it was "
                "taken as it is: if it is not upright, PIL.ImageOps.exif_transpose turns it"
            )
    return Photo(_to_array(rgb), exif, tuple(notes))


class _Samples(NamedTuple):
    """How the samples of an image are stored; asked before it is decoded, which forgets it."""

    bits: int  # that values may take; 9 to 16 where the model's 8 are not the lowest of them
    white_is_zero: bool = False  # and Pillow leaves it so


def _samples(image: Image.Image) -> _Samples:
    tags = getattr(image, "tag_v2", None)
    if tags is not None and image.mode.startswith("I"):
        bits, largest = (_first(tags.get(tag)) for tag in (tiff.BITS, tiff.MAX_SAMPLE))
        bits = min(bits or 16, 16)
        bits = largest.bit_length() if 255 < largest < 2**bits else bits
        return _Samples(bits, tags.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO)
    wide = image.mode.startswith("I") or any(";16" in str(part) for part in getattr(image, "tile", ()))
    return _Samples(16 if wide else 8)


def _first(value) -> int:
    """A tag of Pillow's, which may be a number, a tuple or missing, as a number; 0: missing."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else 0


def _to_rgb(image: Image.Image, samples: _Samples, notes: list[str]) -> Image.Image:
    if image.mode == "F":
        raise Dav2Error("a floating-point image has no known range: convert it to 8 or 16 bits")
    if image.mode.startswith("I"):  # 9 to 16 bits of gray, which Pillow may hold in 32
        values = np.asarray(image)
        largest = int(values.max())
        if largest > 65535:
            raise Dav2Error(f"an image of 32-bit integers (to {largest:,}) has no known range: convert it to 16 bits")
        high_byte = (np.clip(values, 0, 2**samples.bits - 1) >> (samples.bits - 8)).astype(np.uint8)
        rgb = Image.fromarray(255 - high_byte if samples.white_is_zero else high_byte).convert("RGB")
    else:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        largest = 256 * max(high for _, high in rgb.getextrema()) + 255 if samples.bits == 16 else 0  # the high byte
    if samples.bits == 16 and largest < 2**14 and not samples.white_is_zero:
        bits = max(8, largest.bit_length())
        notes.append(
            f"its 16-bit values need {bits} bits only, so the model sees a nearly black photo: if they are {bits}-bit "
            f"values, multiply them by {2 ** (16 - bits)} first"
        )
    return rgb


def _to_array(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]; in strips, because Pillow would hold two more copies of a large photo meanwhile."""
    width, height = image.size
    array = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _ROWS):
        array[top : top + _ROWS] = np.asarray(image.crop((0, top, width, min(top + _ROWS, height))))
    return array
