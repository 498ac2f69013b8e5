"""The training step: the same on any mesh, exact in parts, and careful with what it is given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seeded import flatten

from dav2_jax import sharding
from dav2_jax.errors import Dav2Error
from dav2_jax.model import depth_anything
from dav2_jax.model.config import PRESETS, ModelConfig
from dav2_jax.training.optimizer import OptimizerConfig, make_optimizer
from dav2_jax.training.step import abstract_state, averaged, init_state, make_step

MINI = ModelConfig("mini", 16, 2, 2, "mlp", 16, (8, 8, 16, 16), (0, 0, 1, 1), kind="metric", max_depth=20)
ADAMW = OptimizerConfig(steps=10, encoder_lr=1e-3)


def silog(prediction, batch):
    """Not a mean over images: parts of a batch cannot be averaged."""
    g = jnp.log(batch["depth"]) - jnp.log(prediction)
    return jnp.sqrt((g**2).mean() - 0.5 * g.mean() ** 2), {"deepest": prediction.max()}


def batch(seed=0, size=8):
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((size, 28, 28, 3), dtype=np.float32)
    return {"image": image, "depth": rng.uniform(1, 20, (size, 28, 28)).astype(np.float32)}


def setup(devices=1, fsdp=1, adamw=ADAMW, **options):
    optimizer = make_optimizer(adamw, MINI)
    mesh = sharding.make_mesh(jax.devices()[:devices], fsdp)
    state = init_state(MINI, optimizer, mesh, jax.random.key(0))
    return state, make_step(silog, MINI, optimizer, mesh, **options)


def host(tree):
    return jax.tree.map(np.array, tree)


def run(*arguments, **options):
    """The state before and after two steps, and the metrics of each; the step itself."""
    state, step = setup(*arguments, **options)
    before, metrics = host(state), []
    for seed in range(2):
        state, more = step(state, batch(seed))
        metrics.append(host(more))
    return before, host(state), metrics, step


@pytest.fixture(scope="module")
def alone():
    """On one device."""
    return run()


def assert_same_run(alone, state, metrics):
    """Sums over a batch are added up in another order: 1e-6 of a gradient. Where a gradient is as small as that, Adam
    divides by it: 1e-3 of a step's length, and of the two steps 1e-3 relative to how far the parameter went."""
    before, after, expected, _ = alone
    for ours, theirs in zip(metrics, expected, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
        np.testing.assert_allclose(ours["grad_norm"], theirs["grad_norm"], rtol=1e-4)
    start, theirs, ours = (flatten(s.params) for s in (before, after, state))
    difference = np.sqrt(sum(np.linalg.norm(ours[name] - theirs[name]) ** 2 for name in start))
    moved = np.sqrt(sum(np.linalg.norm(theirs[name] - start[name]) ** 2 for name in start))
    assert difference < 1e-3 * moved


@pytest.mark.parametrize("fsdp", [1, 4])
def test_any_mesh_gives_the_same_run(alone, fsdp):
    state, step = setup(8, fsdp)
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(host(state)), jax.tree.leaves(alone[0]), strict=True)
    )
    metrics = []
    for seed in range(2):
        state, more = step(state, batch(seed))
        metrics.append(host(more))
    assert_same_run(alone, state, metrics)

    def on_one(tree):
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))

    for part in (
        state.params,
        state.opt_state,
    ):  # after a step, as before: a share of all but vectors and small kernels
        split = sum(leaf.nbytes for leaf in jax.tree.leaves(part) if leaf.ndim > 1)
        whole = sum(leaf.nbytes for leaf in jax.tree.leaves(part)) - split
        assert split / fsdp <= on_one(part) <= split / fsdp + 1.05 * whole + 2000


def test_muon_gives_the_same_run_on_any_mesh():
    """Its matrices are whole when they are made orthogonal, wherever their parts lie."""
    muon = dataclasses.replace(ADAMW, matrices="muon")
    _, after, metrics, _ = run(8, 4, adamw=muon)
    assert_same_run(run(adamw=muon), after, metrics)


def test_parts_give_the_gradient_of_the_whole_batch(alone):
    state, step = setup(2, accumulation=2)
    metrics = []
    for seed in range(2):
        state, more = step(state, batch(seed))
        metrics.append(host(more))
    assert_same_run(alone, state, metrics)
    with pytest.raises(Dav2Error, match="same multiple of 2 devices x 2 parts"):
        step(state, batch(size=6))


def test_metrics_and_donation(alone):
    before, after, metrics, step = alone
    assert metrics[0].keys() == {"loss", "grad_norm", "lr", "finite", "deepest"}
    assert metrics[0]["lr"] == np.float32(1e-3)
    assert metrics[0]["finite"]
    assert after.step == 2
    state = jax.device_put(before, jax.devices()[0])
    new, _ = step(state, batch())
    assert state.params["pretrained"]["pos_embed"].is_deleted()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.opt_state))
    assert not new.params["pretrained"]["pos_embed"].is_deleted()


@pytest.mark.parametrize("what", ["image", "depth"])
def test_what_is_not_finite_touches_nothing_and_is_reported(alone, what):
    before, _, _, step = alone
    bad = batch()
    bad[what][3, 5, 5] = np.nan
    state, metrics = step(jax.device_put(before, jax.devices()[0]), bad)
    assert not metrics["finite"]
    assert not np.isfinite(metrics["loss"])
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(before), strict=True))


def test_frozen_blocks_average_and_augmentation():
    calls = []

    def augment(batch):
        calls.append(batch)
        return batch | {"depth": batch["depth"] * batch["factor"][:, None, None]}

    def scaled(factor):
        return batch() | {"factor": np.full(8, factor, np.float32)}

    def average(old, new):
        return 0.75 * old + 0.25 * new

    state, step = setup(adamw=dataclasses.replace(ADAMW, freeze=1, ema=0.75), augment=augment)
    start = host(state)
    state, metrics = step(state, scaled(1.0))
    first = host(state)
    second, again = step(state, scaled(0.5))
    assert len(calls) == 1  # traced once
    for name, before in flatten(start.params).items():
        still = name.startswith(("pretrained.blocks.0.", "pretrained.patch", "pretrained.pos", "pretrained.cls"))
        if still or "mask_token" in name or "refinenet4.resConfUnit1" in name:
            assert flatten(second.params)[name].tobytes() == before.tobytes()
            assert flatten(second.ema)[name] is None
        else:
            after = flatten(first.params)[name]
            assert np.abs(after - before).max() > 0, name
            expected = average(average(before, after), flatten(second.params)[name])
            np.testing.assert_allclose(flatten(second.ema)[name], expected, rtol=1e-5, atol=1e-7)
            np.testing.assert_array_equal(flatten(averaged(second))[name], flatten(second.ema)[name])
    assert jax.tree.structure(averaged(second)) == jax.tree.structure(start.params)
    losses = [metrics["loss"], again["loss"]]
    assert abs(losses[0] - losses[1]) > 1e-3  # of other depths

    resumed, repeated = step(jax.device_put(first, jax.devices()[0]), scaled(0.5))
    assert repeated["loss"] == again["loss"]
    assert resumed.step == 2


def test_given_parameters_are_copied_and_a_missing_head_is_drawn():
    optimizer = make_optimizer(ADAMW, MINI)
    mesh = sharding.make_mesh(jax.devices()[:2], 2)
    given = host(depth_anything.init(MINI, jax.random.key(5)))
    state = init_state(MINI, optimizer, mesh, jax.random.key(0), {"pretrained": given["pretrained"]})
    head = depth_anything.init_head(MINI, jax.random.key(0))
    for part, expected in (("pretrained", given["pretrained"]), ("depth_head", head)):
        for name, array in flatten(expected).items():
            np.testing.assert_array_equal(flatten(state.params[part])[name], array, err_msg=name)
    with pytest.raises(Dav2Error, match="not those of a mini metric model"):
        init_state(MINI, optimizer, mesh, jax.random.key(0), {"pretrained": {}})


@pytest.mark.parametrize("config", [*PRESETS.values(), PRESETS["large"].replace(kind="metric", max_depth=80.0)])
def test_one_rule_for_every_parameter(config):
    for version in ("v1", "v2"):
        params = flatten(depth_anything.abstract_params(config.with_taps(version)))
        specs = {name: sharding.parameter_spec(name, leaf.shape, 2) for name, leaf in params.items()}  # ValueError else
    split = sum(params[name].size for name, spec in specs.items() if any(spec))
    assert split > 0.99 * sum(leaf.size for leaf in params.values())
    with pytest.raises(ValueError, match="0 rules"):
        sharding.parameter_spec("pretrained.unheard_of", (2, 2), 2)


def test_the_state_lies_as_its_parameters():
    optimizer = make_optimizer(OptimizerConfig(steps=1, ema=0.9), MINI)
    lie = sharding.state_sharding(sharding.make_mesh(jax.devices(), 4), abstract_state(MINI, optimizer))
    adam = next(part for part in lie.opt_state if hasattr(part, "mu"))
    kernel = lie.params["pretrained"]["blocks"]["1"]["mlp"]["fc1"]["kernel"]
    assert tuple(kernel.spec) == (None, "fsdp")
    for tree in (adam.mu, adam.nu, lie.ema):
        assert tree["pretrained"]["blocks"]["1"]["mlp"]["fc1"]["kernel"] == kernel
    assert tuple(adam.count.spec) == tuple(lie.step.spec) == ()
