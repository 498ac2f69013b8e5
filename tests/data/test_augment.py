"""Resize, crop and flip of everything that an example holds, against OpenCV and against geometry."""

import cv2
import numpy as np
import pytest
import seeded

from dav2_jax.data import augment
from dav2_jax.data.augment import Geometry, View
from dav2_jax.data.example import labeled
from dav2_jax.errors import Dav2Error


def example(height=60, width=90, **more):
    depth = np.random.default_rng(1).uniform(1, 9, (height, width)).astype(np.float32)
    depth[:5], depth[5:8] = 0, np.inf
    return labeled("a/b", seeded.photo(height, width), depth, intrinsics=(70, 71, 44.5, 29), **more)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (37, 53), (500, 300)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_view_is_the_crop_of_opencvs_resize(size, flip):
    one = example(*size)
    view = Geometry(56).view(*size, seed=3)._replace(flip=flip)
    assert min(view.height, view.width) == 56
    crop = np.s_[view.top : view.top + 56, view.left : view.left + 56]
    mirror = np.s_[:, ::-1] if flip else np.s_[:]

    whole = cv2.resize(one["image"] / 255, (view.width, view.height), interpolation=cv2.INTER_CUBIC)
    assert whole.max() > 1 or whole.min() < 0  # the overshoot is kept
    np.testing.assert_allclose(augment.view_image(one["image"], view), whole[crop][mirror], rtol=0, atol=2e-6)

    for values in (one["depth"], one["valid"].astype(np.uint8)):
        nearest = cv2.resize(values, (view.width, view.height), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(augment.view_map(values, view), nearest[crop][mirror])


def test_a_batch_row_has_its_arrays_and_types():
    tag = np.arange(60 * 90, dtype=np.uint8).reshape(60, 90) % 5
    sensor = np.ones((60, 90), np.float32)
    row = Geometry(42, extra=("intrinsics", "tag", "sensor_depth"))(example(tag=tag, sensor_depth=sensor), 7)
    assert {name: (array.dtype.name, array.shape) for name, array in row.items()} == {
        "image": ("float32", (42, 42, 3)),
        "disparity": ("float32", (42, 42)),
        "valid": ("bool", (42, 42)),
        "intrinsics": ("float32", (4,)),
        "tag": ("uint8", (42, 42)),
        "sensor_depth": ("float32", (42, 42)),
    }
    assert set(Geometry(42, target=None)({"id": "x", "image": seeded.photo(50, 60)}, 7)) == {"image"}


def test_disparity_and_depth_are_each_others_reciprocal():
    one = example()
    near, far = Geometry(42, random=False)(one, 0), Geometry(42, "depth", random=False)(one, 0)
    np.testing.assert_array_equal(near["valid"], far["valid"])
    sky = np.isinf(far["depth"])
    assert sky.any()
    assert not near["valid"].all()
    assert (near["disparity"][sky] == 0).all()
    np.testing.assert_allclose(near["disparity"][near["valid"] & ~sky] * far["depth"][near["valid"] & ~sky], 1, 1e-6)
    assert set(np.unique(far["depth"])) <= {*one["depth"].ravel().tolist()}  # nearest: no new values


def test_a_pixel_keeps_its_ray_through_resize_crop_and_flip():
    """A bright dot seen at a known angle stands where the new intrinsics say that this angle is."""
    height, width = 120, 200
    image = np.zeros((height, width, 3), np.uint8)
    image[70:73, 110:113] = 255  # its middle is pixel (71, 111)
    one = labeled("dot", image, np.ones((height, width)), intrinsics=(150, 160, 99.5, 59.5))
    ray = (111 - 99.5) / 150, (71 - 59.5) / 160
    for flip in (False, True):
        view = View(238, 392, 20, 100, 210, 210, flip)
        gray = augment.view_image(image, view)[..., 0].clip(0)
        rows, columns = np.mgrid[:210, :210]
        at = (gray * columns).sum() / gray.sum(), (gray * rows).sum() / gray.sum()
        fx, fy, cx, cy = augment.view_intrinsics(one, view)
        np.testing.assert_allclose((fx * ray[0] * (-1 if flip else 1) + cx, fy * ray[1] + cy), at, atol=0.02)


def test_views_depend_on_the_seed_alone_and_cover_the_image():
    geometry = Geometry(28)
    views = [geometry.view(56, 84, seed) for seed in range(400)]
    assert views == [geometry.view(56, 84, seed) for seed in range(400)]
    assert {view.top for view in views} == {0}
    assert {view.left for view in views} == set(range(42 - 28 + 1))
    assert 0.4 < np.mean([view.flip for view in views]) < 0.6
    still = Geometry(28, random=False)
    assert {still.view(56, 84, seed) for seed in range(9)} == {View(28, 42, 0, 7, 28, 28, False)}


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (37, 53), (500, 300), (56, 84), (240, 320)])
@pytest.mark.parametrize("crop", [(56, 84), (84, 56), (56, 56), (28, 126)])
def test_an_image_is_made_just_large_enough_for_its_crop(size, crop):
    view = Geometry(crop[0], width=crop[1]).view(*size, seed=4)
    assert (view.rows, view.columns) == crop
    room = view.height - view.rows - view.top, view.width - view.columns - view.left
    assert min(view.top, view.left, *room) >= 0
    assert min(view.height - crop[0], view.width - crop[1]) < 14
    assert augment.view_image(seeded.photo(*size), view).shape == (*crop, 3)
    assert augment.view_map(np.zeros(size), view).shape == crop


def test_a_crop_of_the_shape_of_the_image_is_all_of_it():
    assert Geometry(56, width=84).view(112, 168, 5) == View(56, 84, 0, 0, 56, 84, Geometry(56).view(112, 168, 5).flip)


def test_uint8_is_the_rounded_float():
    one = example()
    exact, rounded = (Geometry(56, pixels=kind)(one, 5)["image"] for kind in ("float32", "uint8"))
    assert rounded.dtype == np.uint8
    np.testing.assert_allclose(rounded / 255, exact.clip(0, 1), rtol=0, atol=0.5001 / 255)


def test_what_an_example_lacks_is_named():
    with pytest.raises(Dav2Error, match="a/b: has no tag: leave it out of extra"):
        Geometry(56, extra=("intrinsics", "tag"))(example(), 0)
    with pytest.raises(Dav2Error, match="x: has no depth"):
        Geometry(56)({"id": "x", "image": seeded.photo(60, 60)}, 0)
