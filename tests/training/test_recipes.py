"""Every recipe of `configs/` at its real entrance: two steps on a tiny stand-in for exactly the weights it names."""

import json

import numpy as np
import pytest

import dav2_jax as dav2
from dav2_jax.cli import main as cli
from dav2_jax.model.config import PRESETS
from dav2_jax.training import recipe as recipes
from dav2_jax.weights.hub import RELEASES
from dav2_jax.weights.load import load_weights

SOURCE = "procedural?count=4&height=42&width=42"


@pytest.fixture(scope="module")
def stand_in(tiny_hf):
    """stand_in("dinov2-giant") -> a folder of tiny weights of the same kind and feed-forward."""
    made = {}

    def make(name: str):
        release = RELEASES[name]
        key = release.kind, PRESETS[release.encoder].ffn
        if key not in made:
            made[key] = tiny_hf(release.kind, swiglu=key[1] == "swiglu")
        return made[key]

    return make


def train(recipe: str, out, *more: str) -> int:
    line = ["train", recipe, "--train", SOURCE, "--validate", "--size", "28", "--steps", "2", "--warmup", "0"]
    return cli.main([*line, "--batch-size", "2", "--devices", "1", "--out", str(out), *map(str, more)])


@pytest.mark.parametrize("name", recipes.names())
def test_two_steps(name, stand_in, tmp_path, photo):
    recipe = recipes.load(name)
    weights = ["--encoder", "custom", "--weights", stand_in(recipe.weights)] if recipe.weights in RELEASES else []
    if recipe.weights and not weights:  # an earlier run of nano
        weights = ["--weights", "nano"]
    sizes = ["--width", "28", "--heights", "28", "14"] if recipe.heights else []
    assert train(name, tmp_path / "run", *weights, *sizes) == 0
    reports = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([report["loss"] for report in reports if report["group"] == "train"]).all()
    model = dav2.load(tmp_path / "run")
    assert (model.config.kind, model.config.max_depth) == (recipe.kind, recipe.max_depth)
    assert np.isfinite(model.predict(photo, input_size=28)).all()
    if recipe.weights and recipe.head == "fresh":  # the encoder is that of the weights, moved by two small steps
        name = "pretrained.blocks.0.attn.qkv.kernel"
        before, after = (np.asarray(load_weights(path).flat[name]) for path in (weights[3], tmp_path / "run"))
        assert 0 < np.abs(after - before).max() < 1e-3


def test_a_frozen_encoder_to_stay_close_to(stand_in, tmp_path):
    small, features = stand_in("small"), stand_in("dinov2-small")
    more = ["--encoder", "custom", "--weights", small, "--features", features, "--feature-weight", "0.1"]
    assert train("own_data", tmp_path / "run", *more) == 0
    (report,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert report["features"] > 0  # a random DINOv2 beside another random encoder
    assert "frozen" not in load_weights(tmp_path / "run").params


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("own_data", ("dinov2-small",), "is an encoder without a head: train a new one with"),
        ("metric_hypersim", ("small", "--head", "keep"), "is a relative model and the recipe says"),
        ("own_data", ("small", "--encoder", "small"), "is a custom model, and the recipe says"),
    ],
)
def test_weights_that_do_not_fit(name, more, message, stand_in, tmp_path, capsys):
    weights, *more = more
    assert train(name, tmp_path / "run", "--encoder", "custom", "--weights", stand_in(weights), *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
