"""Depth files, written byte by byte here, and read."""

import struct
import sys

import dataset_files
import h5py
import numpy as np
import OpenEXR
import pytest
from dataset_files_more import write_npz_header
from PIL import Image

from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files

VALUES = np.arange(1, 13, dtype=np.float32).reshape(3, 4) / 7  # no symmetry: a flip or a transposition shows


def exr(path, channels, dtype=np.float32):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {name: values.astype(dtype) for name, values in channels.items()}).write(str(path))


@pytest.mark.parametrize(("scale", "order"), [(b"-1.0", "<f4"), (b"1.0", ">f4"), (b"-0.5", "<f4")])
@pytest.mark.parametrize(("kind", "channels"), [(b"Pf", 1), (b"PF", 3)])
def test_pfm_is_bottom_up_in_either_order_of_bytes(tmp_path, scale, order, kind, channels):
    rows = np.repeat(VALUES[::-1, :, None], channels, -1)
    rows[..., 1:] = -1  # of a color file the first channel counts
    (tmp_path / "a.pfm").write_bytes(kind + b"\n4 3\n" + scale + b"\n" + rows.astype(order).tobytes())
    read = depth_files.read(tmp_path / "a.pfm")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, VALUES)


def test_a_pfm_whose_values_begin_like_white_space(tmp_path):
    values = np.frombuffer(b"\n \t\n" * 12, "<f4").reshape(3, 4)
    (tmp_path / "a.pfm").write_bytes(b"Pf 4 3 -1\n" + values[::-1].tobytes())
    np.testing.assert_array_equal(depth_files.read_pfm(tmp_path / "a.pfm"), values)


def test_dpt_and_raw(tmp_path):
    body = VALUES.astype("<f4").tobytes()
    (tmp_path / "a.dpt").write_bytes(struct.pack("<fii", 202021.25, 4, 3) + body)
    np.testing.assert_array_equal(depth_files.read(tmp_path / "a.dpt"), VALUES)
    (tmp_path / "raw").write_bytes(body)
    np.testing.assert_array_equal(depth_files.read_raw(tmp_path / "raw", 3, 4), VALUES)
    with pytest.raises(Dav2Error, match=r"raw: 48 bytes of values where 5 x 3 need 60"):
        depth_files.read_raw(tmp_path / "raw", 3, 5)


def test_png_keeps_all_sixteen_bits(tmp_path):
    steps = np.array([[0, 1, 255], [256, 40000, 65535]], np.uint16)
    Image.fromarray(steps).save(tmp_path / "a.png")
    read = depth_files.read(tmp_path / "a.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, steps)
    Image.fromarray(steps.astype(np.uint8)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(depth_files.read(tmp_path / "b.png"), steps.astype(np.uint8))
    np.testing.assert_array_equal(depth_files.read_png16(tmp_path / "a.png"), steps)
    with pytest.raises(Dav2Error, match=r"b\.png: has 8 bits where depth needs 16"):
        depth_files.read_png16(tmp_path / "b.png")
    Image.new("RGB", (3, 2)).save(tmp_path / "c.png")
    with pytest.raises(Dav2Error, match=r"c\.png: is a RGB picture"):
        depth_files.read(tmp_path / "c.png")


def test_masks_are_true_where_not_zero(tmp_path):
    wanted = np.array([[0, 1, 2], [255, 0, 7]], np.uint8)
    Image.fromarray(wanted).save(tmp_path / "gray.png")
    Image.fromarray(wanted.astype(np.uint16) * 256).save(tmp_path / "deep.png")
    Image.fromarray(wanted > 0).save(tmp_path / "bits.png")
    palette = Image.fromarray(wanted).convert("P")
    palette.putpalette([0, 0, 0] * 256)  # what counts is the index, not its color
    palette.save(tmp_path / "palette.png")
    np.save(tmp_path / "bool.npy", wanted > 0)
    np.save(tmp_path / "float.npy", wanted[..., None].astype(np.float32))
    for path in sorted(tmp_path.iterdir()):
        mask = depth_files.read_mask(path)
        assert type(mask) is np.ndarray
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, wanted > 0, err_msg=path.name)
    Image.new("RGB", (3, 2)).save(tmp_path / "c.png")
    with pytest.raises(Dav2Error, match=r"c\.png: is a RGB picture, not a mask"):
        depth_files.read_mask(tmp_path / "c.png")
    (tmp_path / "d.npy").write_bytes((tmp_path / "float.npy").read_bytes()[:-1])
    with pytest.raises(Dav2Error, match=r"d\.npy: damaged or unreadable"):
        depth_files.read_mask(tmp_path / "d.npy")


def test_npy_and_npz(tmp_path):
    np.save(tmp_path / "a.npy", VALUES[..., None].astype(">f8"))
    np.testing.assert_array_equal(depth_files.read(tmp_path / "a.npy"), VALUES.astype(np.float64))
    np.savez_compressed(tmp_path / "b.npz", depth=VALUES, other=VALUES * 2)
    np.testing.assert_array_equal(depth_files.read(tmp_path / "b.npz"), VALUES)
    np.savez(tmp_path / "c.npz", anything=VALUES)
    np.testing.assert_array_equal(depth_files.read(tmp_path / "c.npz"), VALUES)
    np.savez(tmp_path / "d.npz", x=VALUES, y=VALUES)
    with pytest.raises(Dav2Error, match=r'd\.npz: has no array "depth": it has x, y'):
        depth_files.read(tmp_path / "d.npz")
    np.save(tmp_path / "e.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(Dav2Error, match=r"e\.npy: damaged or unreadable"):
        depth_files.read(tmp_path / "e.npy")
    np.save(tmp_path / "f.npy", np.zeros((2, 3, 4)))
    with pytest.raises(Dav2Error, match=r"f\.npy: holds float64 \[2, 3, 4\], not numbers \[H, W\]"):
        depth_files.read(tmp_path / "f.npy")


COLORS = {"R": VALUES * 2, "G": VALUES * 3, "B": VALUES * 4, "A": VALUES * 0 + 1}
NORMALS = {f"ViewLayer.Normal.{axis}": VALUES * k for k, axis in enumerate("XYZ", 2)}
PASSES = {f"ViewLayer.{name}.Z": VALUES * 9 for name in ("Mist", "Denoising Depth")}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("depth", "others"),
    [
        ("depth.T", COLORS),  # Mitsuba
        ("Depth.V", COLORS),  # Blender
        ("ViewLayer.Depth.Z", {**{f"ViewLayer.Combined.{n}": v for n, v in COLORS.items()}, **NORMALS, **PASSES}),
        ("zDepth", COLORS),
        ("WorldDepth.R", {"WorldDepth.A": VALUES * 5, **COLORS}),
        ("Z", {"ZBack": VALUES * 2, **COLORS}),
        ("Image.Z", COLORS),
        ("Z", {"A": VALUES * 0}),
        ("Y", {}),
        ("Y", {"A": VALUES * 0}),
        ("disp", {}),
        ("R", {"G": VALUES, "B": VALUES, "A": VALUES * 0}),  # a gray picture
    ],
)
def test_exr_takes_the_channel_of_depth(tmp_path, depth, others, dtype):
    exr(tmp_path / "a.exr", {**others, depth: VALUES}, dtype)
    read = depth_files.read(tmp_path / "a.exr")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, VALUES.astype(dtype))


@pytest.mark.parametrize(
    ("channels", "why", "names"),
    [
        (COLORS, "no channel that is depth by its name", "A, B, G, R"),
        ({"Y": VALUES, "X": VALUES}, "no channel that is depth by its name", "X, Y"),
        ({**COLORS, **NORMALS}, "no channel that is depth", ".*ViewLayer.Normal.Z"),
        ({**COLORS, "depth.T": VALUES, "Z": VALUES}, "2 channels that could be depth", "Z, depth.T"),
        ({"left.Depth.Z": VALUES, "right.Depth.Z": VALUES}, "2 channels", "left.Depth.Z, right.Depth.Z"),
        ({"depth.R": VALUES, "depth.G": VALUES * 2, "depth.B": VALUES}, "3 channels", "depth.B, depth.G, depth.R"),
    ],
)
def test_exr_that_does_not_say_where_its_depth_is_lists_the_channels(tmp_path, channels, why, names):
    exr(tmp_path / "a.exr", channels)
    with pytest.raises(Dav2Error, match=rf"a\.exr: has {why}.*: name one of {names} with channel= .*\?channel="):
        depth_files.read(tmp_path / "a.exr")
    name = sorted(channels)[-1]
    np.testing.assert_array_equal(depth_files.read(tmp_path / "a.exr", name), channels[name])
    with pytest.raises(Dav2Error, match="has no channel 'U': it has"):
        depth_files.read(tmp_path / "a.exr", "U")


def test_exr_of_several_parts_and_deep_ones(tmp_path):
    parts = [OpenEXR.Part({}, COLORS, "rgba"), OpenEXR.Part({}, {"Z": VALUES}, "depth")]
    OpenEXR.File(parts).write(str(tmp_path / "a.exr"))
    np.testing.assert_array_equal(depth_files.read(tmp_path / "a.exr"), VALUES)
    np.testing.assert_array_equal(depth_files.read(tmp_path / "a.exr", "rgba.G"), VALUES * 3)
    deep = np.empty(VALUES.shape, object)
    for place in np.ndindex(*deep.shape):
        deep[place] = np.array([1, 2], np.float32)
    header = {"type": OpenEXR.deepscanline, "compression": OpenEXR.ZIPS_COMPRESSION}
    OpenEXR.File(header, {"Z": deep}).write(str(tmp_path / "deep.exr"))
    with pytest.raises(Dav2Error, match=r"deep\.exr: is a deep EXR"):
        depth_files.read(tmp_path / "deep.exr")


def test_without_the_package_exr_says_what_to_install(tmp_path, monkeypatch):
    exr(tmp_path / "a.exr", {"Z": VALUES})
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    for read in (depth_files.read, depth_files.load):
        with pytest.raises(Dav2Error, match=r"this needs OpenEXR: pip install 'dav2-jax\[exr\]'"):
            read(tmp_path / "a.exr")


def test_hdf5_whole_or_in_parts(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["dataset"] = VALUES.astype(np.float16)
        file["many/parts"] = np.stack([VALUES, VALUES * 2])
        file["words"] = "text"
        file.create_dataset("huge", shape=(400000, 400000), dtype="f4", chunks=(100, 100))  # a few bytes on disk
    read = depth_files.read_hdf5(path, "dataset")
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, VALUES.astype(np.float16))
    np.testing.assert_array_equal(depth_files.read_hdf5(path, "many/parts", 1), VALUES * 2)
    assert depth_files.hdf5_length(path, "many/parts") == 2
    for name, reason in {"depth": 'no dataset "depth": it has dataset, huge, many, words', "many": "no dataset",
                         "words": "holds object", "huge": "not numbers of a picture"}.items():  # fmt: skip
        with pytest.raises(Dav2Error, match=rf"a\.hdf5: .*{reason}"):
            depth_files.read_hdf5(path, name)
    whole = path.read_bytes()
    for data in (b"", b"not HDF5" * 99, whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(Dav2Error, match=r"a\.hdf5: damaged"):
            depth_files.read_hdf5(path, "dataset")
    path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        depth_files.read_hdf5(path, "dataset")
    assert caught.value.filename == str(path)


def test_floats_in_the_channels_of_a_png(tmp_path):
    values = VALUES.copy()
    values[0, :3] = 0, np.inf, 10000.125
    dataset_files.png_floats(tmp_path / "a.png", values)
    np.testing.assert_array_equal(depth_files.read_png_floats(tmp_path / "a.png"), values)
    Image.new("RGB", (3, 2)).save(tmp_path / "b.png")
    with pytest.raises(Dav2Error, match=r"b\.png: is a RGB picture, not one of four channels"):
        depth_files.read_png_floats(tmp_path / "b.png")


def test_damaged_files_are_named(tmp_path):
    exr(tmp_path / "a.exr", {"Z": VALUES})
    np.save(tmp_path / "a.npy", VALUES)
    np.savez(tmp_path / "a.npz", depth=VALUES)
    Image.fromarray(np.zeros((30, 40), np.uint16) + np.arange(40, dtype=np.uint16)).save(tmp_path / "a.png")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n4 3\n-1\n" + VALUES.tobytes())
    (tmp_path / "a.dpt").write_bytes(struct.pack("<fii", 202021.25, 4, 3) + VALUES.tobytes())
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        depth_files.read(path)
        for data in (b"", b"not depth at all" * 8, whole[: len(whole) // 2], whole[:-3]):
            path.write_bytes(data)
            if path.suffix == ".png" and data == whole[:-3]:
                continue  # Pillow does not need the end of the last chunk
            with pytest.raises(Dav2Error, match=rf"{path.name}: "):
                depth_files.read(path)
        path.unlink()
        with pytest.raises(FileNotFoundError):
            depth_files.read(path)
    with pytest.raises(Dav2Error, match=r"a\.bmp: depth cannot be read from '\.bmp'"):
        depth_files.read(tmp_path / "a.bmp")


def test_a_header_cannot_ask_for_more_memory_than_the_file_is_worth(tmp_path):
    (tmp_path / "a.pfm").write_bytes(b"Pf\n400000 300000\n-1\n1234")
    (tmp_path / "a.dpt").write_bytes(struct.pack("<fii", 202021.25, 400000, 300000) + b"1234")
    np.save(tmp_path / "a.npy", VALUES)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes().replace(b"(3, 4)", b"(300000, 400000)"))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(Dav2Error, match=rf"{path.name}: "):
            depth_files.read(path)
    for descr, shape, why in (
        ("<f4", (300000, 400000), "claims 400000 x 300000 pixels"),
        ("<f4", (1, 1, 10**12), "claims 1000000000000 x 1 pixels"),
        ("<U100000000", (3, 4), r"holds <U100000000 \[3, 4\], not numbers"),
    ):
        write_npz_header(tmp_path / "a.npz", {"depth": (descr, shape)})
        with pytest.raises(Dav2Error, match=rf"a\.npz: {why}"):
            depth_files.read(tmp_path / "a.npz")
