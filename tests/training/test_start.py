"""What is kept in memory is what was read, once."""

import numpy as np
import pytest

from dav2_jax.data.source import Source
from dav2_jax.training import start

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
    kept = start.kept_in_memory(start.labelled_by("sensor", source))
    np.testing.assert_array_equal(kept[1]["depth"], np.full((2, 3), 9))
