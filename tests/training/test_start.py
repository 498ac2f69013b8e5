"""What is kept in memory is what was read, once; and whose weights it is."""

import dataclasses
import shutil

import numpy as np
import pytest

from dav2_jax.convert.weights import Weights
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.training import start
from dav2_jax.training.recipe import Recipe
from dav2_jax.weights import checkpoint

asked: list[int] = []


def read(item: int):
    asked.append(item)
    full = np.full((2, 3), float(item), np.float32)
    more = {"depth": full, "sensor_depth": full + 1, "tag": np.zeros((2, 3), np.uint8)}
    return {"id": str(item), "image": np.full((2, 3, 3), item, np.uint8), "valid": full > 7} | more


@pytest.fixture
def source():
    asked.clear()
    return Source("numbers", [7, 8], read)


def test_a_source_in_memory_is_read_once_and_gives_the_same(source):
    kept = start.kept_in_memory(source)
    assert len(kept) == 2
    for _ in range(3):
        for index in (1, 0):
            assert kept[index].keys() == {"id", "image", "depth", "valid"}
            for name, value in kept[index].items():
                np.testing.assert_array_equal(value, read(7 + index)[name])
                asked.pop()
    assert asked == [8, 7]


def test_the_label_of_a_sensor_is_kept_too(source):
    kept = start.kept_in_memory(start.labeled_by("sensor", source))
    np.testing.assert_array_equal(kept[1]["depth"], np.full((2, 3), 9))


def test_labels_of_a_sensor_on_glass_mirrors_and_thin_things_alone():
    tag = np.array([[0, 1, 2, 3, 4, 2]], np.uint8)
    depth = np.array([[5, 5, 5, 5, np.inf, 5]], np.float32)
    sensor = np.array([[6, 7, 8, 9, 0, 0]], np.float32)
    example = {"id": "a", "depth": depth, "valid": depth > 0, "tag": tag, "sensor_depth": sensor}
    seen = start.labeled_by("seen_through", Source("one", [0], lambda item: example))[0]
    np.testing.assert_array_equal(seen["depth"], [[5, 7, 8, 9, np.inf, 0]])
    np.testing.assert_array_equal(seen["valid"], [[True] * 5 + [False]])
    everywhere = start.labeled_by("sensor", Source("one", [0], lambda item: example))[0]
    np.testing.assert_array_equal(everywhere["depth"], sensor)
    np.testing.assert_array_equal(everywhere["valid"], sensor > 0)


def test_the_license_of_the_weights_is_carried_on(tmp_path, tiny):
    """Into the folder of the run, which then goes on without the weights it began with."""
    theirs = Weights(tiny.config.replace(encoder="small"), tiny.params, "CC-BY-NC-4.0")
    checkpoint.save(tmp_path / "theirs.ckpt", theirs)
    recipe, run = Recipe(encoder="small", weights=str(tmp_path / "theirs.ckpt")), tmp_path / "run"
    network = start.network(recipe, run)
    assert network.license == "CC-BY-NC-4.0"
    assert network.config.width == tiny.config.width
    start.settle_folder(run, recipe, network)
    (run / "checkpoints" / "10").mkdir(parents=True)
    shutil.rmtree(tmp_path / "theirs.ckpt")
    assert start.network(recipe, run) == dataclasses.replace(network, params={})
    assert start.network(dataclasses.replace(recipe, weights=None), tmp_path / "new").license.startswith("yours")


def test_a_run_is_a_folder(tmp_path):
    network = start.network(Recipe(), tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(Dav2Error, match="file: is a file: name a folder"):
        start.settle_folder(tmp_path / "file", Recipe(), network)
    with pytest.raises(Dav2Error, match=r"below: cannot be written \(Not a directory\): choose another folder"):
        start.settle_folder(tmp_path / "file/below", Recipe(), network)
