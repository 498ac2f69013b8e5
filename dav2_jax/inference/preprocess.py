"""From a photo to the network's input and from its output back to the photo's size, exactly as the official code does.

Source: `image2tensor` and `infer_image` in the official `depth_anything_v2/dpt.py`, and `util/transform.py`.
"""

import contextlib
import math
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps
from scipy import sparse

from dav2_jax.errors import Dav2Error
from dav2_jax.model import ops
from dav2_jax.model.config import PATCH

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

MAX_PIXELS = 178_956_970  # Pillow's own limit, beyond which it suspects a decompression bomb
MAX_TOKENS = 65_536  # patches of one photo: 3584 x 3584 pixels of network input

_PILLOW_LOCK = threading.Lock()


def read_image(source, *, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, Image.Exif | None]:
    """Decodes a photo to uint8 RGB [H, W, 3], upright (EXIF orientation applied); also returns its EXIF.

    source: a path, a PIL image, or a uint8 array [H, W, 3] or [H, W]. Alpha is dropped, not blended, gray is repeated,
    16 bits keep the high byte (all as OpenCV reads them), palette and CMYK are converted, and an animation gives its
    first frame. A photo of more than `max_pixels` is refused before it is decoded.
    Raises Dav2Error for anything that is not such an image, in one line that starts with the path where there is one.
    May be called from several threads.
    """
    if isinstance(source, np.ndarray) or (hasattr(source, "__array__") and not isinstance(source, Image.Image)):
        return _check_array(np.asarray(source)), None
    if isinstance(source, Image.Image):
        with _readable_errors(max_pixels):
            return _decode(source, max_pixels)
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
    with _quiet_pillow(max_pixels):
        try:
            image = Image.open(path)
        except Image.UnidentifiedImageError as error:
            raise Dav2Error(f"not an image that Pillow can read ({path.stat().st_size:,} bytes)") from error
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
    with _quiet_pillow(max_pixels):
        return _to_rgb(ImageOps.exif_transpose(image)), exif


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow may hold in 32 bits
        high_byte = np.clip(np.asarray(image), 0, 65535) >> 8
        image = Image.fromarray(high_byte.astype(np.uint8))
    elif image.mode == "F":
        raise Dav2Error("a floating-point image has no known range: convert it to 8 or 16 bits")
    return np.asarray(image.convert("RGB"))


def network_size(height: int, width: int, input_size: int = 518) -> tuple[int, int]:
    """The size (H', W') at which the network sees a photo of (height, width).

    The shorter side becomes `input_size`, the aspect is kept, and both are rounded to multiples of 14, upwards
    where they would fall below `input_size`. Raises Dav2Error when that is too much for one pass.
    """
    check_input_size(input_size)
    scale = max(input_size / height, input_size / width)
    size = tuple(_to_patches(scale * side, input_size) for side in (height, width))
    tokens = size[0] * size[1] // PATCH**2
    if tokens > MAX_TOKENS:
        raise Dav2Error(
            f"{width} x {height} at input size {input_size} is {size[1]} x {size[0]} for the network, "
            f"{tokens:,} patches where {MAX_TOKENS:,} are the limit: "
            "choose a smaller input_size (--input-size) or crop it"
        )
    return size


def check_input_size(input_size: int) -> None:
    """Raises Dav2Error for an input size that no photo can have."""
    if input_size < PATCH:
        raise Dav2Error(f"input_size (--input-size) {input_size} is less than one patch: give at least {PATCH}")


def _to_patches(side: float, minimum: int) -> int:
    rounded = round(side / PATCH) * PATCH  # to even at .5, like NumPy
    return rounded if rounded >= minimum else math.ceil(side / PATCH) * PATCH


def preprocess(image: np.ndarray, input_size: int = 518) -> np.ndarray:
    """uint8 [H, W, 3] -> the network's input, float32 [H', W', 3]: cubic resize, then ImageNet normalisation.

    The cubic overshoots 0..1 at edges and is not clipped, as in the official code.
    """
    height, width = image.shape[:2]
    net_height, net_width = network_size(height, width, input_size)
    rows = _matrix(ops.cubic_taps(height, net_height), height)
    columns = _matrix(ops.cubic_taps(width, net_width), width)
    x = rows @ image.reshape(height, width * 3).astype(np.float32)  # [H', W * 3]
    x = x.reshape(net_height, width, 3).transpose(1, 0, 2).reshape(width, net_height * 3)
    x = (columns @ x).reshape(net_width, net_height, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(x * (1 / (255 * STD)) - MEAN / STD)


def postprocess(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """The network's output [H', W'] -> float32 [height, width], bilinear with corners aligned."""
    x = np.asarray(depth, np.float32)
    columns = _matrix(ops.linear_taps(x.shape[1], width), x.shape[1])
    rows = _matrix(ops.linear_taps(x.shape[0], height), x.shape[0])
    return rows @ np.ascontiguousarray((columns @ x.T).T)


def _matrix(taps: ops.ResizeTaps, size_in: int) -> sparse.csr_array:
    """The resize of one axis as a sparse matrix [out, in]: several times faster than gathering in NumPy."""
    out, count = taps.index.shape
    ends = np.arange(0, out * count + 1, count, dtype=np.int32)
    weight = taps.weight.astype(np.float32).ravel()
    return sparse.csr_array((weight, taps.index.ravel(), ends), shape=(out, size_in))


def preprocess_on_device(images: jax.Array, input_size: int = 518) -> jax.Array:
    """uint8 [B, H, W, 3] -> float32 [B, H', W', 3]: `preprocess` under `jit`."""
    height, width = images.shape[1:3]
    net_height, net_width = network_size(height, width, input_size)
    x = ops.resample(images.astype(jnp.float32), ops.cubic_taps(height, net_height), axis=1)
    x = ops.resample(x, ops.cubic_taps(width, net_width), axis=2)
    return x * (1 / (255 * STD))[None, None, None] - (MEAN / STD)[None, None, None]
