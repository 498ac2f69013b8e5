"""TIFF beyond Pillow: which image of a file is the photo, and samples of 9 to 16 bits.

A TIFF file holds a chain of images, each of which may have more of them in its SubIFDs. Cameras and raw converters put
a thumbnail first. Sources: TIFF 6.0 (Adobe, 1992), TIFF Technical Note 1 (SubIFDs), DNG 1.6.
"""

from __future__ import annotations

import math
import struct
from typing import BinaryIO, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.image.kinds import advice

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
STRIPS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, MAX_SAMPLE, SUB_IFDS = 273, 277, 278, 279, 284, 281, 330
DNG_VERSION = 50706
_WANTED = {SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS, SAMPLES, ROWS_PER_STRIP,
           STRIP_BYTES, PLANAR, MAX_SAMPLE, SUB_IFDS, DNG_VERSION}  # fmt: skip
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
_SENSOR = {32803, 34892}  # color filter array, linear raw: to be developed
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I"}  # of the tags above
_MOST_PAGES = 64  # a file can link its images in a circle
_MOST_VALUES = 1_000_000
_AS_LARGE = 0.8  # of the largest image's pixels: a preview of that size is the photo


class Page(NamedTuple):
    """One image of the file: where its directory starts, and its tags as integers."""

    offset: int
    tags: dict[int, tuple[int, ...]]

    def get(self, tag: int, default: int = 0) -> int:
        return (self.tags.get(tag) or (default,))[0]

    @property
    def pixels(self) -> int:
        return self.get(WIDTH) * self.get(HEIGHT)


def pages(file: BinaryIO) -> list[Page]:
    """All images of a TIFF file (not BigTIFF), those of the chain and those below them; [] where it is damaged."""
    try:
        file.seek(0)
        order, pointer = _header(file.read(8))
        todo, done = [pointer], {}
        while todo and len(done) < _MOST_PAGES:
            offset = todo.pop(0)
            if offset == 0 or offset in done:
                continue
            done[offset], following = _page(file, offset, order)
            todo += [*done[offset].tags.get(SUB_IFDS, ()), following]
    except (struct.error, OverflowError, ValueError, KeyError):
        return []
    return list(done.values())


def photo_page(file: BinaryIO, name: str = "") -> tuple[Page | None, Page | None]:
    """(the first image, the one that is the photo): the same, or the largest where the first is a thumbnail.

    None for both where the file is damaged. Raises Dav2Error, which names the file, where the photo is what a sensor
    saw, before any developing.
    """
    images = pages(file)
    if not images:
        return None, None
    first, largest = images[0], max(images, key=lambda page: page.pixels)
    is_photo = not first.get(SUBFILE) & 1 and DNG_VERSION not in first.tags
    if is_photo and first.get(PHOTOMETRIC) not in _SENSOR:
        return first, first
    plain = [page for page in images if page.get(PHOTOMETRIC) not in _SENSOR]
    best = max(plain, key=lambda page: page.pixels, default=None)
    if best is None or best.pixels < _AS_LARGE * largest.pixels:
        raise Dav2Error(advice("raw", name))
    return first, best


def starting_at(data: bytes, page: Page) -> bytes:
    """The same file with this image as its first one."""
    order, _ = _header(data[:8])
    return data[:4] + struct.pack(f"{order}I", page.offset) + data[8:]


def read_plain(data: bytes, page: Page, max_pixels: int) -> np.ndarray | None:
    """(H, W, 3) uint8 of an uncompressed gray or RGB image with 9 to 16 bits a sample; None for any other.

    These are not all known to Pillow (10, 12 and 14 bits packed, white as 0 in big-endian files). The high 8 bits are
    kept. Raises Dav2Error for more than `max_pixels`.
    """
    bits, samples, kind = page.get(BITS, 1), page.get(SAMPLES, 1), page.get(PHOTOMETRIC, -1)
    width, height = page.get(WIDTH), page.get(HEIGHT)
    plain = page.get(COMPRESSION, 1) == 1 and page.get(FILL_ORDER, 1) == 1 and page.get(PLANAR, 1) == 1
    known = (samples, kind) in {(1, WHITE_IS_ZERO), (1, BLACK_IS_ZERO), (3, RGB)} and 9 <= bits <= 16
    if not (plain and known and page.pixels and set(page.tags[BITS]) == {bits}):
        return None
    if page.pixels > max_pixels:
        raise Dav2Error(f"more pixels than the limit of {max_pixels:,}: raise max_pixels")
    order, _ = _header(data[:8])
    row_bytes = math.ceil(width * samples * bits / 8)  # rows start at whole bytes
    rows_per_strip = min(page.get(ROWS_PER_STRIP, height) or height, height)
    image = np.empty((height, width, samples), np.uint8)
    for k, start in enumerate(page.tags.get(STRIPS, ())):
        top = k * rows_per_strip
        count = min(rows_per_strip, height - top)
        if count <= 0:
            break
        packed = np.frombuffer(data, np.uint8, count * row_bytes, start).reshape(count, row_bytes)
        if bits == 16:
            high = packed.reshape(count, width * samples, 2)[..., 1 if order == "<" else 0]
        else:
            each = np.unpackbits(packed, axis=1)[:, : width * samples * bits].reshape(count, width * samples, bits)
            high = np.packbits(each[..., :8], axis=-1)[..., 0]
        image[top : top + count] = high.reshape(count, width, samples)
    if kind == WHITE_IS_ZERO:
        image = 255 - image
    return np.repeat(image, 3, axis=-1) if samples == 1 else image


def _header(head: bytes) -> tuple[str, int]:
    """(byte order, offset of the first image)"""
    order = {b"II*\0": "<", b"MM\0*": ">"}[head[:4]]
    return order, struct.unpack(f"{order}I", head[4:8])[0]


def _page(file: BinaryIO, offset: int, order: str) -> tuple[Page, int]:
    """An image and the offset of the following one, 0 after the last."""
    file.seek(offset)
    (count,) = struct.unpack(f"{order}H", file.read(2))
    entries = file.read(12 * count + 4)
    tags = {}
    for k in range(count):
        tag, kind, number = struct.unpack_from(f"{order}HHI", entries, 12 * k)
        if tag not in _WANTED or kind not in _TYPES or number > _MOST_VALUES:
            continue
        layout = f"{order}{number}{_TYPES[kind]}"
        values = entries[12 * k + 8 : 12 * k + 12]
        if struct.calcsize(layout) > 4:
            file.seek(struct.unpack(f"{order}I", values)[0])
            values = file.read(struct.calcsize(layout))
        tags[tag] = struct.unpack_from(layout, values)
    return Page(offset, tags), struct.unpack_from(f"{order}I", entries, 12 * count)[0]
