"""Whether the loss counts any pixel of a source, before the first step."""

from functools import partial

import numpy as np
import pytest

from dav2_jax.data.augment import Geometry
from dav2_jax.data.example import from_disparity, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.training.preflight import check_counts

IMAGE = np.zeros((20, 20, 3), np.uint8)
RAMP = np.linspace(1, 5, 400).reshape(20, 20)
ROOM = (0.001, 20.0)


def read(maps, make, number):
    if maps[number] is None:
        raise Dav2Error("damaged")
    return make(str(number), IMAGE, maps[number])


def counts(*maps, limits=ROOM, make=labeled):
    source = Source("mine", range(len(maps)), partial(read, maps, make))
    return check_counts(source, Geometry(14, "depth" if limits else "disparity"), limits)


@pytest.mark.parametrize(
    ("depth", "limits", "why"),
    [
        (
            RAMP * 1000,
            ROOM,
            "depth is 1000 to 5000, median 3000 m, .* to 20 m: are these millimetres\\? Add .scale=",
        ),
        (RAMP * 30, ROOM, "depth is 30 to 150, median 90 m, .*: raise max_depth"),
        (RAMP / 1e6, ROOM, "is it in another unit\\? .* lower min_depth"),
        (RAMP * 0, ROOM, "all depth is unknown"),
        (RAMP * np.nan, None, "all depth is unknown"),
        (RAMP * 0 + 2, None, "values are 2 to 2, median 2, and a crop needs 10 valid pixels that are not all the same"),
        (np.where(np.arange(400).reshape(20, 20) % 60 == 0, RAMP, 0), None, "a crop needs 10 valid pixels"),
    ],
)
def test_a_source_of_which_no_pixel_counts_is_refused(depth, limits, why):
    with pytest.raises(Dav2Error, match=rf"^mine: the loss counts no pixel of the 3 examples looked at: .*{why}"):
        counts(*[depth] * 3, limits=limits)


def test_what_counts_is_not_refused():
    assert counts(RAMP) == counts(RAMP, limits=None) == counts(RAMP, limits=None, make=from_disparity) == []
    assert counts(None, None) == []  # which the loader names
    assert counts(*[RAMP * 0] * 40, RAMP, *[RAMP * 0] * 40, limits=None) == []  # not among the first few
    (line,) = counts(np.where(RAMP < 1.1, RAMP, RAMP * 1000))
    assert line.startswith("mine: the loss counts only ")
    assert "are these millimetres?" in line
