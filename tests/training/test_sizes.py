"""Crops of several sizes in one run."""

import jax
import numpy as np
import pytest
from PIL import Image

from dav2_jax import sharding
from dav2_jax.training import sizes
from dav2_jax.training.recipe import Recipe


def test_a_step_has_the_size_of_its_turn():
    assert [sizes.of_step(Recipe(size=252), number) for number in (1, 2)] == [(252, 252)] * 2
    mixed = Recipe(size=252, width=336, heights=(126, 84, 252))
    assert [sizes.of_step(mixed, number) for number in (1, 2, 3, 4)] == [(126, 168), (84, 112), (252, 336), (126, 168)]


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((8, 42, 84, 3), np.float32),
        "disparity": rng.random((8, 42, 84), np.float32),
        "valid": rng.random((8, 42, 84)) < 0.5,
        "index": np.arange(8, dtype=np.int32),
    }


def test_images_are_averaged_and_maps_are_not():
    given = batch()
    found = sizes.shrunk(given, (14, 28))
    assert {name: array.shape[1:] for name, array in found.items()} == {
        "image": (14, 28, 3), "disparity": (14, 28), "valid": (14, 28), "index": (),
    }  # fmt: skip
    for name in ("disparity", "valid"):  # the middle pixels of 3 x 3
        np.testing.assert_array_equal(found[name], given[name][:, 1::3, 1::3])
    np.testing.assert_array_equal(found["index"], given["index"])
    for channel in range(3):  # another implementation of the same filter
        plane = Image.fromarray(given["image"][5, ..., channel])
        expected = np.asarray(plane.resize((28, 14), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(found["image"][5, ..., channel], expected, rtol=0, atol=1e-6)


def test_uint8_becomes_the_unit_range():
    pixels = (batch()["image"] * 255).astype(np.uint8)
    found = sizes.shrunk({"image": pixels}, (14, 28))["image"]
    exact = sizes.shrunk({"image": pixels / np.float32(255)}, (14, 28))["image"]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fsdp", [1, 2])
def test_rows_stay_on_their_devices(fsdp):
    split = sharding.batch_sharding(sharding.make_mesh(jax.devices(), fsdp))
    for name, array in sizes.shrunk(jax.device_put(batch(), split), (14, 28)).items():
        assert array.sharding.is_equivalent_to(split, array.ndim), name
