"""Safetensors headers: sound ones open, and every wrong number or text in one ends in one Dav2Error line."""

import json
import random
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from weight_checks import assert_refused, outcome, read_all


def write_header(path: Path, header: object, data: bytes = bytes(24), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype="F32", shape=(2, 3), begin=0, end=24) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors_headers(tmp_path):
    path = tmp_path / "a.safetensors"
    assert read_all(write_header(path, {"__metadata__": {"format": "pt"}, "a": entry()}))["a"].shape == (2, 3)
    assert_refused(write_header(path, {"a": entry()}, bytes(23)), "cut off")
    assert_refused(write_header(path, {"a": entry()}, bytes(25)), "1 bytes after its last tensor")
    assert_refused(write_header(path, {"a": entry()}, length=10_000), "cut off inside its header")
    assert_refused(write_header(path, {"a": entry()}, length=1 << 62), "claims")
    assert_refused(write_header(path, {}, b""), "no tensors")
    assert_refused(write_header(path, {"a": entry("F8_E4M3")}), "F8_E4M3", "'a'")
    assert_refused(write_header(path, {"a": entry(), "b": entry()}), "overlaps or leaves a gap", "'b'")
    assert_refused(write_header(path, {"a": entry(begin=4, end=28)}, bytes(28)), "overlaps or leaves a gap")
    assert_refused(write_header(path, b'{"a": 1, "a": 2}'), "twice")
    for broken in [b"{", b'{"a"', b"{]", b"{\xff\xff}", b'{"a":' + b"[" * 100_000, b'{"a": ' + b"1" * 9999 + b"}"]:
        assert_refused(write_header(path, broken))


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "F32",
        {},
        {"dtype": "F32", "shape": [2, 3]},
        entry(dtype=["F32"]),
        entry(shape=[2, 4]),
        entry(shape=[-2, -3]),
        entry(shape=[2.0, 3]),
        entry(shape=[True, 6]),
        entry(shape=["ab", 1 << 40]),
        entry(shape=6),
        entry(shape="23"),
        entry(shape=[1 << 62, 1 << 62]),
        entry(shape=[0, 1 << 62, 1 << 62], end=0),
        entry(shape=[1] * 65),
        entry(begin=24, end=0),
        entry(begin=-24, end=0),
        entry(begin=0.0),
        entry(end=None),
        entry(end=1 << 70),
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24, 48]},
    ],
)
def test_safetensors_entries(tmp_path, wrong):
    assert_refused(write_header(tmp_path / "a.safetensors", {"a": wrong}), "'a'")


def test_damaged_safetensors_files(tmp_path):
    path, chance = tmp_path / "a.safetensors", random.Random(1)
    safetensors.torch.save_file({"a": torch.arange(8.0), "b": torch.arange(9)[2:5].clone()}, path)
    content = path.read_bytes()
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 5])):
            damaged[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(damaged)
        outcome(path)  # without a checksum a changed number cannot be told
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert outcome(path) is None
