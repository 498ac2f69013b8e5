"""The zip of torch.save: variants that it writes open, and forged or damaged ones end in one Dav2Error line."""

import random
import struct
import tracemalloc
import zipfile

import pytest
import torch
from torch_forger import forge, tensor
from weight_checks import assert_refused, assert_same, bits, outcome, read_all

from dav2_jax.convert.torch_file import open_weights
from dav2_jax.errors import Dav2Error


def test_torch_file_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(4.0), "b": torch.arange(4.0)[1:3]}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(tmp_path / "a.pth", {"a": torch.arange(4.0), "b": torch.arange(4.0)[1:3]})


def test_zip_entries(tmp_path):
    path, good = tmp_path / "a.pth", {"a": tensor((6,), (1,))}
    assert_refused(forge(path, good, byteorder=b"big"), "little-endian")
    assert_refused(forge(path, good, byteorder=b"middle"), "little-endian")
    assert read_all(forge(path, good, byteorder=b"little"))
    assert_refused(forge(path, good, **{"constants.pkl": b""}), "TorchScript")
    assert_refused(forge(path, good, storages={}), "lacks", "data/0")
    assert_refused(forge(path, good, storages={"0": bytes(23)}), "damaged")
    assert_refused(forge(path, good, **{"b/data.pkl": b""}), "not of torch.save")
    assert_refused(forge(path, b"." * ((64 << 20) + 1)), "data.pkl is 67108865 bytes")

    with zipfile.ZipFile(forge(path, good)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in entries.items():
            archive.writestr(name, raw)
    assert_refused(path, "compressed or encrypted")
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in entries.items():
            archive.writestr(name, raw)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/data/0", bytes(24))
    assert_refused(path, "two zip entries of one name")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert_refused(path, "is a zip file but not of torch.save")


@pytest.mark.parametrize("claimed", [23, 25, 1 << 30])
def test_zip_entry_of_a_wrong_size(tmp_path, claimed):
    """Refused before memory is reserved for it: 28 bytes, of which the zip directory says something else."""
    forged = {"a": tensor((claimed // 4,), (1,), count=claimed // 4)}
    path = forge(tmp_path / "a.pth", forged, storages={"0": bytes(28)})
    content = path.read_bytes()
    assert content.count(struct.pack("<2I", 28, 28)) == 2  # local header, directory
    path.write_bytes(content.replace(struct.pack("<2I", 28, 28), struct.pack("<2I", claimed, claimed)))
    with pytest.raises(Dav2Error, match="'data/0' is damaged"):
        open_weights(path)


def test_zip_directory_that_claims_gigabytes(tmp_path):
    path = forge(tmp_path / "a.pth", {"a": tensor((6,), (1,))})
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<I", 0x7FFFFFFF)
    path.write_bytes(content)
    assert_refused(path)
    with path.open("r+b") as file:  # sparse: the claim now fits the file
        file.truncate(4 << 30)
        file.seek((4 << 30) - 22)
        file.write(content[end:])
    tracemalloc.start()
    try:
        assert_refused(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_flipped_bits_and_cut_torch_files(tmp_path):
    path, chance = tmp_path / "a.pth", random.Random(0)
    torch.save({"a": torch.arange(8.0), "b": torch.arange(9)[2:5], "c": torch.ones(2, 2).half()}, path)
    content, expected = path.read_bytes(), read_all(path)
    survived = 0
    for _ in range(1500):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        if (weights := outcome(path)) is not None:
            survived += 1
            assert weights.keys() == expected.keys()
            assert all(bits(weights[name]) == bits(expected[name]) for name in expected)
    assert 0 < survived < 1200  # padding and dates do not matter; about half of this small file is that
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert outcome(path) is None
