"""Our folder: whole or not there, refused when damaged, and never code."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import PRESETS
from dav2_jax.model.depth_anything import abstract_params
from dav2_jax.weights import checkpoint
from dav2_jax.weights.checkpoint import Header

TINY = PRESETS["small"].replace(
    encoder="tiny", width=16, depth=11, heads=1, features=8, out_channels=(4, 4, 4, 4), taps=(1, 4, 9, 10)
)
HEADER = Header(TINY.replace(kind="metric", max_depth=20.0), "Apache-2.0", {"source": "x.pth", "sha256": "0"})


def params(dtype=np.float32):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(dtype), abstract_params(TINY))


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path / "tiny.ckpt", HEADER, params())
    return tmp_path / "tiny.ckpt"


def test_round_trip(folder):
    assert checkpoint.is_checkpoint(folder)
    assert checkpoint.load_header(folder) == HEADER
    loaded = checkpoint.load_params(folder, HEADER.model)
    jax.tree.map(np.testing.assert_array_equal, loaded, params())
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load_arrays(folder, HEADER.model), params())
    half = checkpoint.load_params(folder, HEADER.model, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_floats_are_stored_as_such(tmp_path, dtype):
    checkpoint.save(tmp_path / "x", HEADER, params(dtype))
    loaded = checkpoint.load_arrays(tmp_path / "x", HEADER.model)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, loaded, params(dtype))
    wide = checkpoint.load_params(tmp_path / "x", HEADER.model, jnp.float32)
    assert wide["pretrained"]["norm"]["scale"].dtype == jnp.float32


def test_a_failed_save_leaves_nothing(tmp_path):
    broken = params()
    broken["pretrained"]["norm"]["scale"] = object()
    with pytest.raises(AttributeError, match="nbytes"):
        checkpoint.save(tmp_path / "x", HEADER, broken)
    assert not list(tmp_path.iterdir())


def test_a_failed_overwrite_keeps_the_old(folder):
    broken = params()
    broken["pretrained"]["norm"]["scale"] = object()
    with pytest.raises(AttributeError, match="nbytes"):
        checkpoint.save(folder, HEADER, broken, overwrite=True)
    assert checkpoint.load_header(folder) == HEADER
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    with pytest.raises(Dav2Error, match="exists: choose another name, or pass --overwrite"):
        checkpoint.save(folder, HEADER, params())


def test_all_that_does_not_fit_is_listed(folder):
    wider = TINY.replace(features=12, depth=12)
    with pytest.raises(Dav2Error) as error:
        checkpoint.load_params(folder, wider)
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
        checkpoint.load_header(folder)


def test_damaged_weights(folder):
    data = max((folder / "params").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
    whole = data.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (whole[:1000], bytes(flipped), None):
        data.unlink() if content is None else data.write_bytes(content)
        with pytest.raises(Dav2Error, match=r"params/.* is missing or damaged: copy the folder or"):
            checkpoint.load_params(folder, HEADER.model)
    data.write_bytes(whole)
    checkpoint.load_params(folder, HEADER.model)


def test_without_its_list_of_files_a_damaged_folder_is_still_one_line(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"files": {}}))
    shutil.rmtree(folder / "params")
    with pytest.raises(Dav2Error, match="the weights cannot be read") as error:
        checkpoint.load_params(folder, HEADER.model)
    assert "\n" not in str(error.value)


def test_only_our_own_folders_are_replaced(folder, monkeypatch):
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(Dav2Error, match=r"is a folder of something else \(it holds thesis\.txt\)"):
        checkpoint.save(folder, HEADER, params(), overwrite=True)
    assert (folder / "thesis.txt").read_text() == "precious"
    (folder / "thesis.txt").unlink()
    monkeypatch.chdir(folder)
    with pytest.raises(Dav2Error, match="is the working directory"):
        checkpoint.save(Path(), HEADER, params(), overwrite=True)
    monkeypatch.chdir(folder.parent)
    checkpoint.save(folder, HEADER, params(), overwrite=True)
    (folder.parent / "file").write_text("x")
    with pytest.raises(Dav2Error, match="is a file, and this is to be a folder"):
        checkpoint.save(folder.parent / "file", HEADER, params(), overwrite=True)


def test_replacing_a_link_leaves_what_it_points_to(folder):
    link = folder.parent / "link.ckpt"
    link.symlink_to(folder)
    checkpoint.save(link, HEADER, params(np.float16), overwrite=True)
    assert not link.is_symlink()
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.load_arrays(link, HEADER.model))} == {np.dtype("f2")}
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.load_arrays(folder, HEADER.model))} == {np.dtype("f4")}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["link.ckpt", "tiny.ckpt"]


def test_a_full_disk_and_a_bad_place_are_one_line(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(Dav2Error, match=r"x: no space left: .* MB are needed"):
        checkpoint.save(tmp_path / "x", HEADER, params())
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(Dav2Error, match=r"file/x: cannot be written \(.*\): choose another place"):
        checkpoint.save(tmp_path / "file" / "x", HEADER, params())


def test_flatten_and_unflatten():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert checkpoint.flatten(tree) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert checkpoint.unflatten(checkpoint.flatten(tree)) == tree
