"""The model that comes along: small, of any use, and for images of any size."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import dav2_jax as dav2
from dav2_jax.evaluation import metrics
from dav2_jax.weights.load import resolve

LEAST = 0.7
SCENES = Path(__file__).parent / "scenes" / "held_out.npz"


@pytest.fixture(scope="module")
def nano():
    return dav2.load("nano")


def test_it_is_small():
    files = [file for file in resolve("nano").rglob("*") if file.is_file()]
    assert 2e6 < sum(file.stat().st_size for file in files) < 8e6


def scores(nano, images, disparity, **options) -> np.ndarray:
    """delta1 of each image after affine alignment; sky is disparity 0."""
    prediction = np.stack([np.asarray(depth) for depth in nano.predict(list(images), **options)])
    depth = jnp.where(disparity > 0, 1 / jnp.maximum(disparity.astype(np.float32), 1e-6), jnp.inf)
    valid = jnp.ones(depth.shape, bool)
    aligned = metrics.align_affine(jnp.asarray(prediction), depth, valid)
    return np.asarray(metrics.image_metrics(aligned, depth, valid)["d1"])


def test_it_sees_depth_in_scenes_that_it_was_not_trained_on(nano):
    """Six of the scenes of its card, on all of which a constant has 0.33 and a ramp from top to bottom 0.48."""
    with np.load(SCENES) as stored:
        images, disparity = stored["images"], stored["disparity"]
    assert scores(nano, images, disparity).mean() > LEAST
    assert scores(nano, images[:, ::-1], disparity).mean() < LEAST - 0.1  # upside down


@pytest.mark.parametrize("size", [154, 252])
def test_other_sizes_agree(nano, size):
    """The position table is between its points what it is at them."""
    with np.load(SCENES) as stored:
        image = stored["images"][0]
    usual, other = (np.asarray(nano.predict(image, input_size=s)).ravel() for s in (210, size))
    assert np.corrcoef(usual, other)[0, 1] > 0.9
