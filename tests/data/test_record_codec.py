"""Records: what goes in comes out bit for bit, and what a stranger wrote cannot hurt."""

import contextlib
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import toy_source

from dav2_jax.data import record_codec
from dav2_jax.data.example import Example, from_disparity
from dav2_jax.errors import Dav2Error


def _examples():
    full, plain = toy_source.example(1), toy_source.example(2)
    yield full
    yield plain
    yield Example(id="", image=full["image"])
    yield from_disparity("d", full["image"], np.abs(full["depth"]))
    odd = np.frombuffer(np.random.default_rng(0).bytes(20 * 31 * 4), np.float32).reshape(
        20, 31
    )  # also NaNs of all kinds
    yield Example(id="odd", image=full["image"], depth=odd, valid=np.zeros((20, 31), bool))
    yield Example(id="one", image=full["image"][:1, :1], depth=odd[:1, :1], valid=np.ones((1, 1), bool))
    yield Example(id="views", image=full["image"][::-1, ::-1], depth=full["depth"][::-1, ::-1], valid=full["valid"].T.T)


@pytest.mark.parametrize("example", list(_examples()), ids=lambda one: one["id"])
def test_every_field_comes_back_bit_for_bit(example):
    record = record_codec.encode(example)
    assert toy_source.same(record_codec.decode(record), example)
    assert record_codec.encode(example) == record


def test_a_jpeg_is_smaller_and_only_the_image_changes():
    smooth = toy_source.example(1)
    smooth["image"] = np.add.outer(np.arange(20), np.arange(31))[..., None].repeat(3, 2).astype(np.uint8)
    back = record_codec.decode(record_codec.encode(smooth, jpeg=90))
    assert np.abs(back["image"].astype(int) - smooth["image"]).max() <= 6
    del smooth["image"], back["image"]
    assert toy_source.same(back, smooth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4), np.uint8)}, "image is uint8 [4, 4], not uint8 [H, W, 3]"),
        ({"depth": np.zeros((20, 31))}, "depth is float64 [20, 31], not float32 [20, 31]"),
        ({"valid": np.zeros((31, 20), bool)}, "valid is bool [31, 20], not bool [20, 31]"),
        ({"tag": np.full((20, 31), 5, np.uint8)}, "tag 5 is not one of the 5"),
        ({"intrinsics": np.zeros(3, np.float32)}, "intrinsics are not float32 [4]"),
        ({"normals": np.zeros((20, 31))}, "no place for normals"),
    ],
)
def test_what_is_no_example_is_refused(change, message):
    with pytest.raises(Dav2Error, match="toy") as error:
        record_codec.encode({**toy_source.example(1), **change})
    assert message in str(error.value)


def _forged(**change) -> bytes:
    """A good record with other values under some keys."""
    record = record_codec._message_class().FromString(record_codec.encode(toy_source.example(1)))
    for pair in record.features.feature:
        if pair.key.replace("/", "_") in change:
            pair.value.Clear()
            pair.value.bytes_list.value.extend(change[pair.key.replace("/", "_")])
    return record.SerializeToString()


def _png(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims to be this large."""
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\x10\0IDAT"
    )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"", 'has no "has"'),
        (b"\xff" * 50, "is no tf.train.Example"),
        (_forged(has=[b"image"]), "has the fields image"),
        (_forged(has=[b"id", b"image", b"__class__"]), "__class__"),
        (_forged(id=[]), '"id" is missing'),
        (_forged(image=[]), '"image" is missing'),
        (_forged(image=[_png(16000, 12000)]), "Image size (192000000 pixels) exceeds"),
        (_forged(image=[_png(13000, 13000)]), "damaged picture"),
        (_forged(image=[_png(60000, 60000)]), "damaged picture (Image size (3600000000 pixels) exceeds"),
        (_forged(image=[b"GIF89a"]), "holds neither PNG nor JPEG"),
        (_forged(depth=[_png(31, 20)]), "holds a RGB picture of 31 x 20 in the wrong place"),
        (_forged(valid_value=[zlib.compress(bytes(2**29))]), "holds other than 620 values"),
        (_forged(valid_value=[zlib.compress(bytes(619))]), "holds other than 620 values"),
        (_forged(valid_value=[zlib.compress(b"\2" * 620)]), "other bytes than 0 and 1"),
        (_forged(valid_value=[b"no zlib"]), "damaged values"),
        (_forged(intrinsics=[b"x"]), '"intrinsics" are 0 numbers'),
    ],
    ids=[str(number) for number in range(16)],
)
def test_a_hostile_record_is_refused_before_it_takes_memory(record, message):
    tracemalloc.start()
    try:
        with pytest.raises(Dav2Error) as error:
            record_codec.decode(record)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert peak < 3_000_000


def test_a_picture_over_the_limit_is_refused(monkeypatch):
    record = _forged()
    monkeypatch.setattr(record_codec, "MAX_PIXELS", 600)  # Pillow warns at its own limit, which is the same
    with pytest.raises(Dav2Error, match="claims 31 x 20 pixels: at most 600"):
        record_codec.decode(record)


def test_no_cut_or_changed_record_does_anything_but_raise_dav2error():
    record, noise = record_codec.encode(toy_source.example(1)), np.random.default_rng(0)
    for _ in range(150):
        bad = bytearray(record)
        bad[noise.integers(len(bad))] ^= 1 << noise.integers(8)
        for one in (bytes(bad), record[: noise.integers(len(record))]):
            with contextlib.suppress(Dav2Error):
                record_codec.decode(one)


def test_reading_imports_no_jax_no_tensorflow_no_tfds():
    code = (
        "import sys, toy_source; from dav2_jax.data import record_codec, records, prepare;"
        "record_codec.decode(record_codec.encode(toy_source.example(1)));"
        "print({'jax', 'tensorflow', 'tensorflow_datasets', 'torch'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=toy_source.environment(), check=True
    )
    assert done.stdout == "set()\n"
