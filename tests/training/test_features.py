"""Training beside a frozen encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav2_jax import sharding
from dav2_jax.errors import Dav2Error
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig
from dav2_jax.training import features
from dav2_jax.training.losses import feature_alignment
from dav2_jax.training.optimizer import OptimizerConfig, make_optimizer
from dav2_jax.training.step import averaged, init_state, make_step

MINI = ModelConfig("mini", 16, 2, 2, "mlp", 16, (8, 8, 16, 16), (0, 0, 1, 1), kind="metric", max_depth=20)
OPTIMIZER = make_optimizer(OptimizerConfig(steps=20, encoder_lr=1e-2, schedule="constant", ema=0.5), MINI)
PARAMS = depth_anything.init(MINI, jax.random.key(0))
OTHER = depth_anything.init(MINI, jax.random.key(1))["pretrained"]
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((8, 28, 42, 3), np.float32))


def no_depth(prediction, batch):
    return 0 * prediction.mean(), {"far": prediction.max()}


def begin(devices=1, fsdp=1, params=None):
    params = jax.tree.map(np.asarray, features.beside(PARAMS, OTHER) if params is None else params)
    mesh = sharding.make_mesh(jax.devices()[:devices], fsdp)
    return init_state(MINI, OPTIMIZER, mesh, jax.random.key(0), params, frozen_encoder=True), mesh


def stepper(mesh, **options):
    return make_step(features.aligned(no_depth, 0.5), MINI, OPTIMIZER, mesh, frozen_encoder=True, **options)


@pytest.fixture(scope="module")
def step():
    return stepper(sharding.make_mesh(jax.devices()[:1]))


def host(tree):
    return jax.tree.map(np.array, tree)


@pytest.fixture(scope="module")
def given():
    return jax.jit(lambda params: features.apply(MINI, params, IMAGES))(features.beside(PARAMS, OTHER))


def test_both_encoders_see_the_same_images(given):
    run = jax.jit(lambda params: depth_anything.stages(MINI, params, IMAGES))
    stages, theirs = run(PARAMS), run(PARAMS | {"pretrained": OTHER})
    assert given["features"].shape == given["frozen"].shape == (8, 2 * 3, 16)
    np.testing.assert_allclose(given["depth"], stages["depth"], rtol=1e-5)
    np.testing.assert_allclose(given["features"], stages["tap3"].reshape(8, 6, 16), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(given["frozen"], theirs["tap3"].reshape(8, 6, 16), rtol=1e-4, atol=1e-5)


def test_features_are_drawn_to_those_of_the_frozen_encoder_which_stays(given, step):
    state, _ = begin()
    losses = []
    for _ in range(20):
        state, metrics = step(state, {"image": IMAGES})
        losses.append(float(metrics["features"]))
        assert metrics["loss"] == pytest.approx(losses[-1] / 2, rel=1e-6)
    assert losses[0] == pytest.approx(float(feature_alignment(given["features"], given["frozen"])), rel=1e-4)
    assert losses[-1] < 0.5 * losses[0]
    jax.tree.map(np.testing.assert_array_equal, host(state.params[features.FROZEN]["pretrained"]), host(OTHER))
    trained = averaged(state)
    assert trained.keys() == PARAMS.keys()
    assert not np.array_equal(trained["pretrained"]["norm"]["bias"], PARAMS["pretrained"]["norm"]["bias"])


def test_the_optimizer_and_the_average_hold_nothing_of_it():
    state, _ = begin()
    kept = jax.tree_util.tree_leaves_with_path((state.opt_state, state.ema))
    names = [sharding.parameter_name(path) for path, _ in kept]
    assert any(name.startswith("pretrained.") for name in names)
    assert not any(name.startswith("frozen") for name in names)


def test_by_default_the_frozen_one_is_the_encoder_that_training_begins_with(step):
    state, _ = begin(params=PARAMS)
    _, metrics = step(state, {"image": IMAGES})
    assert metrics["features"] == metrics["grad_norm"] == 0  # all cosines are 1
    with pytest.raises(Dav2Error, match="no encoder to keep frozen: give weights"):
        begin(params={})


def test_any_mesh_and_any_parts_give_the_same_loss(step):
    (alone, _), (split, mesh) = begin(), begin(devices=4, fsdp=2)
    other = stepper(mesh, accumulation=2)
    for _ in range(2):
        alone, ours = step(alone, {"image": IMAGES})
        split, theirs = other(split, {"image": IMAGES})
        for name in ("features", "grad_norm"):
            assert theirs[name] == pytest.approx(float(ours[name]), rel=1e-4)
