"""Scenes through the public door: the same in any batch, order, number of devices and process; and what they hold."""

from __future__ import annotations

import pickle
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav2_jax import sharding
from dav2_jax.data.example import TAGS
from dav2_jax.data.readers import procedural
from dav2_jax.errors import Dav2Error

SIZE = {"height": 40, "width": 48}
SEED = 3


def host(batch) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in batch.items()}


@pytest.fixture(scope="module")
def eight() -> dict[str, np.ndarray]:
    """Scenes 0 to 7 of list 3."""
    return host(procedural.render(SEED, jnp.arange(8), **SIZE))


def same(left: dict, right: dict, where=slice(None)) -> None:
    for name, values in left.items():
        np.testing.assert_array_equal(values[where], right[name], err_msg=name)


def test_reversed_order_gives_the_same_scenes(eight):
    backwards = host(procedural.render(SEED, jnp.arange(8)[::-1], **SIZE))
    same(eight, backwards, slice(None, None, -1))
    assert not np.array_equal(eight["image"][0], eight["image"][1])
    other = host(procedural.render(SEED + 1, jnp.arange(8), **SIZE))  # the same program: the seed is traced
    assert all(not np.array_equal(a, b) for a, b in zip(eight["image"], other["image"], strict=True))


def test_the_source_counts_and_can_be_pickled():
    source = pickle.loads(pickle.dumps(procedural.source(count=6, seed=SEED, **SIZE)))
    assert len(source) == 6
    assert source.on_device
    with pytest.raises(IndexError):
        source[6]


def test_sharded_over_eight_devices_gives_the_same_scenes(eight):
    mesh = sharding.make_mesh(jax.devices())
    assert mesh.size == 8
    program = sharding.over_batch(partial(procedural.render, **SIZE), mesh)
    split = program(jnp.int32(SEED), jnp.arange(8))
    assert len(split["depth"].sharding.device_set) == 8
    same(eight, host(split))


def test_a_batch_of_one_in_another_process_gives_the_same_scene_and_importing_touches_no_device(eight, tmp_path):
    code = f"""
import sys, numpy as np
from dav2_jax.data.readers import procedural
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
batch = procedural.render({SEED}, np.array([2]), height=40, width=48)
np.savez(sys.argv[1], **{{name: np.asarray(values) for name, values in batch.items()}})
example = procedural.source(count=6, seed={SEED}, height=40, width=48)[5]
np.savez(sys.argv[2], **example)
"""
    files = [str(tmp_path / name) for name in ("one.npz", "example.npz")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    with np.load(files[0]) as one:
        same(eight, dict(one), slice(2, 3))
    with np.load(files[1]) as example:
        assert example["id"] == f"clean/{SEED}/5"
        for name in ("image", "depth", "valid", "tag", "sensor_depth", "intrinsics"):
            np.testing.assert_array_equal(example[name], eight[name][5], err_msg=name)
            assert example[name].dtype == eight[name].dtype


def test_what_a_batch_holds(eight):
    depth, tag = eight["depth"], eight["tag"]
    sky = tag == TAGS.index("sky")
    assert eight["image"].shape == (8, 40, 48, 3)
    assert {name: values.dtype.name for name, values in eight.items()} == {
        "image": "uint8", "depth": "float32", "disparity": "float32", "valid": "bool", "tag": "uint8",
        "sensor_depth": "float32", "intrinsics": "float32", "kind": "int32",
    }  # fmt: skip
    np.testing.assert_array_equal(np.isinf(depth), sky)
    assert eight["valid"].all()
    assert (depth[~sky] > 0.05).all()
    assert (depth[~sky] < 900).all()
    np.testing.assert_array_equal(eight["disparity"] == 0, sky)
    np.testing.assert_allclose(eight["disparity"][~sky] * depth[~sky], 1, rtol=1e-6)
    assert (eight["image"].std(axis=(1, 2, 3)) > 8).all()  # not flat
    assert (np.abs(eight["intrinsics"][:, 2:] - [23.5, 19.5]) < 0.02 * 48 + 1e-3).all()


def test_the_sensor_is_near_the_truth_on_plain_surfaces_and_wrong_elsewhere(eight):
    depth, sensor, tag = eight["depth"], eight["sensor_depth"], eight["tag"]
    seen = sensor > 0
    assert seen[tag == TAGS.index("sky")].mean() < 0.15  # only beside things, which grow
    plain = (tag == 0) & seen & (depth < 9)
    error = np.abs(sensor[plain] / depth[plain] - 1)
    assert np.median(error) < 0.02
    assert 0.5 < seen[(tag == 0) & (depth < 8)].mean() < 0.98  # it has holes
    special = ((tag == TAGS.index("glass")) | (tag == TAGS.index("mirror"))) & seen
    assert special.sum() > 20
    assert np.mean(np.abs(sensor[special] / depth[special] - 1) > 0.1) > 0.3


def test_arguments_are_checked():
    with pytest.raises(Dav2Error, match="no style 'oil'"):
        procedural.render(0, jnp.arange(1), style="oil")
    with pytest.raises(Dav2Error, match="both must be positive"):
        procedural.render(0, jnp.arange(1), height=0)
    with pytest.raises(Dav2Error, match="no style 'oil'"):
        procedural.source(count=3, style="oil")
    with pytest.raises(Dav2Error, match="seed 99999999999: must fit 32 bits"):
        procedural.source(seed=99999999999)
    with pytest.raises(Dav2Error, match="5 x 0 pixels cannot be drawn"):
        procedural.source(height=0, width=5)
    with pytest.raises(Dav2Error, match="-1 scenes"):
        procedural.source(count=-1)
