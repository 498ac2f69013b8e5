"""From a photo to the network's input and from its output back to the photo's size, exactly as the official code does.

Source: `image2tensor` and `infer_image` in the official `depth_anything_v2/dpt.py`, and `util/transform.py`.
"""

import math
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dav2_jax.errors import Dav2Error
from dav2_jax.model import ops
from dav2_jax.model.config import PATCH

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

MAX_PIXELS = 178_956_970  # Pillow's own limit, beyond which it suspects a decompression bomb
MAX_TOKENS = 65_536  # patches of one photo: 3584 x 3584 pixels of network input


def read_image(source, *, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, Image.Exif | None]:
    """Decodes a photo to uint8 RGB [H, W, 3], upright (EXIF orientation applied); also returns its EXIF.

    source: a path, a PIL image, or a uint8 array [H, W, 3] or [H, W]. Alpha is dropped, not blended, gray is repeated,
    16 bits keep the high byte (all as OpenCV reads them), palette and CMYK are converted, and an animation gives its
    first frame. A photo of more than `max_pixels` is refused before it is decoded.
    Raises Dav2Error for anything that is not such an image, in one line without the path.
    """
    if isinstance(source, np.ndarray) or (hasattr(source, "__array__") and not isinstance(source, Image.Image)):
        return _check_array(np.asarray(source)), None
    if isinstance(source, Image.Image):
        return _decode(source, max_pixels)
    if not isinstance(source, str | os.PathLike):
        raise Dav2Error(f"a {type(source).__name__} is no image: give a path, a PIL image or a uint8 array [H, W, 3]")
    path = Path(source)
    if not path.exists():
        raise Dav2Error("no such file")
    if path.is_dir():
        raise Dav2Error("is a folder, not an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd but readable files; for the size, `max_pixels` decides
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                with Image.open(path) as image:
                    return _decode(image, max_pixels)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except Image.UnidentifiedImageError:
        raise Dav2Error(f"not an image that Pillow can read ({path.stat().st_size:,} bytes)") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError) as error:
        raise Dav2Error(f"damaged or unreadable image ({str(error) or type(error).__name__})") from None


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
            f"{width} x {height} = {width * height:,} pixels are over the limit of {max_pixels:,}: raise --max-pixels"
        )
    exif = image.getexif()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow may hold in 32 bits
        high_byte = np.clip(np.asarray(image), 0, 65535) >> 8
        image = Image.fromarray(high_byte.astype(np.uint8))
    elif image.mode == "F":
        raise Dav2Error("a floating-point image has no known range: convert it to 8 or 16 bits")
    return np.asarray(image.convert("RGB")), exif


def network_size(height: int, width: int, input_size: int = 518) -> tuple[int, int]:
    """The size (H', W') at which the network sees a photo of (height, width).

    The shorter side becomes `input_size`, the aspect is kept, and both are rounded to multiples of 14, upwards
    where they would fall below `input_size`. Raises Dav2Error when that is too much for one pass.
    """
    if input_size < PATCH:
        raise Dav2Error(f"an input size of {input_size} is less than one patch: give at least {PATCH}")
    scale = max(input_size / height, input_size / width)
    size = tuple(_to_patches(scale * side, input_size) for side in (height, width))
    tokens = size[0] * size[1] // PATCH**2
    if tokens > MAX_TOKENS:
        raise Dav2Error(
            f"{width} x {height} at input size {input_size} is {size[1]} x {size[0]} for the network, "
            f"{tokens:,} patches where {MAX_TOKENS:,} are the limit: choose a smaller --input-size or crop it"
        )
    return size


def _to_patches(side: float, minimum: int) -> int:
    rounded = round(side / PATCH) * PATCH  # to even at .5, like NumPy
    return rounded if rounded >= minimum else math.ceil(side / PATCH) * PATCH


def preprocess(image: np.ndarray, input_size: int = 518) -> np.ndarray:
    """uint8 [H, W, 3] -> the network's input, float32 [H', W', 3]: cubic resize, then ImageNet normalisation.

    The cubic overshoots 0..1 at edges and is not clipped, as in the official code.
    """
    height, width = network_size(*image.shape[:2], input_size)
    x = np.asarray(image, np.float32) / np.float32(255)
    x = ops.resample(x, ops.cubic_taps(x.shape[0], height), axis=0)
    x = ops.resample(x, ops.cubic_taps(x.shape[1], width), axis=1)
    return (x - MEAN) / STD


def postprocess(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """The network's output [H', W'] -> float32 [height, width], bilinear with corners aligned."""
    x = np.asarray(depth, np.float32)
    x = ops.resample(x, ops.linear_taps(x.shape[0], height), axis=0)
    return ops.resample(x, ops.linear_taps(x.shape[1], width), axis=1)
