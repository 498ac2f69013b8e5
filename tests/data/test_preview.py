"""Sheets of examples: what is drawn where."""

from functools import partial

import numpy as np
import pytest

from dav2_jax.data.example import labeled
from dav2_jax.data.preview import CAPTION, GAP, TAG_COLORS, disparity_picture, sheet
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error

DEPTH = np.array([[1, 2, np.inf], [np.nan, 4, 8]])
PHOTO = np.full((2, 3, 3), 77, np.uint8)


def read(examples, number):
    if isinstance(examples[number], Exception):
        raise examples[number]
    return examples[number]


def source(*examples):
    return Source("made", range(len(examples)), partial(read, examples))


def test_a_row_shows_everything_that_is_known():
    tag = np.array([[0, 1, 4], [2, 3, 0]], np.uint8)
    sensor = np.array([[1, 0, 0], [2, 4, 8]], np.float32)
    picture = sheet(source(labeled("a", PHOTO, DEPTH, tag=tag, sensor_depth=sensor)), height=20)
    assert picture.shape == (CAPTION + 20 + GAP, 5 * 30 + 4 * GAP, 3)
    cells = [picture[CAPTION : CAPTION + 20, start : start + 30] for start in range(0, 180, 30 + GAP)]
    centers = [cell[5::10, 5::10] for cell in cells]
    np.testing.assert_array_equal(centers[0], PHOTO)
    red, blue = centers[1][0, 0].astype(int), centers[1][0, 2].astype(int)
    assert red[0] > red[2]  # near
    assert blue[2] > blue[0]  # sky
    assert not centers[1][1, 0].any()  # not valid
    np.testing.assert_array_equal(centers[2][..., 0], [[80, 80, 80], [0, 80, 80]])
    np.testing.assert_array_equal(centers[3], TAG_COLORS[tag])
    np.testing.assert_array_equal(centers[4][0, 0], centers[1][0, 0])  # on the scale of the true depth
    assert not centers[4][0, 1].any()
    assert (picture[:CAPTION, :30] < 128).any()  # a caption


def test_unlabeled_ones_stand_side_by_side():
    picture = sheet(source(*[{"id": str(n), "image": PHOTO + np.uint8(n)} for n in range(6)]), 6, height=20)
    assert picture.shape == (2 * (CAPTION + 20 + GAP), 4 * 30 + 3 * GAP, 3)
    assert picture[CAPTION + 5, 36 + 5, 0] == 78
    assert picture[2 * CAPTION + 20 + GAP + 5, 36 + 5, 0] == 82


def test_examples_are_spread_and_a_broken_one_leaves_its_place():
    examples = [{"id": str(n), "image": PHOTO + np.uint8(n)} for n in range(10)]
    examples[5] = Dav2Error("five.png: damaged")
    picture = sheet(source(*examples), 2, height=20)
    assert picture[CAPTION + 5, 5, 0] == 77
    assert not picture[CAPTION : CAPTION + 20, 36:56].any()
    assert sheet(source(*examples), 1, height=20, start=9)[CAPTION + 5, 5, 0] == 86
    with pytest.raises(Dav2Error, match="made: has 10 examples, none from number 10 on"):
        sheet(source(*examples), start=10)


def test_limits_and_flat_maps():
    valid = np.array([[True, True, False]])
    flat = disparity_picture(np.ones((1, 3), np.float32), valid)
    assert flat[0, 0].any()
    assert not flat[0, 2].any()
    assert not disparity_picture(np.zeros((1, 3), np.float32), valid & False).any()
    ramp = np.array([[0, 1, 2]], np.float32)
    wide = disparity_picture(ramp, np.ones((1, 3), bool), (0, 4))
    full = disparity_picture(ramp, np.ones((1, 3), bool), (0, 2))
    assert (wide[0, 2] != full[0, 2]).any()
    np.testing.assert_array_equal(wide[0, 2], disparity_picture(ramp * 2, np.ones((1, 3), bool), (0, 8))[0, 2])
