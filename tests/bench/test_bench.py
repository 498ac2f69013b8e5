"""`dav2 bench`: timings of a tiny model on the devices that there are, and estimates for TPUs that there are not."""

import json

import jax
import numpy as np
import pytest

from dav2_jax import sharding
from dav2_jax.bench import aot, hlo
from dav2_jax.bench import run as bench
from dav2_jax.errors import Dav2Error
from dav2_jax.model import depth_anything
from dav2_jax.model.config import PRESETS, ModelConfig
from dav2_jax.model.flops import model_flops

TINY = ModelConfig("tiny", 48, 4, 3, "mlp", 16, (8, 16, 24, 32), (0, 1, 2, 3))
ALIGNED = ModelConfig("tiny", 128, 2, 2, "mlp", 32, (16, 16, 32, 32), (0, 0, 1, 1))  # of sizes that the kernels take


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", TINY)


def test_timings(tiny, capsys, tmp_path):
    file = tmp_path / "bench.json"
    bench.run(["small"], [1, 2], input_size=30, runs=3, file=str(file))
    shown = capsys.readouterr().out.splitlines()
    assert "float32, 28 x 28 pixels, median and minimum of 3 runs" in shown[0]
    assert [line.split()[:2] for line in shown[3:]] == [["tiny", "1"], ["tiny", "2"]]
    report = json.loads(file.read_text())
    assert report["kind"] == "measured"
    for row, batch in zip(report["rows"], (1, 2), strict=True):
        assert (row["batch"], row["devices"], row["size"]) == (batch, 8, 28)
        assert 0 < row["min_ms"] <= row["median_ms"]
        assert row["images_per_second"] == pytest.approx(8 * batch / row["median_ms"] * 1e3)
        assert row["tflops"] == pytest.approx(model_flops(TINY, 28, 28) * batch / row["median_ms"] / 1e9)
        assert row["ceiling_share"] == pytest.approx(row["tflops"] / report["matmul_tflops"])


def test_json_in_place_of_the_table(tiny, capsys):
    bench.run(["small"], [1], input_size=28, dtype="bfloat16", runs=1, file="-")
    assert json.loads(capsys.readouterr().out)["rows"][0]["dtype"] == "bfloat16"


def test_what_is_timed_is_the_model():
    params = depth_anything.init(TINY, jax.random.key(0))
    images = np.random.default_rng(0).standard_normal((8, 28, 42, 3), np.float32)
    ours = aot.forward(TINY, sharding.make_mesh(jax.devices()), "float32")(params, images)
    np.testing.assert_allclose(ours, depth_anything.apply(TINY, params, images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": [1, 0]}, "batch sizes and runs must be 1 or more, not 0"),
        ({"runs": 0}, "batch sizes and runs must be 1 or more, not 0"),
        ({"input_size": 5}, "input_size"),
        ({"targets": ["v5e", "v9"]}, "v9: no such TPU: name one of v5e, v5p, v6e, "),
        ({"targets": ["v5e-0"]}, "v5e-0: v5e comes in slices of 1, 4, 8, "),
        ({"targets": ["v5p-3"]}, "v5p-3: v5p comes in slices of 1, 4, 8, "),
    ],
)
def test_refusals(options, message):
    with pytest.raises(Dav2Error, match=message):
        bench.run(["small"], **{"batches": [1]} | options)


def test_targets():
    assert [aot.parse_target(target) for target in ("v5e", "v5p-8", "v6e-256")] == [
        ("v5e", 1),
        ("v5p", 8),
        ("v6e", 256),
    ]


def test_without_libtpu(monkeypatch):
    from jax.experimental import topologies

    def missing(**_):
        raise RuntimeError("JAX TPU support not installed")

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    with pytest.raises(Dav2Error, match=r"^no TPU compiler \(JAX TPU support not installed\): pip install libtpu"):
        aot.estimate(TINY, "v5e", height=28, width=28)


def test_estimates(monkeypatch, capsys, tmp_path):
    """Compiled for eight chips: both kernels, and nothing between the chips."""
    monkeypatch.setitem(PRESETS, "small", ALIGNED)
    texts = []
    traffic = hlo.traffic
    monkeypatch.setattr(hlo, "traffic", lambda text, stages: texts.append(text) or traffic(text, stages))
    file = tmp_path / "aot.json"
    bench.run(["small"], [2], input_size=70, dtype="bfloat16", targets=["v5e-8"], file=str(file))
    shown = capsys.readouterr().out
    assert shown.startswith("compiler estimates, not measurements: ")
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["chips"], row["batch"], row["collectives"], row["fits"]) == (8, 2, 0, True)
    assert row["model_flops"] == 2 * model_flops(ALIGNED, 70, 70)
    assert row["model_flops"] < row["flops"] < 1.3 * row["model_flops"]
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(depth_anything.abstract_params(ALIGNED)))
    assert row["hbm_peak"] > parameters
    assert sum(row["hbm_by_stage"].values()) == row["hbm_bytes"] > parameters
    chip = aot.SLICES["v5e"]
    assert row["roofline_seconds"] == max(row["flops"] / chip.flops, row["hbm_bytes"] / chip.bandwidth)
    assert row["bound"] == "memory"  # a tiny model: all weights for few operations
    kernels = [line for line in texts[0].splitlines() if "tpu_custom_call" in line]
    assert len([line for line in kernels if "%attention" in line]) == ALIGNED.depth
    assert len([line for line in kernels if "%resize_conv" in line]) == 2


def test_what_does_not_fit_is_a_row(monkeypatch, capsys):
    def too_large(config, target, **_):
        raise aot.DoesNotFit(f"{config.encoder}, {target}: needs 17G of 15G HBM")

    monkeypatch.setattr(aot, "estimate", too_large)
    bench.run(["giant"], [32], targets=["v5e", "v6e"], file="-")
    errors = [row["error"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert errors == [f"giant, {target}: needs 17G of 15G HBM" for target in ("v5e", "v6e")]


def test_a_report_without_a_folder_is_refused_before_the_time_is_spent(tmp_path):
    file = str(tmp_path / "none" / "x.json")
    with pytest.raises(Dav2Error, match=r"there is no folder .*none: make it first"):
        bench.run(["small"], [1], file=file)
    with pytest.raises(Dav2Error, match=r"there is no folder .*none: make it first"):
        bench.run_training("relative_teacher", ["v5e-64"], file=file)
