"""The one form of an example, and sources of them."""

import pickle
from functools import partial

import numpy as np
import pytest

from dav2_jax.data import example
from dav2_jax.data.example import from_disparity, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error

IMAGE = np.zeros((2, 4, 3), np.uint8)
NAN, INF = np.nan, np.inf


def test_depth_knows_sky_and_what_is_not_valid():
    depth = np.array([[1, 2, INF, NAN], [0, -1, -INF, 4]], np.float64)
    one = labeled("a", IMAGE, depth, valid=np.array([[1, 0, 1, 1], [1, 1, 1, 1]], bool), intrinsics=(1, 2, 3, 4))
    assert one["depth"].dtype == np.float32
    assert one["intrinsics"].dtype == np.float32
    np.testing.assert_array_equal(one["depth"], [[1, 0, INF, 0], [0, 0, 0, 4]])
    np.testing.assert_array_equal(one["valid"], [[True, False, True, False], [False, False, False, True]])
    np.testing.assert_array_equal(example.disparity(one), [[1, 0, 0, 0], [0, 0, 0, 0.25]])
    assert example.depth(one) is one["depth"]


def test_disparity_likewise():
    one = from_disparity("a", IMAGE, np.array([[1, 0, INF, NAN], [0.5, -1, -INF, 4]], np.float16))
    np.testing.assert_array_equal(one["disparity"], [[1, 0, 0, 0], [0.5, 0, 0, 4]])
    np.testing.assert_array_equal(one["valid"], [[True, True, False, False], [True, False, False, True]])
    np.testing.assert_array_equal(example.depth(one), [[1, INF, 0, 0], [2, 0, 0, 0.25]])
    assert example.disparity(one) is one["disparity"]


def test_no_pair_and_no_label():
    with pytest.raises(Dav2Error, match=r"^a: the image is 4 x 2 and its depth 2 x 4: they are not a pair$"):
        labeled("a", IMAGE, np.ones((4, 2)))
    with pytest.raises(Dav2Error, match=r"^a: the image is 4 x 2 and its disparity 2 x 4: they are not a pair$"):
        from_disparity("a", IMAGE, np.ones((4, 2)))
    for wanted in (example.depth, example.disparity):
        with pytest.raises(Dav2Error, match="a: has no depth"):
            wanted({"id": "a", "image": IMAGE})


def _read(factor, item):
    if item == 2:
        raise FileNotFoundError(2, "No such file or directory", "two.png")
    if item == 3:
        raise Dav2Error("three.png: damaged")
    return {"id": str(item), "image": IMAGE + np.uint8(factor * item)}


def test_a_source_reads_by_number_and_says_what_fails():
    source = pickle.loads(pickle.dumps(Source("numbers", range(4), partial(_read, 10), unit="none")))
    assert len(source) == 4
    assert source[1]["image"].max() == 10
    assert source[-4]["id"] == "0"
    with pytest.raises(Dav2Error, match=r"^numbers: two\.png: No such file or directory$"):
        source[2]
    with pytest.raises(Dav2Error, match=r"^numbers: three\.png: damaged$"):
        source[3]
    with pytest.raises(IndexError):
        source[4]
