"""Image and depth of unlike sizes at one size."""

import numpy as np
import pytest

from dav2_jax.data.fit import fit, scale_intrinsics
from dav2_jax.errors import Dav2Error

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
DEPTH = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_depth_takes_the_value_under_each_pixel_and_mixes_none():
    image, depth, factors = fit("a", IMAGE, DEPTH, resize="depth")
    assert image is IMAGE
    np.testing.assert_array_equal(depth, np.kron(DEPTH, np.ones((4, 4), np.float32)))
    assert factors == (1, 1)
    _, small, _ = fit("a", IMAGE[:3, :4], np.kron(DEPTH, np.ones((5, 5))), resize="depth")
    np.testing.assert_array_equal(small, DEPTH)


def test_the_image_is_averaged_and_its_camera_follows():
    flat = np.full((12, 16, 3), (10, 20, 30), np.uint8)
    image, depth, factors = fit("a", flat, DEPTH, resize="image")
    assert depth is DEPTH
    assert image.shape == (3, 4, 3)
    np.testing.assert_array_equal(image, flat[:3, :4])
    fine = np.indices((12, 16)).sum(0)[..., None] % 2 * np.full(3, 200, np.uint8)  # stripes of one pixel
    assert abs(fit("a", fine.astype(np.uint8), DEPTH, resize="image")[0].astype(int) - 100).max() < 8
    assert factors == (0.25, 0.25)
    # the point that was seen in the middle of the picture still is: (w - 1) / 2
    np.testing.assert_allclose(scale_intrinsics(np.array([100, 120, 7.5, 5.5]), factors), [25, 30, 1.5, 1])


def test_equal_sizes_are_left_alone_and_other_shapes_refused():
    image, _, factors = fit("a", IMAGE, IMAGE[..., 0], resize="image")
    assert image is IMAGE
    assert factors == (1, 1)
    with pytest.raises(Dav2Error, match=r"^a: the image is 16 x 12 and its depth 3 x 4: they differ in shape"):
        fit("a", IMAGE, DEPTH.T, resize="image")
