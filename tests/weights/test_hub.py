"""Released names, and `load`. The network is out of reach here, which is a case to handle well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dav2_jax as dav2
from dav2_jax.convert.recognize import said_by_file_name
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error
from dav2_jax.weights import checkpoint, hub
from dav2_jax.weights.load import resolve


def test_every_release_is_there():
    sizes = ("small", "base", "large")
    names = {
        f"{kind}{size}{hf}"
        for size in sizes
        for kind in ("", "metric-indoor-", "metric-outdoor-", "v1-")
        for hf in ("", "-hf")
    }
    assert set(hub.RELEASES) == names | {f"dinov2-{size}" for size in (*sizes, "giant")}
    for name, release in hub.RELEASES.items():
        assert name in hub.table()
        file = release.files[0].rpartition("/")[2].removesuffix(".pth")
        if file != "model.safetensors":  # the table and the file's own name agree
            told = said_by_file_name(file)
            assert (told.kind, told.max_depth, told.taps) == (release.kind, release.max_depth, release.taps)


def test_licenses():
    assert hub.RELEASES["small"].license == "Apache-2.0"
    for name in ("base", "large", "metric-indoor-large", "base-hf"):
        assert hub.RELEASES[name].license == "CC-BY-NC-4.0"
    assert {release.license for name, release in hub.RELEASES.items() if name.startswith(("v1", "dinov2"))} == {
        "Apache-2.0"
    }


def test_no_network_is_one_line(tmp_path):
    """In a process of its own, with the network really asked for (here: an address where nobody listens)."""
    environment = os.environ | {
        "HF_HOME": str(tmp_path),
        "DAV2_CACHE": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    environment.pop("HF_HUB_OFFLINE")
    command = [sys.executable, "-m", "dav2_jax", "convert", "small", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("dav2: error: small: cannot download depth_anything_v2_vits.pth of depth-anything/")
    assert "pass its path here in place of 'small'" in line


def test_offline_mode_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path))
    with pytest.raises(Dav2Error, match=r"metric-indoor-base: cannot download .*Hypersim"):
        hub.fetch("metric-indoor-base")


def test_download_once_convert_once(monkeypatch, tmp_path, small_pth, capsys):
    """With the file in huggingface_hub's own cache, laid out as a download leaves it."""
    repo = tmp_path / "hf" / "hub" / "models--depth-anything--Depth-Anything-V2-Small"
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc" / small_pth.name).symlink_to(small_pth)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path / "cache"))

    path = resolve("small")
    assert path == tmp_path / "cache" / "small.ckpt"
    weights = checkpoint.load(path)
    assert weights.provenance["source"] == "depth-anything/Depth-Anything-V2-Small/depth_anything_v2_vits.pth"
    assert weights.license == "Apache-2.0"
    assert "converting once" in capsys.readouterr().err

    (repo / "snapshots" / "abc" / small_pth.name).unlink()
    assert resolve("small") == path
    model = dav2.load("small")
    dav2.load("small")
    assert model.license == "Apache-2.0"
    assert capsys.readouterr().err.count("small: license of the weights: Apache-2.0") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal", r"'smal': neither a file nor a released model \(did you mean small"),
        ("", "'': neither a file nor a released model: `dav2 models` lists"),
        (None, "a NoneType is no model"),
        ("giant", "never released"),
        ("weights/none.pth", "no such file or folder"),
        ("untrained-tiny", "the untrained models are untrained-small"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(Dav2Error, match=message):
        dav2.load(name)


def test_a_folder_does_not_hide_a_release(monkeypatch, tmp_path):
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Dav2Error, match="small: cannot download"):
        resolve("small")
    assert resolve("./small").is_dir()


def test_a_folder_does_not_hide_the_model_that_comes_along_but_a_checkpoint_does(monkeypatch, tmp_path, tiny):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    assert resolve("nano").parent.name == "assets"
    (tmp_path / "nano").rmdir()
    checkpoint.save(tmp_path / "nano", Weights(tiny.config, tiny.params, "MIT"))
    assert resolve("nano") == Path("nano")


def test_untrained_models_take_the_flags():
    model = dav2.load("untrained-nano", max_depth=20.0, dtype="bfloat16")
    assert (model.config.kind, model.config.max_depth, model.dtype) == ("metric", 20.0, "bfloat16")


def test_computation_is_in_float32_or_bfloat16():
    with pytest.raises(Dav2Error, match="dtype='float16'"):
        dav2.load("small", dtype="float16")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("LARGE", "large"),
        ("vits", "small"),
        ("dinov2_vitg14", "dinov2-giant"),
        ("depth-anything/Depth-Anything-V2-Small-hf", "small-hf"),
        ("depth-anything/Depth-Anything-V2-Metric-VKITTI-Large", "metric-outdoor-large"),
        ("facebook/dinov2-base", "dinov2-base"),
        ("somebody/Depth-Anything-V2-Small-hf", None),
    ],
)
def test_names_that_mean_a_release(word, name):
    assert hub.known_name(word) == name
