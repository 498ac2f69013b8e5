"""Our folder: whole or not there, refused when damaged, and never code."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dav2_jax.convert.stored_tensor import StoredTensor
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import PRESETS
from dav2_jax.model.depth_anything import abstract_params
from dav2_jax.weights import checkpoint

TINY = PRESETS["small"].replace(
    encoder="tiny", width=16, depth=11, heads=1, features=8, out_channels=(4, 4, 4, 4), taps=(1, 4, 9, 10)
)
METRIC = TINY.replace(kind="metric", max_depth=20.0)


def params(dtype=np.float32):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(dtype), abstract_params(TINY))


def weights(dtype=np.float32) -> Weights:
    return Weights(METRIC, params(dtype), "Apache-2.0", {"source": "x.pth", "sha256": "0"})


def broken() -> Weights:
    tree = params()

    def read():
        raise Dav2Error("x.pth: its content is damaged")

    tree["pretrained"]["norm"]["scale"] = StoredTensor((16,), np.dtype(np.float32), read)
    return Weights(METRIC, tree)


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path / "tiny.ckpt", weights())
    return tmp_path / "tiny.ckpt"


def test_round_trip(folder):
    assert checkpoint.is_checkpoint(folder)
    loaded, expected = checkpoint.load(folder), weights()
    assert loaded.replace(params={}) == expected.replace(params={})
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)
    half = loaded.arrays(jnp.bfloat16)
    assert {(type(leaf).__module__[:3], leaf.dtype) for leaf in jax.tree.leaves(half)} == {
        ("jax", jnp.dtype(jnp.bfloat16))
    }


def test_the_license_of_earlier_versions_is_read(folder):
    config = json.loads((folder / "config.json").read_text())
    config["licence"] = config.pop("license")
    (folder / "config.json").write_text(json.dumps(config))
    assert checkpoint.load(folder).license == "Apache-2.0"


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_floats_are_stored_as_such(tmp_path, dtype):
    checkpoint.save(tmp_path / "x", weights(dtype))
    loaded = checkpoint.load(tmp_path / "x")
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {np.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params(dtype))
    assert loaded.arrays()["pretrained"]["norm"]["scale"].dtype == jnp.float32


def test_a_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(Dav2Error, match=r"x\.pth: its content is damaged"):
        checkpoint.save(tmp_path / "x", broken())
    assert not list(tmp_path.iterdir())


def test_a_failed_overwrite_keeps_the_old(folder):
    with pytest.raises(Dav2Error, match=r"x\.pth: its content is damaged"):
        checkpoint.save(folder, broken(), overwrite=True)
    assert checkpoint.load(folder).license == "Apache-2.0"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    with pytest.raises(Dav2Error, match="exists: choose another name, or pass overwrite=True"):
        checkpoint.save(folder, weights())


def test_all_that_does_not_fit_is_listed(folder):
    config = json.loads((folder / "config.json").read_text())
    config["model"] |= {"features": 12, "depth": 12}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Dav2Error) as error:
        checkpoint.load(folder)
    text = str(error.value)
    assert "missing pretrained.blocks.11.norm1.scale" in text
    assert "depth_head.scratch.layer1_rn.kernel is (3, 3, 4, 8), not (3, 3, 4, 12)" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "dav2_jax checkpoint 99"}, "written in format 'dav2_jax checkpoint 99'"),
        ({"model": {"width": 3}}, r"config\.json is damaged"),
        ({"model": None}, r"config\.json is damaged"),
        ({"license": ...}, r"config\.json is damaged"),
    ],
)
def test_damaged_headers(folder, change, message):
    config = json.loads((folder / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Dav2Error, match=message):
        checkpoint.load(folder)


def test_damaged_weights(folder):
    data = max((folder / "params").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
    whole = data.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (whole[:1000], bytes(flipped), None):
        data.unlink() if content is None else data.write_bytes(content)
        with pytest.raises(Dav2Error, match=r"params/.* is missing or damaged: copy the folder or"):
            checkpoint.load(folder)
    data.write_bytes(whole)
    checkpoint.load(folder)


def test_without_its_list_of_files_a_damaged_folder_is_still_one_line(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"files": {}}))
    shutil.rmtree(folder / "params")
    with pytest.raises(Dav2Error, match="the weights cannot be read") as error:
        checkpoint.load(folder)
    assert "\n" not in str(error.value)


def test_only_our_own_folders_are_replaced(folder, monkeypatch):
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(Dav2Error, match=r"is a folder of something else \(it holds thesis\.txt\)"):
        checkpoint.save(folder, weights(), overwrite=True)
    assert (folder / "thesis.txt").read_text() == "precious"
    (folder / "thesis.txt").unlink()
    monkeypatch.chdir(folder)
    with pytest.raises(Dav2Error, match="is the working directory"):
        checkpoint.save(Path(), weights(), overwrite=True)
    monkeypatch.chdir(folder.parent)
    checkpoint.save(folder, weights(), overwrite=True)
    (folder.parent / "file").write_text("x")
    with pytest.raises(Dav2Error, match="is a file, and this is to be a folder"):
        checkpoint.save(folder.parent / "file", weights(), overwrite=True)


def test_replacing_a_link_leaves_what_it_points_to(folder):
    link = folder.parent / "link.ckpt"
    link.symlink_to(folder)
    checkpoint.save(link, weights(np.float16), overwrite=True)
    assert not link.is_symlink()
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.load(link).params)} == {np.dtype("f2")}
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.load(folder).params)} == {np.dtype("f4")}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["link.ckpt", "tiny.ckpt"]


def test_a_full_disk_and_a_bad_place_are_one_line(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(Dav2Error, match=r"x: no space left: .* MB are needed"):
        checkpoint.save(tmp_path / "x", weights())
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(Dav2Error, match=r"file/x: cannot be written \(.*\): choose another place"):
        checkpoint.save(tmp_path / "file" / "x", weights())
