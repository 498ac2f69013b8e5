"""The Depth result: its array protocol and its pictures, against the arithmetic of the official run.py."""

import io

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.depth import Depth

RNG = np.random.default_rng(0)
VALUES = RNG.normal(3.0, 2.0, (37, 53)).astype(np.float32)
PHOTO = RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8)


def official_picture(values, color_map):
    """run.py lines 59 to 65, with cv2's BGR undone."""
    v = (values - values.min()) / (values.max() - values.min()) * 255.0
    bgr = (matplotlib.colormaps[color_map](v.astype(np.uint8))[:, :, :3] * 255)[:, :, ::-1].astype(np.uint8)
    return v.astype(np.uint8), bgr


@pytest.mark.parametrize(("unit", "color_map"), [("disparity", "Spectral_r"), ("metres", "Spectral")])
def test_pictures_are_those_of_the_official_script(unit, color_map):
    depth = Depth(VALUES, unit, PHOTO)
    gray, bgr = official_picture(VALUES, color_map)
    np.testing.assert_array_equal(depth.gray(), gray)
    np.testing.assert_array_equal(depth.color(), bgr[..., ::-1])
    strip = np.ones((37, 50, 3), dtype=np.uint8) * 255
    np.testing.assert_array_equal(depth.side_by_side()[..., ::-1], cv2.hconcat([PHOTO[..., ::-1].copy(), strip, bgr]))


@pytest.mark.parametrize(("unit", "near"), [("disparity", 9.0), ("metres", 1.0)])
def test_near_is_red_in_both_units(unit, near):
    values = np.full((4, 4), 5.0, np.float32)
    values[0, 0], values[0, 1] = 1.0, 9.0
    red, green, blue = Depth(values, unit).color()[values == near][0].astype(int)
    assert red > 2 * green
    assert red > 2 * blue


def test_pictures_do_not_depend_on_scale_and_shift():
    # powers of two and small integers, so that float32 rounds nothing
    values = RNG.integers(0, 256, (20, 30)).astype(np.float32)
    values[0, :2] = 0, 255
    np.testing.assert_array_equal(Depth(values * 4 + 64, "disparity").gray(), values.astype(np.uint8))


def test_values_are_truncated_and_not_rounded():
    values = np.array([[0.0, 0.999, 1.999, 255.0]], np.float32)
    np.testing.assert_array_equal(Depth(values, "disparity").gray(), [[0, 0, 1, 255]])


@pytest.mark.parametrize("constant", [0.0, -3.5, 1e30])
def test_a_constant_map_has_one_color(constant):
    depth = Depth(np.full((5, 6), constant, np.float32), "disparity")
    assert depth.is_constant
    assert np.unique(depth.gray()).tolist() == [0]
    assert len(np.unique(depth.color().reshape(-1, 3), axis=0)) == 1


def test_non_finite_values_leave_the_range_alone():
    values = VALUES.copy()
    values[0, :3] = np.nan, np.inf, -np.inf
    finite = np.isfinite(values)
    low, high = values[finite].min(), values[finite].max()
    gray = Depth(values, "disparity").gray()
    np.testing.assert_array_equal(gray[finite], ((values[finite] - low) / (high - low) * 255).astype(np.uint8))
    assert gray[0, :3].tolist() == [0, 0, 0]


def test_a_map_without_finite_values_still_draws():
    depth = Depth(np.full((2, 3), np.nan), "metres")
    assert depth.is_constant
    assert not depth.gray().any()
    assert "no finite value" in repr(depth)


def test_array_protocol():
    depth = Depth(VALUES, "disparity")
    assert np.asarray(depth) is depth.values
    assert np.asarray(depth).dtype == np.float32
    assert depth.shape == (37, 53)
    copy = np.array(depth)
    copy[:] = 0
    np.testing.assert_array_equal(depth.values, VALUES)
    assert np.asarray(depth, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(depth, dtype=np.float64, copy=False)
    assert np.max(depth) == VALUES.max()


def test_other_dtypes_become_float32():
    assert Depth(np.arange(6, dtype=np.float16).reshape(2, 3), "metres").values.dtype == np.float32


def test_notebooks_show_the_color_map():
    depth = Depth(VALUES, "disparity")
    shown = np.asarray(Image.open(io.BytesIO(depth._repr_png_())))
    np.testing.assert_array_equal(shown, depth.color())


def test_repr_says_size_range_and_unit():
    values = np.array([[0.5, 2.0], [1.0, 4.25]], np.float32)
    assert repr(Depth(values, "metres")) == "Depth(2x2, 0.5 to 4.25 metres)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((1, 4, 5)), "metres"), r"shape \(1, 4, 5\)"),
        ((np.zeros((0, 5)), "metres"), r"shape \(0, 5\)"),
        ((np.zeros((4, 5)), "meters"), "unit is 'meters'"),
        ((np.zeros((4, 5)), "metres", np.zeros((5, 4, 3), np.uint8)), r"uint8 \(5, 4, 3\)"),
        ((np.zeros((4, 5)), "metres", np.zeros((4, 5, 3))), "float64"),
    ],
)
def test_what_is_no_depth_is_refused(arguments, message):
    with pytest.raises(Dav2Error, match=message):
        Depth(*arguments)


def test_side_by_side_needs_the_photo():
    with pytest.raises(Dav2Error, match="no image"):
        Depth(VALUES, "disparity").side_by_side()


def test_save_takes_the_format_from_the_extension(tmp_path):
    depth = Depth(VALUES, "metres", PHOTO, max_depth=20.0)
    depth.save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), depth.color())
    depth.save(str(tmp_path / "a.NPY"))
    np.testing.assert_array_equal(np.load(tmp_path / "a.NPY"), VALUES)
    depth.save(tmp_path / "b.png", format="gray")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), depth.gray())


def test_save_names_what_it_does_not_know(tmp_path):
    depth = Depth(VALUES, "metres")
    with pytest.raises(Dav2Error, match=r"'\.bmp' names no format: use \.png"):
        depth.save(tmp_path / "a.bmp")
    with pytest.raises(Dav2Error, match="unknown format 'tiff': use one of color, gray"):
        depth.save(tmp_path / "a.png", format="tiff")
    with pytest.raises(Dav2Error, match=r"a\.jpg: color is written as \.png"):
        depth.save(tmp_path / "a.jpg", format="color")
    assert list(tmp_path.iterdir()) == []


def test_save_notes_the_focal_length_that_is_given(tmp_path):
    depth = Depth(VALUES, "metres", focal_length=100.0)
    depth.save(tmp_path / "a.npz")
    depth.save(tmp_path / "b.npz", focal_length=200.0)
    depth.save(tmp_path / "c.npz", fov=90.0)
    loaded = [Depth.load(tmp_path / name).focal_length for name in ("a.npz", "b.npz", "c.npz")]
    assert loaded == pytest.approx([100.0, 200.0, 53 / 2])


def test_arithmetic_gives_plain_arrays():
    depth = Depth(VALUES, "metres", PHOTO)
    results = {
        "scaled": (2 * depth - depth / 4, 2 * VALUES - VALUES / 4),
        "compared": (depth > 3, VALUES > 3),
        "both": (depth - depth, VALUES * 0),
        "array first": (np.ones((37, 53), np.float32) + depth, VALUES + 1),
        "ufunc": (np.exp(-abs(depth)), np.exp(-abs(VALUES))),
        "crop": (depth[3:9, ::2], VALUES[3:9, ::2]),
        "mask": (depth[depth > 3], VALUES[VALUES > 3]),
        "rows": (np.stack(list(depth)), VALUES),
        "axis": (depth.mean(axis=0), VALUES.mean(axis=0)),
        "reduced": (np.add.reduce(depth), np.add.reduce(VALUES)),
        "extremes": ([depth.min(), depth.max(), np.min(depth)], [VALUES.min(), VALUES.max(), VALUES.min()]),
    }
    for name, (result, expected) in results.items():
        assert not isinstance(result, Depth), name
        np.testing.assert_array_equal(result, expected, err_msg=name)
    assert depth[10, 20] == VALUES[10, 20]
    assert (depth.dtype, depth.ndim, depth.size, len(depth)) == (np.float32, 2, 37 * 53, 37)


def test_a_depth_is_not_changed_in_place():
    depth = kept = Depth(VALUES, "metres")
    with pytest.raises(TypeError, match=r"not changed in place: write depth = depth \* 2"):
        depth *= 2
    with pytest.raises(TypeError, match="does not support item assignment"):
        depth[0, 0] = 1
    np.testing.assert_array_equal(kept.values, VALUES)


@pytest.mark.parametrize(
    ("known", "options", "message"),
    [
        (300.0, {"focal_length": 18}, "18 pixels is far from the 300 that the photo's EXIF data state .* not mm"),
        (None, {"fov": 175}, "sees 175 degrees from left to right, which few cameras do"),
        (None, {"focal_length": 2.0}, "sees 171 degrees"),
        (None, {"focal_length": 9_000}, "sees 0.337 degrees"),
        (300.0, {"focal_length": 290}, None),
        (300.0, {}, None),
    ],
)
def test_a_focal_length_that_is_not_plausible_is_noted(known, options, message, tmp_path):
    depth = Depth(VALUES, "metres", focal_length=known)
    if message is None:
        return depth.save(tmp_path / "a.npz", **options)
    with pytest.warns(UserWarning, match=message):
        depth.save(tmp_path / "a.npz", **options)
    assert (tmp_path / "a.npz").exists()


@pytest.mark.parametrize("name", ["focal_length", "fov"])
def test_a_focal_length_that_is_no_number_is_refused(name, tmp_path):
    with pytest.raises(Dav2Error, match=r"is '60': give a number"):
        Depth(VALUES, "metres").save(tmp_path / "a.npz", **{name: "60"})
