"""Focal lengths from every source, and points that project back to their pixels."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from dav2_jax.errors import Dav2Error
from dav2_jax.inference import geometry

FOCAL, FOCAL_35, X_DIM, Y_DIM, X_RES, UNIT = 0x920A, 0xA405, 0xA002, 0xA003, 0xA20E, 0xA210


def exif_of(tags, size=(64, 48)):
    """EXIF data as they come out of a JPEG file."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(tags)
    data = io.BytesIO()
    Image.new("RGB", size).save(data, format="JPEG", exif=exif)
    return Image.open(data).getexif()


@pytest.mark.parametrize(
    ("fov", "width", "focal"), [(90, 1000, 500.0), (60, 640, 320 * math.sqrt(3)), (179.9, 2, 8.7e-4)]
)
def test_focal_from_fov(fov, width, focal):
    assert geometry.focal_from_fov(fov, width) == pytest.approx(focal, rel=5e-3 if fov > 170 else 1e-12)


@pytest.mark.parametrize("fov", [0, -10, 180, 400, math.nan])
def test_an_impossible_field_of_view_is_refused(fov):
    with pytest.raises(Dav2Error, match="between 0 and 180"):
        geometry.focal_from_fov(fov, 100)


def test_film_equivalent_is_relative_to_the_diagonal():
    # 26 mm on 43.27 mm of film, 4032 x 3024 has a diagonal of 5040
    assert geometry.focal_from_exif(exif_of({FOCAL_35: 26}), 4032, 3024) == pytest.approx(26 * 5040 / 43.27, rel=1e-4)
    # a 3:2 photo of a full-frame camera: exactly width * f / 36
    assert geometry.focal_from_exif(exif_of({FOCAL_35: 50}), 6000, 4000) == pytest.approx(6000 * 50 / 36, rel=1e-12)


SENSOR = {FOCAL: IFDRational(50, 1), X_RES: IFDRational(6000 * 10, 36), UNIT: 3, X_DIM: 6000, Y_DIM: 4000}  # per cm


@pytest.mark.parametrize(("unit", "per_unit"), [(2, 25.4), (3, 10.0), (4, 1.0), (5, 0.001)])
def test_sensor_resolution_in_every_unit(unit, per_unit):
    tags = SENSOR | {UNIT: unit, X_RES: IFDRational(round(6000 * per_unit * 1e6), 36_000_000)}
    assert geometry.focal_from_exif(exif_of(tags), 6000, 4000) == pytest.approx(6000 * 50 / 36, rel=1e-6)


def test_sensor_resolution_without_unit_is_per_inch():
    tags = {tag: value for tag, value in SENSOR.items() if tag != UNIT} | {X_RES: IFDRational(60000 * 254, 3600)}
    assert geometry.focal_from_exif(exif_of(tags), 6000, 4000) == pytest.approx(6000 * 50 / 36, rel=1e-6)


@pytest.mark.parametrize("tags", [{FOCAL_35: 50, X_DIM: 6000, Y_DIM: 4000}, SENSOR], ids=["film", "sensor"])
@pytest.mark.parametrize("size", [(3000, 2000), (2000, 3000), (301, 200)])
def test_resized_and_turned_photos(tags, size):
    assert geometry.focal_from_exif(exif_of(tags), *size) == pytest.approx(max(size) * 50 / 36, rel=2e-3)


@pytest.mark.parametrize("tags", [{FOCAL_35: 50, X_DIM: 6000, Y_DIM: 4000}, SENSOR], ids=["film", "sensor"])
def test_a_cropped_photo_tells_nothing(tags):
    assert geometry.focal_from_exif(exif_of(tags), 4000, 4000) is None


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {FOCAL: 50},  # mm alone say nothing without the sensor
        {FOCAL_35: 0},  # "unknown" in the standard
        {FOCAL: IFDRational(0, 0), X_RES: 100.0, UNIT: 3, X_DIM: 6000, Y_DIM: 4000},
        {tag: value for tag, value in SENSOR.items() if tag != X_DIM},  # it may have been resized since
        SENSOR | {UNIT: 1},  # no absolute unit
    ],
    ids=["none", "mm", "zero", "nan", "no size", "no unit"],
)
def test_exif_that_does_not_say_gives_none(tags):
    assert geometry.focal_from_exif(exif_of(tags), 6000, 4000) is None


def test_a_photo_without_exif_gives_none():
    assert geometry.focal_from_exif(None, 6000, 4000) is None
    assert geometry.focal_from_exif(Image.Exif(), 6000, 4000) is None


def test_damaged_exif_is_quiet():
    good = Image.Exif()
    good.get_ifd(0x8769).update({FOCAL_35: 26, FOCAL: IFDRational(5, 1)})
    damaged = Image.Exif()
    damaged.load(good.tobytes()[:-22])
    assert geometry.focal_from_exif(damaged, 64, 48) is None


def test_choose_focal_prefers_what_the_user_says():
    assert geometry.choose_focal(None, None, width=100, known=None) is None
    assert geometry.choose_focal(None, None, width=100, known=70.0) == 70.0
    assert geometry.choose_focal(80.0, None, width=100, known=70.0) == 80.0
    assert geometry.choose_focal(None, 90.0, width=100, known=70.0) == pytest.approx(50.0)
    with pytest.raises(Dav2Error, match=r"focal_length and fov are both given"):
        geometry.choose_focal(80.0, 90.0, width=100, known=None)
    for bad in (0.0, -5.0, math.nan, math.inf):
        with pytest.raises(Dav2Error, match="positive number"):
            geometry.choose_focal(bad, None, width=100, known=None)


def test_points_of_a_plane_lie_where_the_camera_sees_them():
    points, colors = geometry.point_cloud(np.full((2, 4), 2.0, np.float32), 10.0)
    assert colors is None
    assert points.dtype == np.float32
    np.testing.assert_allclose(points[:, 0].reshape(2, 4), [[-0.3, -0.1, 0.1, 0.3]] * 2, atol=1e-7)  # right is +x
    np.testing.assert_allclose(points[:, 1].reshape(2, 4), [[-0.1] * 4, [0.1] * 4], atol=1e-7)  # down is +y
    np.testing.assert_array_equal(points[:, 2], 2.0)


def test_points_project_back_and_scale_with_depth():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 80, (30, 41)).astype(np.float32)
    points, _ = geometry.point_cloud(depth, 525.0)
    columns = (points[:, 0] / points[:, 2] * 525 + 41 / 2).reshape(30, 41)
    rows = (points[:, 1] / points[:, 2] * 525 + 30 / 2).reshape(30, 41)
    np.testing.assert_allclose(columns, np.broadcast_to(np.arange(41) + 0.5, (30, 41)), atol=1e-4)
    np.testing.assert_allclose(rows, np.broadcast_to(np.arange(30)[:, None] + 0.5, (30, 41)), atol=1e-4)
    np.testing.assert_array_equal(geometry.point_cloud(depth * 2, 525.0)[0], points * 2)
    mirrored, _ = geometry.point_cloud(depth[:, ::-1], 525.0)
    np.testing.assert_array_equal(mirrored.reshape(30, 41, 3)[:, ::-1], points.reshape(30, 41, 3) * [-1, 1, 1])


def test_pixels_without_depth_have_no_point():
    depth = np.array([[1.0, np.nan, np.inf], [0.0, -1.0, 3.0]], np.float32)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    points, colors = geometry.point_cloud(depth, 10.0, image)
    assert points[:, 2].tolist() == [1.0, 3.0]
    assert colors.tolist() == [[0, 1, 2], [15, 16, 17]]
    assert colors.dtype == np.uint8


def test_pseudo_depth():
    disparity = np.array([[3.0, 5.0, 7.0, np.nan]], np.float32)
    np.testing.assert_allclose(geometry.pseudo_depth(disparity), [[10.0, 1 / 0.55, 1.0, np.nan]], rtol=1e-6)
    # only the order and proportions of disparity count, not its unknown scale and shift
    np.testing.assert_allclose(geometry.pseudo_depth(disparity * 8 - 3), geometry.pseudo_depth(disparity), rtol=1e-6)
    np.testing.assert_array_equal(geometry.pseudo_depth(np.full((2, 2), 4.0)), np.full((2, 2), 10.0, np.float32))
    assert np.isnan(geometry.pseudo_depth(np.full((2, 2), np.inf))).all()


def test_fields_of_view_both_ways():
    field = geometry.field_of_view(500.0, 1000, 600)
    assert field.horizontal == pytest.approx(90)
    assert field.vertical == pytest.approx(2 * math.degrees(math.atan(0.6)))
    assert field.diagonal > field.horizontal
    assert geometry.focal_from_fov(field.horizontal, 1000) == pytest.approx(500.0)


def test_intrinsics_project_points_to_the_centers_of_their_pixels():
    depth = np.random.default_rng(0).uniform(1, 9, (30, 41)).astype(np.float32)
    points, _ = geometry.point_cloud(depth, 50.0)
    k = geometry.intrinsics(50.0, 41, 30)
    seen = points @ k.T
    np.testing.assert_allclose(seen[:, 0] / seen[:, 2], np.tile(np.arange(41) + 0.5, 30), atol=1e-4)
    np.testing.assert_allclose(seen[:, 1] / seen[:, 2], np.repeat(np.arange(30) + 0.5, 41), atol=1e-4)
    np.testing.assert_array_equal(k[2], [0, 0, 1])
