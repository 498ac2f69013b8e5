"""Files: exact round trips, reading by other programs, and nothing half-written whatever happens."""

import json
import os
import re
import subprocess
import sys
import textwrap
import warnings

import cv2
import numpy as np
import OpenEXR
import pytest
import trimesh
from PIL import Image

from dav2_jax import files
from dav2_jax.errors import Dav2Error
from dav2_jax.inference import formats
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.formats import FORMATS

RNG = np.random.default_rng(1)
PHOTO = RNG.integers(0, 256, (24, 31, 3), dtype=np.uint8)
DISPARITY = Depth(RNG.gamma(2.0, 30.0, (24, 31)).astype(np.float32), "disparity", PHOTO, focal_length=40.0)
METRES = Depth(RNG.uniform(0.4, 19.9, (24, 31)).astype(np.float32), "metres", PHOTO, max_depth=20.0, focal_length=40.0)


PLANE = 1 / np.linspace(0.05, 1.6, 24 * 31).reshape(24, 31).astype(np.float32)  # metres; no pixel of it flies


def write(depth, name, folder):
    path = folder / f"photo.jpg{FORMATS[name].suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a relative point cloud
        FORMATS[name].write(depth, path)
    return path


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    with files.atomic(tmp_path / "x.npy") as ours:  # of a process that runs
        ours.touch()
        dead = ours.with_name(ours.name.replace(f"-{os.getpid()}-", f"-{killed.pid}-"))
        elsewhere = tmp_path / f".dav2-another.host-{killed.pid}-00.tmp"
        for path in (dead, elsewhere):
            path.touch()
        files.remove_leftovers([tmp_path, tmp_path / "not there"])
        assert {path for path in (ours, dead, elsewhere) if path.exists()} == {ours, elsewhere}


def test_the_table_has_the_promised_formats():
    assert list(FORMATS) == ["color", "gray", "png16", "npy", "npz", "exr", "side-by-side", "ply", "glb"]


def test_no_suffix_ends_with_another():
    suffixes = [format.suffix for format in FORMATS.values()] + [".png16.png.json"]
    for one in suffixes:
        assert [other for other in suffixes if other.endswith(one)] == [one]


@pytest.mark.parametrize("depth", [DISPARITY, METRES], ids=["disparity", "metres"])
@pytest.mark.parametrize("name", ["npz", "exr"])
def test_npz_and_exr_come_back_whole(depth, name, tmp_path):
    loaded = Depth.load(write(depth, name, tmp_path))
    np.testing.assert_array_equal(loaded.values, depth.values)
    assert (loaded.unit, loaded.max_depth, loaded.focal_length) == (depth.unit, depth.max_depth, 40.0)
    unknown = Depth.load(write(Depth(depth.values, depth.unit), name, tmp_path))
    assert (unknown.unit, unknown.max_depth, unknown.focal_length) == (depth.unit, None, None)


@pytest.mark.parametrize("name", ["npy", "npz", "exr"])
def test_non_finite_values_are_kept(name, tmp_path):
    values = np.array([[np.nan, np.inf], [-np.inf, 1.5]], np.float32)
    np.testing.assert_array_equal(
        Depth.load(write(Depth(values, "metres"), name, tmp_path), unit="metres").values, values
    )


def test_npy_holds_the_values_and_the_reader_must_know_the_unit(tmp_path):
    path = write(DISPARITY, "npy", tmp_path)
    np.testing.assert_array_equal(np.load(path), DISPARITY.values)
    assert Depth.load(path, unit="metres").unit == "metres"
    with pytest.raises(Dav2Error, match="states no unit: give unit="):
        Depth.load(path)


def test_the_unit_that_a_file_states_wins(tmp_path):
    assert Depth.load(write(DISPARITY, "npz", tmp_path), unit="metres").unit == "disparity"


def test_exr_is_one_float_channel_z(tmp_path):
    with OpenEXR.File(str(write(METRES, "exr", tmp_path))) as file:
        assert list(file.channels()) == ["Z"]
        assert file.channels()["Z"].pixels.dtype == np.float32
        np.testing.assert_array_equal(file.channels()["Z"].pixels, METRES.values)
        assert file.header()["unit"] == "metres"


def test_png16_of_disparity_spans_all_levels(tmp_path):
    path = write(DISPARITY, "png16", tmp_path)
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert (stored.dtype, stored.min(), stored.max()) == (np.uint16, 0, 65535)
    meaning = json.loads(path.with_name(path.name + ".json").read_text())
    low, high = float(DISPARITY.values.min()), float(DISPARITY.values.max())
    assert meaning["scale"] == pytest.approx((high - low) / 65535, rel=1e-12)
    assert meaning["offset"] == low
    loaded = Depth.load(path)
    assert loaded.unit == "disparity"
    assert np.abs(loaded.values - DISPARITY.values).max() <= 0.501 * meaning["scale"]
    assert (loaded.values.min(), loaded.values.max()) == (DISPARITY.values.min(), DISPARITY.values.max())


@pytest.mark.parametrize(
    ("max_depth", "scale"), [(20.0, 0.001), (65.0, 0.001), (65.1, 1 / 256), (80.0, 1 / 256), (None, 0.001)]
)
def test_png16_of_metres_has_a_fixed_scale(max_depth, scale, tmp_path):
    path = write(Depth(METRES.values, "metres", max_depth=max_depth), "png16", tmp_path)
    stored = np.asarray(Image.open(path))
    np.testing.assert_array_equal(stored, np.rint(METRES.values.astype(np.float64) / scale))
    loaded = Depth.load(path)
    assert (loaded.unit, loaded.max_depth) == ("metres", max_depth)
    assert np.abs(loaded.values - METRES.values).max() <= 0.501 * scale


def test_png16_of_metres_without_a_limit_takes_the_scale_that_holds_them(tmp_path):
    values = np.array([[0.5, 70.0]], np.float32)
    np.testing.assert_array_equal(Depth.load(write(Depth(values, "metres"), "png16", tmp_path)).values, values)


def test_png16_states_its_meaning_twice(tmp_path):
    path = write(METRES, "png16", tmp_path)
    sidecar = path.with_name(path.name + ".json")
    meaning = json.loads(sidecar.read_text())
    assert meaning == {
        "unit": "metres",
        "scale": 0.001,
        "offset": 0.0,
        "max_depth": 20.0,
        "formula": "value = offset + scale * stored",
    }
    with Image.open(path) as image:
        text = image.text
    assert (text["unit"], float(text["scale"]), float(text["offset"])) == ("metres", 0.001, 0.0)
    expected = Depth.load(path).values
    sidecar.unlink()
    np.testing.assert_array_equal(Depth.load(path).values, expected)
    write(METRES, "png16", tmp_path)
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))  # drops the text
    with Image.open(path) as image:
        assert "unit" not in image.info
    np.testing.assert_array_equal(Depth.load(path).values, expected)
    sidecar.unlink()
    with pytest.raises(Dav2Error, match="states no unit, scale and offset"):
        Depth.load(path)


@pytest.mark.parametrize("constant", [0.0, 7.3, -1e-20])
def test_png16_of_a_constant_map_is_exact(constant, tmp_path):
    values = np.full((3, 4), constant, np.float32)
    np.testing.assert_array_equal(Depth.load(write(Depth(values, "disparity"), "png16", tmp_path)).values, values)


@pytest.mark.parametrize("unit", ["disparity", "metres"])
def test_png16_clips_and_drops_what_it_cannot_hold(unit, tmp_path):
    values = np.array([[np.nan, np.inf, -np.inf, 1.0, 3.0]], np.float32)
    stored = np.asarray(Image.open(write(Depth(values, unit, max_depth=20.0), "png16", tmp_path)))
    assert stored.tolist() == [[0, 0, 0, 0, 65535] if unit == "disparity" else [0, 0, 0, 1000, 3000]]
    far = Depth(np.array([[-1.0, 500.0]], np.float32), "metres", max_depth=20.0)
    assert np.asarray(Image.open(write(far, "png16", tmp_path))).tolist() == [[0, 65535]]
    nothing = Depth(np.full((2, 2), np.nan), unit)
    assert not Depth.load(write(nothing, "png16", tmp_path)).values.any()


@pytest.mark.parametrize("name", ["color", "gray", "side-by-side"])
def test_pictures_are_lossless(name, tmp_path):
    pixels = {"color": DISPARITY.color(), "gray": DISPARITY.gray(), "side-by-side": DISPARITY.side_by_side()}[name]
    path = write(DISPARITY, name, tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read if name == "gray" else read[..., ::-1], pixels)


def test_ply_reads_back_in_trimesh(tmp_path):
    values = PLANE.copy()
    values[0, :4] = np.nan, np.inf, 0.0, -2.0
    cloud = trimesh.load(write(Depth(values, "metres", PHOTO, focal_length=40.0), "ply", tmp_path))
    keep = np.isfinite(values) & (values > 0)
    assert len(cloud.vertices) == 24 * 31 - 4
    np.testing.assert_array_equal(cloud.colors[:, :3], PHOTO[keep])
    np.testing.assert_array_equal(cloud.vertices[:, 2], values[keep])
    # back through the pinhole: every point lands on the center of its pixel
    rows, columns = np.nonzero(keep)
    np.testing.assert_allclose(cloud.vertices[:, 0] / cloud.vertices[:, 2] * 40 + 31 / 2, columns + 0.5, atol=1e-4)
    np.testing.assert_allclose(cloud.vertices[:, 1] / cloud.vertices[:, 2] * 40 + 24 / 2, rows + 0.5, atol=1e-4)


def test_ply_without_the_photo_takes_the_color_map(tmp_path):
    depth = Depth(PLANE, "metres", focal_length=40.0)
    cloud = trimesh.load(write(depth, "ply", tmp_path))
    np.testing.assert_array_equal(cloud.colors[:, :3], depth.color().reshape(-1, 3))


def test_glb_holds_the_points_of_ply_with_y_up_and_linear_colors(tmp_path):
    depth = Depth(PLANE, "metres", PHOTO, focal_length=40.0)
    ply = trimesh.load(write(depth, "ply", tmp_path))
    path = write(depth, "glb", tmp_path)
    (cloud,) = trimesh.load(path).geometry.values()
    np.testing.assert_array_equal(cloud.vertices, ply.vertices * [1, -1, -1])
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    gltf = json.loads(data[20 : 20 + length])
    assert (data[:4], len(data)) == (b"glTF", int.from_bytes(data[8:12], "little"))
    assert gltf["accessors"][0]["max"] == cloud.vertices.max(0).tolist()
    assert gltf["accessors"][0]["min"] == cloud.vertices.min(0).tolist()
    colors = np.frombuffer(data[20 + length + 8 + 12 * PLANE.size :], "<u2").reshape(-1, 4) / 65535
    srgb = PHOTO.reshape(-1, 3) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    np.testing.assert_allclose(colors, np.concatenate([linear, np.ones((len(linear), 1))], 1), atol=1e-5)


def test_ply_of_disparity_warns_in_one_line_and_keeps_the_order(tmp_path):
    path = tmp_path / "a.ply"
    with pytest.warns(UserWarning, match="no scale and no shift") as caught:
        Depth(1 / PLANE, "disparity", focal_length=40.0).save(path)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    z = trimesh.load(path).vertices[:, 2]
    assert (z.min(), z.max()) == pytest.approx((1.0, 10.0))
    assert len(z) == PLANE.size
    assert (np.diff(z) <= 0).all()  # as PLANE has it


def test_ply_leaves_out_what_flies_between_surfaces_unless_told_to_keep_it(tmp_path):
    values = np.full((24, 31), 2.0, np.float32)
    values[:, 15], values[:, 16:] = 3.0, 5.0
    depth = Depth(values, "metres", PHOTO, focal_length=40.0)
    assert set(trimesh.load(write(depth, "ply", tmp_path)).vertices[:, 2]) == {2.0, 5.0}
    formats.write_ply(depth, tmp_path / "all.ply", edge=None)
    assert len(trimesh.load(tmp_path / "all.ply").vertices) == values.size


def test_ply_needs_a_focal_length(tmp_path):
    advice = "give focal_length (pixels of the photo) or fov (degrees"
    for name in ("a.ply", "a.glb"):
        with pytest.raises(Dav2Error, match=re.escape(advice)):
            Depth(METRES.values, "metres", PHOTO).save(tmp_path / name)
    with pytest.raises(Dav2Error, match="no finite positive value"):
        Depth(np.zeros((2, 2)), "metres").save(tmp_path / "a.ply", fov=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"no array", "damaged or unreadable"),
        ("a.npz", b"PK no zip", "damaged or unreadable"),
        ("a.exr", b"no exr", "damaged or unreadable"),
        ("a.png", b"no png", "damaged or unreadable"),
        ("a.jpg", b"", "depth cannot be read from '.jpg'"),
    ],
)
def test_a_damaged_file_is_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Dav2Error, match=f"{name}: .*{message}"):
        Depth.load(tmp_path / name)


def test_other_files_are_not_taken_for_depth(tmp_path):
    with pytest.raises(Dav2Error, match="no such file"):
        Depth.load(tmp_path / "missing.npy")
    with pytest.raises(Dav2Error, match="states no unit, scale and offset"):
        Depth.load(write(DISPARITY, "color", tmp_path))
    np.savez(tmp_path / "other.npz", image=PHOTO)
    with pytest.raises(Dav2Error, match=r"other\.npz: holds uint8 .*, not numbers \[H, W\]"):
        Depth.load(tmp_path / "other.npz", unit="metres")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(Dav2Error, match="damaged or unreadable"):
        Depth.load(tmp_path / "objects.npy", unit="metres")


@pytest.mark.parametrize("name", FORMATS)
def test_names_may_hold_bytes_that_are_no_characters(name, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff\xfe")
    folder.mkdir()
    assert write(METRES, name, folder).stat().st_size > 0


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    path = write(METRES, "exr", tmp_path)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    for call in (lambda: METRES.save(tmp_path / "b.exr"), lambda: Depth.load(path)):
        with pytest.raises(Dav2Error, match=r"this needs OpenEXR: pip install 'dav2-jax\[exr\]'"):
            call()


@pytest.mark.parametrize("name", FORMATS)
def test_writing_leaves_only_the_file(name, tmp_path):
    path = write(METRES, name, tmp_path)
    expected = {path.name, path.name + ".json"} if name == "png16" else {path.name}
    assert {file.name for file in tmp_path.iterdir()} == expected
    write(METRES, name, tmp_path)  # over itself
    assert {file.name for file in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_a_failure_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted():
        with files.atomic(path) as temporary:
            temporary.write_bytes(b"half")
            assert temporary.parent == path.parent
            raise error

    with pytest.raises(error):
        interrupted()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.bin", b"old")]


@pytest.mark.parametrize("name", FORMATS)
def test_an_error_of_the_disk_names_the_file_that_was_asked_for(name, tmp_path):
    (tmp_path / "file").touch()
    for folder, error in (("nodir", FileNotFoundError), ("file", NotADirectoryError)):
        path = tmp_path / folder / "a.bin"
        with pytest.raises(error) as caught:
            FORMATS[name].write(METRES, path)
        assert caught.value.filename in (str(path), f"{path}.json")
        assert ".tmp" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupt_before_the_rename_leaves_nothing(name, tmp_path, monkeypatch):
    def interrupt(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(METRES, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_png16_is_renamed_after_its_sidecar(tmp_path, monkeypatch):
    renamed = []
    replace = type(tmp_path).replace
    monkeypatch.setattr("pathlib.Path.replace", lambda self, to: renamed.append(to.name) or replace(self, to))
    write(METRES, "png16", tmp_path)
    assert renamed == ["photo.jpg.png16.png.json", "photo.jpg.png16.png"]


@pytest.mark.parametrize("name", FORMATS)
def test_no_room_left_is_an_oserror_and_leaves_nothing(name, tmp_path):
    """The kernel itself refuses: files of this process may not exceed 2 kB. (A full disk differs in its errno only.)"""
    program = f"""
        import resource, sys, warnings
        import numpy as np
        from dav2_jax.inference.depth import Depth
        from dav2_jax.inference.formats import FORMATS
        warnings.simplefilter("ignore", UserWarning)
        rng = np.random.default_rng(0)
        photo = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
        depth = Depth(2 + 0.05 * rng.random((200, 200), dtype=np.float32), "metres", photo, focal_length=100.0)
        from pathlib import Path
        FORMATS[{name!r}].write(depth, Path("before"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            FORMATS[{name!r}].write(depth, Path("after"))
        except OSError as error:
            print("refused:", error.strerror)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused: File too large\n"
    assert done.stderr == ""
    assert {file.name for file in tmp_path.iterdir()} <= {"before", "before.json"}
