"""The network as a whole: shapes, purity, initialization, precision. Other files test its numbers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seeded import flatten

from dav2_jax.model import depth_anything
from dav2_jax.model.config import PRESETS, ModelConfig

TINY = PRESETS["small"].replace(
    encoder="tiny", width=48, depth=11, heads=3, features=16, out_channels=(8, 16, 24, 32), taps=(1, 4, 9, 10)
)
PARAMETERS = {"nano": 3_662_129, "small": 24_785_089, "base": 97_470_785, "large": 335_315_649, "giant": 1_258_132_225}


@pytest.fixture(scope="module")
def params():
    return init(TINY, jax.random.key(0))


init = jax.jit(depth_anything.init, static_argnums=0)
apply = jax.jit(depth_anything.apply, static_argnums=(0, 3))
stages = jax.jit(depth_anything.stages, static_argnums=(0, 3))


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((*shape, 3), dtype=np.float32))


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_counts(preset):
    leaves = jax.tree.leaves(depth_anything.abstract_params(PRESETS[preset]))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.dtype == jnp.float32 for leaf in leaves)
    assert sum(leaf.size for leaf in leaves) == PARAMETERS[preset]


def test_abstract_params_are_those_of_init(params):
    abstract = depth_anything.abstract_params(TINY)
    assert {n: a.shape for n, a in flatten(abstract).items()} == {n: p.shape for n, p in flatten(params).items()}


@pytest.mark.parametrize("size", [(14, 14), (28, 70), (70, 28), (42, 56)])
def test_any_multiple_of_14(params, size):
    depth = apply(TINY, params, images(2, *size))
    assert depth.shape == (2, *size)
    assert depth.dtype == jnp.float32


@pytest.mark.parametrize("shape", [(1, 15, 14, 3), (1, 14, 14, 1), (14, 14, 3), (1, 0, 14, 3)])
def test_other_shapes_are_refused(params, shape):
    with pytest.raises(ValueError, match="multiples of 14"):
        apply(TINY, params, jnp.zeros(shape))


def test_one_image_does_not_see_another(params):
    both = images(2, 28, 42)
    alone = apply(TINY, params, both[:1])
    np.testing.assert_allclose(apply(TINY, params, both)[:1], alone, rtol=1e-5, atol=1e-7)


def test_with_and_without_jit(params):
    x = images(1, 28, 42)
    np.testing.assert_allclose(apply(TINY, params, x), depth_anything.apply(TINY, params, x), rtol=1e-5, atol=1e-7)


def test_gradients_reach_every_parameter_in_use(params):
    def loss(params):
        return (stages(TINY, params, images(1, 28, 42))["output_conv1"] ** 2).mean()

    gradient = flatten(jax.jit(jax.grad(loss))(params))
    idle = {name for name, leaf in gradient.items() if not np.abs(leaf).max() > 0}
    expected = {name for name in gradient if "refinenet4.resConfUnit1" in name or "output_conv2" in name}
    assert idle == expected | {"pretrained.mask_token"}


def test_gradients_in_bfloat16_are_float32_and_near(params):
    def loss(params, dtype):
        return stages(TINY, params, images(1, 28, 42), dtype)["output_conv1"].astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    exact, fast = (gradient(params, dtype)["pretrained"]["pos_embed"] for dtype in (jnp.float32, jnp.bfloat16))
    assert fast.dtype == jnp.float32
    assert 0 < np.linalg.norm(exact - fast) / np.linalg.norm(exact) < 0.1


def test_vmap_over_models(params):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    x = images(1, 14, 28)
    both = jax.jit(jax.vmap(lambda p: depth_anything.apply(TINY, p, x)))(stacked)
    np.testing.assert_allclose(both[0], apply(TINY, params, x), rtol=1e-4, atol=1e-6)


def test_stages(params):
    found = stages(TINY, params, images(1, 28, 42))
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes["patch_embed"] == (1, 6, 48)
    assert shapes["block10"] == (1, 7, 48)
    assert shapes["tap3"] == (1, 2, 3, 48)
    assert shapes["resize0"] == (1, 8, 12, 8)
    assert shapes["resize3"] == (1, 1, 2, 32)
    assert shapes["refinenet1"] == (1, 16, 24, 16)
    assert shapes["depth"] == (1, 28, 42)
    np.testing.assert_allclose(np.mean(found["tap3"], -1), np.mean(params["pretrained"]["norm"]["bias"]), atol=1e-6)


def test_metric_is_a_sigmoid_times_max_depth(params):
    x = images(1, 28, 42)
    metric = TINY.replace(kind="metric", max_depth=20.0)
    relative = stages(TINY, params, x)["depth"]
    depth = apply(metric, params, x)
    alive = relative > 0
    assert alive.any()
    np.testing.assert_allclose(depth[alive], 20 / (1 + np.exp(-relative[alive])), rtol=1e-5)
    assert float(depth.max()) < 20


def test_encoder_alone():
    config = TINY.replace(kind="encoder")
    params = init(config, jax.random.key(0))
    assert set(params) == {"pretrained"}
    assert "tap3" in stages(config, params, images(1, 28, 28))
    with pytest.raises(ValueError, match="no depth head"):
        apply(config, params, images(1, 28, 28))


def test_bfloat16_computes_near_float32(params):
    x = images(1, 42, 56)
    exact = stages(TINY, params, x)
    fast = stages(TINY, params, x, jnp.bfloat16)
    assert fast["block10"].dtype == jnp.bfloat16
    assert fast["depth"].dtype == jnp.float32
    for name in ("block10", "output_conv1"):
        difference = np.linalg.norm(np.float32(fast[name]) - exact[name]) / np.linalg.norm(exact[name])
        assert 1e-4 < difference < 0.05, name  # 8 bits of mantissa through 11 blocks, and not float32 in disguise


def test_initialization_is_that_of_dinov2(params):
    encoder = params["pretrained"]
    block = encoder["blocks"]["7"]
    assert np.std(block["attn"]["qkv"]["kernel"]) == pytest.approx(0.02, rel=0.05)
    assert np.std(encoder["pos_embed"]) == pytest.approx(0.02, rel=0.05)
    assert np.abs(encoder["cls_token"]).max() < 1e-5
    assert not np.any(block["mlp"]["fc1"]["bias"])
    assert np.all(block["ls1"]["gamma"] == 1)
    kernel = params["depth_head"]["scratch"]["output_conv1"]["kernel"]
    bound = (9 * 16) ** -0.5  # PyTorch's default for a convolution
    assert 0.95 * bound < np.abs(kernel).max() <= bound
    other = init(TINY, jax.random.key(1))
    assert not np.array_equal(other["pretrained"]["pos_embed"], encoder["pos_embed"])


def test_config_round_trip_and_refusals():
    config = PRESETS["large"].with_taps("v1").replace(kind="metric", max_depth=80.0)
    assert config.taps == (20, 21, 22, 23)
    assert ModelConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert PRESETS["giant"].hidden == 4096
    with pytest.raises(ValueError, match="max_depth belongs to metric models"):
        config.replace(kind="relative")
    with pytest.raises(ValueError, match="positive number of metres"):
        config.replace(max_depth=-1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": "x"}, "sizes must be whole numbers"),
        ({"depth": 10**9}, "sizes must be whole numbers"),
        ({"heads": 7}, "does not divide into 7 heads"),
        ({"taps": (2, 5, 8, 50)}, "not all among the blocks 0 to 11"),
        ({"taps": (-1, 5, 8, 11)}, "not all among the blocks"),
        ({"taps": (2, 5)}, "four taps"),
        ({"out_channels": (1, 2)}, "four taps"),
        ({"kind": "stereo"}, "kind 'stereo'"),
        ({"ffn": "relu"}, "ffn 'relu'"),
        ({"kind": "metric", "max_depth": "20"}, "positive number of metres"),
    ],
)
def test_impossible_configs(changes, message):
    with pytest.raises(ValueError, match=message):
        PRESETS["small"].replace(**changes)
