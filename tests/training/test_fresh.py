"""Parameters to learn from nothing: their sizes, and positions for any size of image."""

import jax
import numpy as np
import pytest

from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.dinov2 import position_table
from dav2_jax.training import fresh

MINI = ModelConfig("mini", 64, 2, 2, "mlp", 16, (8, 8, 16, 16), (0, 0, 1, 1))
BOTH = {"pretrained", "depth_head"}


@pytest.mark.parametrize(("ffn", "last"), [("mlp", "fc2"), ("swiglu", "w3")])
def test_a_branch_begins_as_large_as_what_it_is_added_to(ffn, last):
    config = MINI.replace(ffn=ffn)
    params = fresh.draw(config, jax.random.key(0), BOTH)
    for block in params["pretrained"]["blocks"].values():
        for branch, end in (("attn", "proj"), ("mlp", last)):
            for name, layer in block[branch].items():
                inputs = layer["kernel"].shape[0]
                expected = inputs**-0.5 / (2 if name == end else 1)  # sqrt(2 * depth) is 2
                assert np.std(layer["kernel"]) == pytest.approx(expected, rel=0.05), name
    assert np.asarray(params["depth_head"]["scratch"]["output_conv2"]["2"]["bias"]) == 1
    abstract = depth_anything.abstract_params(config)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, abstract)


def test_a_metric_head_has_no_bias_of_its_own_and_a_head_alone_is_that_of_the_model():
    metric = MINI.replace(kind="metric", max_depth=20.0)
    ours, plain = (
        fresh.draw(metric, jax.random.key(0), {"depth_head"}),
        depth_anything.init_head(metric, jax.random.key(0)),
    )
    assert ours.keys() == {"depth_head"}
    jax.tree.map(np.testing.assert_array_equal, ours["depth_head"], plain)


@pytest.mark.parametrize(("h", "w"), [(5, 5), (9, 16), (37, 37), (40, 20)])
def test_sines_serve_every_size_of_image(h, w):
    """Between the points of the table stands what the sines have there."""
    table = np.asarray(position_table(fresh.sines(64), h, w))[0]
    assert (table[0] == 0).all()
    grid = table[1:].reshape(h, w, 64)
    frequency = 100 ** -(np.arange(16) / 16)
    for axis, (count, part) in enumerate([(h, slice(0, 32)), (w, slice(32, 64))]):
        drift = 0 if (h, w) == (37, 37) else 0.1
        place = (np.arange(count) + 0.5) * 37 / (count + drift) - 0.5
        angle = np.clip(place, 0, 36)[:, None] * 9 / 37 * frequency
        expected = 0.5 * np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        line = grid[:, 0, part] if axis == 0 else grid[0, :, part]
        np.testing.assert_allclose(line[1:-1], expected[1:-1], atol=0.01)
