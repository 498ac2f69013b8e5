"""A photo from a file, a PIL image or an array: upright uint8 RGB, or one line that says why not. Knows no JAX."""

import contextlib
import functools
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from dav2_jax.errors import Dav2Error

MAX_PIXELS = 178_956_970  # Pillow's own limit, beyond which it suspects a decompression bomb

# Pillow knows these names and opens none of them as a photo: stubs for others' readers, vector graphics, video.
_NO_PHOTOS = {"BUFR", "GRIB", "HDF5", "WMF", "EPS", "MPEG"}

_PILLOW_LOCK = threading.Lock()


@functools.cache
def photo_extensions() -> frozenset[str]:
    """The endings, in lower case and with the dot, of files that `read_image` can read."""
    Image.init()
    names = Image.registered_extensions()
    return frozenset(ext for ext, kind in names.items() if kind in Image.OPEN and kind not in _NO_PHOTOS)


def read_image(source, *, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, Image.Exif | None]:
    """Decodes a photo to uint8 RGB [H, W, 3], upright (EXIF orientation applied); also returns its EXIF.

    source: a path, the bytes of a file, a PIL image, or a uint8 array [H, W, 3] or [H, W]. Alpha is dropped, not
    blended, gray is repeated, 16 bits keep the high byte (all as OpenCV reads them), palette and CMYK are converted,
    and an animation gives its first frame. A photo of more than `max_pixels` is refused before it is decoded.
    Raises Dav2Error for anything that is not such an image, in one line that starts with the path where there is one.
    May be called from several threads.
    """
    if isinstance(source, np.ndarray) or (hasattr(source, "__array__") and not isinstance(source, Image.Image)):
        return _check_array(np.asarray(source)), None
    if isinstance(source, Image.Image):
        with _readable_errors(max_pixels):
            return _decode(source, max_pixels)
    if isinstance(source, bytes):
        with _readable_errors(max_pixels):
            return _read_opened(io.BytesIO(source), len(source), max_pixels)
    if not isinstance(source, str | os.PathLike):
        raise Dav2Error(f"a {type(source).__name__} is no image: give a path, a PIL image or a uint8 array [H, W, 3]")
    try:
        with _readable_errors(max_pixels):
            return _read_file(Path(source), max_pixels)
    except Dav2Error as error:
        raise Dav2Error(f"{os.fspath(source)}: {error}") from error


def _read_file(path: Path, max_pixels: int) -> tuple[np.ndarray, Image.Exif | None]:
    if not path.exists():
        raise Dav2Error("no such file")
    if path.is_dir():
        raise Dav2Error("is a folder, not an image")
    return _read_opened(path, path.stat().st_size, max_pixels)


def _read_opened(file: Path | io.BytesIO, size: int, max_pixels: int) -> tuple[np.ndarray, Image.Exif | None]:
    with _quiet_pillow(max_pixels):
        try:
            image = Image.open(file)
        except Image.UnidentifiedImageError as error:
            raise Dav2Error(f"not an image that Pillow can read ({size:,} bytes)") from error
    with image:
        return _decode(image, max_pixels)


@contextlib.contextmanager
def _readable_errors(max_pixels: int) -> Iterator[None]:
    """Whatever Pillow and its codecs raise becomes a Dav2Error: which types a damaged file gives differs by format."""
    try:
        yield
    except (Dav2Error, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Dav2Error(f"more pixels than the limit of {max_pixels:,}: raise max_pixels (--max-pixels)") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise Dav2Error(f"damaged or unreadable image ({reason}): check the file") from error


@contextlib.contextmanager
def _quiet_pillow(max_pixels: int) -> Iterator[None]:
    """Pillow without its warnings (odd but readable files), and with `max_pixels` in place of its own limit on size.

    Both are settings of the whole process, hence the lock: of two threads that change and restore them at once, the
    later one would restore what the earlier one had set. Decoding, which takes the time, is left outside. Pillow only
    warns up to twice its limit, so the limit itself is touched only where the caller allows more than that.
    """
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        lift = limit is not None and max_pixels > 2 * limit
        try:
            if lift:
                Image.MAX_IMAGE_PIXELS = None
            yield
        finally:
            if lift:
                Image.MAX_IMAGE_PIXELS = limit


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise Dav2Error(f"an array photo must be uint8 RGB [H, W, 3], not {array.dtype} {list(array.shape)}")
    return array


def _decode(image: Image.Image, max_pixels: int) -> tuple[np.ndarray, Image.Exif | None]:
    width, height = image.size
    if width * height > max_pixels:
        raise Dav2Error(
            f"{width} x {height} = {width * height:,} pixels are over the limit of {max_pixels:,}: "
            "raise max_pixels (--max-pixels)"
        )
    with _quiet_pillow(max_pixels):
        exif = image.getexif()
    image.load()
    if exif.get(ExifTags.Base.Orientation, 1) == 1:  # most photos: exif_transpose would only copy them
        return _to_rgb(image), exif
    with _quiet_pillow(max_pixels):
        return _to_rgb(ImageOps.exif_transpose(image)), exif


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow may hold in 32 bits
        high_byte = np.clip(np.asarray(image), 0, 65535) >> 8
        image = Image.fromarray(high_byte.astype(np.uint8))
    elif image.mode == "F":
        raise Dav2Error("a floating-point image has no known range: convert it to 8 or 16 bits")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
