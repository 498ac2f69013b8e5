"""Photos that are damaged and can be read nevertheless: a JPEG without its end, a PNG with damaged metadata."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from dav2_jax.errors import Dav2Error
from dav2_jax.image.quiet import quiet_pillow

PNG = b"\x89PNG\r\n\x1a\n"  # how a file begins
_CORE_OF_PNG = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_END_OF_JPEG = b"\xff\xd9"
_TOO_MUCH = 7 / 8  # of the rows of a photo to be missing


def with_an_end(image: ImageFile.ImageFile, max_pixels: int) -> Image.Image:
    """A JPEG image that is cut short, read as far as it goes: what is missing is gray, as in OpenCV."""
    image.fp.seek(0)
    with quiet_pillow(max_pixels):
        whole = Image.open(io.BytesIO(image.fp.read() + _END_OF_JPEG))
    whole.load()
    return whole


def what_is_missing(image: Image.Image) -> str:
    """The note on a JPEG that was cut short. Raises Dav2Error where hardly anything of it is left."""
    rows = 0
    pixels = np.asarray(image.convert("L"))
    for row in pixels[::-1]:
        if not (row == 128).all():
            break
        rows += 1
    if rows >= _TOO_MUCH * len(pixels):
        raise Dav2Error(f"damaged or unreadable image ({rows} of its {len(pixels)} rows are missing): check the file")
    share = f", and its last {rows} of {len(pixels)} rows are missing (gray)" if rows else ""
    return f"the file is cut short{share}: get it again if you can"


def core_of_png(data: bytes) -> bytes:
    """A PNG file without the chunks that are not needed for its pixels: profiles, text, EXIF."""
    kept, at = [data[:8]], 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] in _CORE_OF_PNG:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def exif_of_png(file: BinaryIO) -> bytes:
    """The EXIF data of a PNG file, which may come after its pixels (Pillow writes them there); b"" without any."""
    file.seek(len(PNG))
    while len(start := file.read(8)) == 8:
        length = int.from_bytes(start[:4])
        if start[4:] == b"eXIf":
            return b"Exif\0\0" + file.read(length)
        file.seek(length + 4, os.SEEK_CUR)  # 4: the checksum
    return b""
