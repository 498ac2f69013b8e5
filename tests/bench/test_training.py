"""The training step compiled for a TPU slice that is not there: what its chips hold, and what they exchange."""

import json

import jax
import numpy as np
import pytest
from seeded import flatten

from dav2_jax import sharding
from dav2_jax.bench import aot
from dav2_jax.bench import run as bench
from dav2_jax.bench.training import check, enough_fsdp
from dav2_jax.errors import Dav2Error
from dav2_jax.model import depth_anything
from dav2_jax.model.config import PRESETS, ModelConfig
from dav2_jax.model.flops import model_flops
from dav2_jax.training.optimizer import OptimizerConfig, make_optimizer
from dav2_jax.training.step import abstract_state

TINY = ModelConfig("tiny", 64, 1, 1, "mlp", 8, (8, 8, 16, 16), (0, 0, 0, 0))  # 64: narrower arrays would be padded


def test_what_chips_hold_and_exchange(monkeypatch, capsys, tmp_path):
    """Copies: one sum of all gradients, in float32. Two chips a copy: kernels gathered once, in bfloat16, and nothing
    of the batch moves; gradients are added up where they belong."""
    monkeypatch.setitem(PRESETS, "small", TINY)
    rows = []
    for fsdp in (1, 2):
        file = tmp_path / f"{fsdp}.json"
        bench.run_training(
            "relative_teacher", ["v5e-4"], encoders=["small"], batches=[8], input_size=28, fsdp=fsdp, remat="none",
            file=str(file),
        )  # fmt: skip
        rows += json.loads(file.read_text())["rows"]
    assert capsys.readouterr().out.startswith("compiler estimates, not measurements: ")
    copies, split = rows
    params = flatten(depth_anything.abstract_params(TINY))
    trained = {name: leaf for name, leaf in params.items() if "mask_token" not in name}
    trained = {name: leaf for name, leaf in trained.items() if "refinenet4.resConfUnit1" not in name}
    parts = {name: leaf for name, leaf in trained.items() if any(sharding.parameter_spec(name, leaf.shape, 2))}
    vectors = sum(leaf.size for leaf in trained.values()) - sum(leaf.size for leaf in parts.values())

    def exchanged(row, kind, chips):
        return sum(one["bytes"] for one in row["collectives"] if (one["kind"], one["chips"]) == (kind, chips))

    sums = 400  # bytes of the loss, its parts and the norm
    gradients = 4 * sum(leaf.size for leaf in trained.values())
    assert {(one["kind"], one["chips"]) for one in copies["collectives"]} == {("all-reduce", 4)}
    assert gradients < exchanged(copies, "all-reduce", 4) < gradients + sums
    assert copies["link_bytes"] == 1.5 * exchanged(copies, "all-reduce", 4)

    kinds = {("all-gather", 2), ("reduce-scatter", 2), ("all-reduce", 2), ("all-reduce", 4)}
    assert {(one["kind"], one["chips"]) for one in split["collectives"]} == kinds
    gathered = sum(leaf.size * (2 if name.endswith("kernel") else 4) for name, leaf in parts.items())
    assert exchanged(split, "all-gather", 2) == gathered
    # All of it to a half on each chip, then that over the two copies. For small arrays the compiler takes an all-reduce
    # for the first too, and cuts the half out.
    whole = 4 * sum(leaf.size for leaf in parts.values())
    scattered = exchanged(split, "reduce-scatter", 2)
    assert 0.2 * whole < scattered <= whole
    assert 0 < scattered + exchanged(split, "all-reduce", 2) - whole - whole / 2 < sums
    assert 4 * vectors < exchanged(split, "all-reduce", 4) < 4 * vectors + sums

    for row in rows:
        assert row["model_flops"] == 3 * 2 * model_flops(TINY, 28, 28)  # two images a chip
        assert row["flops"] > row["model_flops"]
        assert row["fits"]
        assert row["hbm_peak"] == row["state_bytes"] + row["temporary_bytes"] + row["program_bytes"]
        assert row["seconds"]["links"] == row["link_bytes"] / aot.SLICES["v5e"].links
        assert row["seconds"][row["bound"]] == max(row["seconds"].values())
    state = 3 * 4 * sum(leaf.size for leaf in params.values())
    assert copies["state_bytes"] > state
    assert split["state_bytes"] < 0.8 * copies["state_bytes"]  # vectors, and the padding of narrow kernels, stay


@pytest.mark.parametrize(
    ("target", "batch", "fsdp", "message"),
    [
        (
            "v5e-256",
            64,
            None,
            "a batch of 64 does not divide among the 256 chips of v5e-256: take v5e-64, or a multiple",
        ),
        ("v5e-8", 12, 2, "take v5e-4, or a multiple of 8"),
        ("v5e-8", 16, 3, "fsdp=3: must divide the 8 chips of v5e-8"),
        ("v5e-8", 16, 0, "fsdp=0"),
    ],
)
def test_refusals(target, batch, fsdp, message):
    with pytest.raises(Dav2Error, match=message):
        check(batch, 1, target, fsdp)
    with pytest.raises(Dav2Error, match=message):
        bench.run_training("relative_teacher", [target], encoders=["small"], batches=[batch], fsdp=fsdp)


def test_what_does_not_fit_is_a_row(monkeypatch, capsys):
    def too_large(recipe, target, fsdp):
        raise aot.DoesNotFit(f"{target}, {recipe.encoder}: needs 17G of 15G HBM")

    monkeypatch.setattr("dav2_jax.bench.training.estimate_step", too_large)
    bench.run_training("relative_teacher", ["v5e-64"], file="-")
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row == {"target": "v5e-64", "encoder": "giant", "batch": 64, "error": "v5e-64, giant: needs 17G of 15G HBM"}


def test_the_state_takes_a_quarter_of_the_memory():
    config = PRESETS["giant"]
    state = abstract_state(config, make_optimizer(OptimizerConfig(steps=1), config))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    fsdp = enough_fsdp(state, "v5e-64")
    assert size / fsdp <= 4e9 < size / (fsdp / 2)
    assert (enough_fsdp(state, "v5p-64"), enough_fsdp(state, "v5e")) == (1, 1)


@pytest.mark.parametrize(("chip", "chips", "fsdp"), [("v6e", 256, 2), ("v5p", 128, 2), ("v5e", 256, 4)])
def test_chips_that_share_parameters_are_neighbors(chip, chips, fsdp):
    """Also where they are a part of one axis of the torus."""
    mesh = sharding.make_mesh(aot.devices(chip, chips), fsdp)
    assert mesh.devices.shape == (chips // fsdp, fsdp)
    for copy in mesh.devices:
        places = np.array([device.coords for device in copy])
        assert (np.abs(np.diff(places, axis=0)).sum(axis=1) == 1).all()
