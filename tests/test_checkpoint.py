"""Our folder: whole or not there, refused when damaged, and never code."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dav2_jax import checkpoint
from dav2_jax.checkpoint import Header
from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import PRESETS
from dav2_jax.model.depth_anything import abstract_params

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
    half = checkpoint.load_params(folder, HEADER.model, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


def test_bfloat16_is_stored_as_such(tmp_path):
    checkpoint.save(tmp_path / "x", HEADER, params(ml_dtypes.bfloat16))
    loaded = checkpoint.load_params(tmp_path / "x", HEADER.model)
    jax.tree.map(np.testing.assert_array_equal, loaded, params(ml_dtypes.bfloat16))
    wide = checkpoint.load_params(tmp_path / "x", HEADER.model, jnp.float32)
    assert wide["pretrained"]["norm"]["scale"].dtype == jnp.float32


def test_a_failed_save_leaves_nothing(tmp_path):
    broken = params()
    broken["pretrained"]["norm"]["scale"] = object()
    with pytest.raises(ValueError, match="object"):
        checkpoint.save(tmp_path / "x", HEADER, broken)
    assert not list(tmp_path.iterdir())


def test_a_failed_overwrite_keeps_the_old(folder):
    broken = params()
    broken["pretrained"]["norm"]["scale"] = object()
    with pytest.raises(ValueError, match="object"):
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
        ({"licence": ...}, r"config\.json is damaged"),
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
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(Dav2Error, match=r"params/.* is missing or not of its .* bytes: copy the folder again"):
        checkpoint.load_header(folder)
    data.unlink()
    with pytest.raises(Dav2Error, match=r"params/.* is missing"):
        checkpoint.load_header(folder)
    shutil.rmtree(folder / "params")
    with pytest.raises(Dav2Error, match="the weights cannot be read"):
        checkpoint.load_params(folder, HEADER.model)


def test_flatten_and_unflatten():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert checkpoint.flatten(tree) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert checkpoint.unflatten(checkpoint.flatten(tree)) == tree
