"""The optimizer on its own: rates, groups, masks, clipping, by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seeded import flatten

from dav2_jax.errors import Dav2Error
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig
from dav2_jax.training.optimizer import OptimizerConfig, join, make_optimizer, make_schedule

TINY = ModelConfig("tiny", 16, 3, 2, "mlp", 8, (8, 8, 8, 8), (0, 0, 1, 2))
IDLE = {"pretrained.mask_token"} | {
    f"depth_head.scratch.refinenet4.resConfUnit1.conv{n}.{leaf}" for n in (1, 2) for leaf in ("kernel", "bias")
}


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), depth_anything.abstract_params(TINY))


def first_update(params, gradient=1.0, **options) -> dict[str, np.ndarray]:
    """By dotted name, of the trained parameters, for a gradient of one number everywhere."""
    optimizer = make_optimizer(OptimizerConfig(steps=10, encoder_lr=1e-3, **options), TINY)
    trained, _ = optimizer.split(params)
    gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, gradient), trained)
    updates, _ = jax.jit(optimizer.transform.update)(gradients, optimizer.transform.init(trained), trained)
    return {name: leaf for name, leaf in flatten(updates).items() if leaf is not None}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # The script sets the rate after its step, so its steps 0 and 1 both have all of it.
        ({"schedule": "poly"}, [1, 1, 0.75**0.9, 0.5**0.9]),
        ({"schedule": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"schedule": "cosine"}, [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(math.pi * 3 / 4)) / 2]),
        ({"schedule": "constant"}, [1, 1, 1, 1]),
        ({"schedule": "linear", "warmup": 2}, [1 / 3, 2 / 3, 1, 0.5]),
        ({"schedule": "poly", "warmup": 1}, [0.5, 1, 1, (2 / 3) ** 0.9]),
    ],
)
def test_schedules(options, expected):
    schedule = make_schedule(OptimizerConfig(steps=4, encoder_lr=2.0, **options))
    np.testing.assert_allclose([schedule(step) for step in range(4)], 2 * np.array(expected), rtol=1e-6)


def test_defaults_are_the_official_ones():
    config = OptimizerConfig(steps=1)
    assert (config.encoder_lr, config.head_factor, config.schedule, config.warmup) == (5e-6, 10, "poly", 0)
    assert (config.b1, config.b2, config.eps, config.weight_decay, config.decay) == (0.9, 0.999, 1e-8, 0.01, "all")
    assert (config.clip, config.freeze, config.ema) == (None, 0, None)


def test_the_head_learns_ten_times_as_fast_and_everything_decays(params):
    updates = first_update(params)
    assert updates.keys() == flatten(params).keys() - IDLE
    for name, update in updates.items():  # Adam's first step has length one; the decay is 0.01 x 0.5
        rate = 1e-2 if name.startswith("depth_head.") else 1e-3
        np.testing.assert_allclose(update, np.full(update.shape, -rate * 1.005), rtol=1e-5, err_msg=name)


def test_decay_of_matrices_alone(params):
    for name, update in first_update(params, decay="matrices", head_factor=1.0).items():
        length = 1.005 if name.endswith(".kernel") else 1
        np.testing.assert_allclose(update, np.full(update.shape, -1e-3 * length), rtol=1e-5, err_msg=name)


def test_clipping_is_of_the_global_norm(params):
    """With a large eps Adam's first step is proportional to the gradient."""
    options = {"eps": 1e6, "weight_decay": 0.0, "head_factor": 1.0}
    whole = first_update(params, 2.0, **options)
    norm = 2 * math.sqrt(sum(leaf.size for leaf in whole.values()))
    for limit, factor in ((norm / 4, 0.25), (norm * 4, 1)):
        clipped = first_update(params, 2.0, clip=limit, **options)
        for name in whole:
            np.testing.assert_allclose(clipped[name], factor * whole[name], rtol=1e-4)


def as_matrix(name: str, update: np.ndarray) -> np.ndarray:
    """From inputs to outputs. A transposed convolution writes all pixels of a place from the same inputs."""
    if "resize_layers.0" in name or "resize_layers.1" in name:
        update = update.transpose(2, 0, 1, 3).reshape(update.shape[2], -1)
    return update.reshape(-1, update.shape[-1])


def test_muon_takes_a_step_of_the_same_length_in_all_directions_of_a_matrix(params):
    """And everything that is not one inside the network takes Adam's."""
    rng = np.random.default_rng(0)
    options = {"matrices": "muon", "weight_decay": 0.0, "head_factor": 1.0}
    optimizer = make_optimizer(OptimizerConfig(steps=10, encoder_lr=1e-3, **options), TINY)
    trained, _ = optimizer.split(params)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), trained)
    updates, _ = jax.jit(optimizer.transform.update)(gradients, optimizer.transform.init(trained), trained)
    drawn, muon = flatten(gradients), []
    for name, update in flatten(updates).items():
        if update is None:
            continue
        inside = name.endswith("kernel") and name.startswith(("pretrained.blocks", "depth_head"))
        if not inside or update.shape[-1] == 1:
            np.testing.assert_allclose(update, -1e-3 * np.sign(drawn[name]), rtol=5e-3, err_msg=name)
            continue
        muon.append(name)
        update, gradient = (as_matrix(name, np.asarray(a)) for a in (update, drawn[name]))
        u, values, v = np.linalg.svd(gradient, full_matrices=False)
        steps = np.diag(u.T @ update @ v.T) / (-1e-3 * 0.2 * math.sqrt(max(update.shape)))
        known = values > values[0] / 100  # five iterations bring these near to 1, and not all the way
        assert (np.abs(steps[known] - 1) < 0.35).all(), (name, steps)
        np.testing.assert_allclose(np.sqrt(np.mean(update**2)), 0.2e-3, rtol=0.2, err_msg=name)
    assert len(muon) == 4 * TINY.depth + 4 + 3 + 4 + 4 + 14 + 2  # the last: units, and the output


@pytest.mark.parametrize("freeze", ["encoder", "positions", 2, 3])
def test_what_is_frozen_has_no_optimizer_state(params, freeze):
    before = ("patch_embed.", "cls_token", "pos_embed", *(f"blocks.{b}." for b in range(3 if freeze == 3 else 2)))
    named = {"encoder": ("pretrained.",), "positions": ("pretrained.pos_embed",)}
    expected = named.get(freeze, tuple(f"pretrained.{name}" for name in before))
    optimizer = make_optimizer(OptimizerConfig(steps=1, freeze=freeze), TINY)
    trained, frozen = optimizer.split(params)
    names = {name for name, leaf in flatten(trained).items() if leaf is not None}
    assert names == {name for name in flatten(params) if not name.startswith(expected)} - IDLE
    assert {name for name, leaf in flatten(frozen).items() if leaf is not None} == flatten(params).keys() - names
    state = jax.tree.leaves(optimizer.transform.init(trained))
    assert sum(leaf.size for leaf in state if leaf.ndim) == 2 * sum(leaf.size for leaf in jax.tree.leaves(trained))
    assert all(a is b for a, b in zip(jax.tree.leaves(join(trained, frozen)), jax.tree.leaves(params), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "cannot have steps 0"),
        ({"steps": 5, "warmup": 5, "ema": 1.0}, r"cannot have warmup 5, ema 1\.0"),
        ({"steps": 5, "clip": 0.0}, r"clip 0\.0"),
        ({"steps": 5, "schedule": "step"}, "schedule 'step'"),
        ({"steps": 5, "matrices": "sgd"}, "matrices 'sgd'"),
        ({"steps": 5, "encoder_lr": math.nan}, "encoder_lr nan"),
        ({"steps": 5, "freeze": 5}, "freeze 5: the tiny encoder has 3 blocks"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(Dav2Error, match=message):
        make_optimizer(OptimizerConfig(**options), TINY)
