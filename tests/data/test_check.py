"""`dav2 data check`: what is counted, and the verdict."""

from functools import partial

import numpy as np
import pytest

from dav2_jax.data.check import check
from dav2_jax.data.example import from_disparity, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error

RAMP = np.linspace(1, 4, 12).reshape(3, 4)
PICTURE = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


def read(examples, number):
    if isinstance(examples[number], Exception):
        raise examples[number]
    return examples[number]


def look(*examples, unit="metres", **options):
    source = Source("made", range(len(examples)), partial(read, examples), unit, about=("a fact",))
    return check(source, progress=False, **options)


def good(number=0, depth=RAMP, **more):
    return labeled(f"e{number}", PICTURE, depth, **more)


def with_value(value):
    return np.where(np.arange(12).reshape(3, 4) < 3, value, RAMP)


def test_counts_ranges_and_shares():
    far, holes = RAMP.copy(), RAMP * 2
    far[0] = np.inf
    holes[:, 0] = np.nan
    tag = np.full((3, 4), 2, np.uint8)
    report = look(good(0, far, intrinsics=(1, 1, 1, 1)), good(1, holes), good(2, tag=tag))
    assert (report.read, report.labeled, report.with_intrinsics, report.pixels) == (3, 3, 1, 36)
    assert (report.valid, report.sky) == (33, 4)
    assert report.low == 1
    assert report.high == 8
    assert report.medians == pytest.approx([np.median(RAMP[1:]), np.median(2 * RAMP[:, 1:]), 2.5])
    assert report.tags == {0: 0, 1: 0, 2: 12, 3: 0, 4: 0}
    assert (report.broken, report.problems) == ([], [])
    text = str(report)
    for words in ("3 examples, 3 read, 0 broken", "a fact", "4 x 3 (3)", "1 to 8", "91.7%", "sky 12.1%", "glass 33.3%"):
        assert words in text
    assert text.endswith("verdict: fit for training")


def test_broken_examples_are_named_and_the_rest_is_read():
    report = look(good(0), Dav2Error("b.png: damaged"), good(2))
    assert report.broken == ["made: b.png: damaged"]
    assert report.read == 2
    assert "broken: made: b.png: damaged" in str(report)
    assert str(report).endswith("verdict: look at the line above before you train on it")


@pytest.mark.parametrize(
    ("examples", "problem"),
    [
        ([good(0), good(0)], "1 ids stand for more than one example, first e0"),
        ([good(0), good(1, RAMP * np.nan)], "1 examples have no valid pixel, first e1"),
        (
            [good(0), good(1, RAMP * 0 + 2), good(2, RAMP * 0 + 3)],
            "2 examples have the same depth everywhere, first",
        ),
        ([good(0) | {"image": PICTURE * 0}], "1 examples show one color only, first e0"),
        ([good(0, RAMP * 1000)], "the median depth is 2500 m: are these millimetres"),
        ([good(0, RAMP / 1000)], "the median depth is 0.0025 m: is it in another unit"),
        ([], "there is no example: check the path and the split"),
        ([good(0, with_value(1e10))], "1 examples have depth up to 1e+10 m, in 25.00% of their pixels, first e0"),
        ([good(0), good(1, with_value(3e38))], "1 examples have depth up to 3e+38 m, in 25.00% of their pixels"),
        ([good(0, with_value(1e-6))], "1 examples have depth down to 1e-06 m, in 25.00% of their pixels"),
        ([good(0, with_value(1000))], "1 examples have depth of exactly 1000 m, far beyond all others"),
        ([good(0, np.where(RAMP < 3, 65535 / 256, 100))], "1 examples have depth of exactly 256 m, far beyond"),
        (
            [good(0, with_value(65.535))],
            "1 examples have depth of exactly 65.535 m, far beyond all others or the largest",
        ),
    ],
)
def test_what_looks_wrong_is_said(examples, problem):
    report = look(*examples)
    assert len(report.problems) == 1
    assert report.problems[0].startswith(problem)
    assert "verdict: look at" in str(report)


def test_disparity_any_scale_and_no_label():
    far = RAMP.copy()
    far[0] = 0
    report = look(from_disparity("a", PICTURE, far), unit="disparity")
    assert (report.sky, report.low) == (4, RAMP[1, 0].astype(np.float32))
    assert report.problems == []
    assert look(good(0, RAMP * 1e6), unit="any scale").problems == []
    (background,) = look(from_disparity("a", PICTURE, 1 / with_value(1e10)), unit="disparity").problems
    assert background.startswith("1 examples have disparity down to 1e-10, in 25.00% of their pixels, first a")
    (background,) = look(good(0, with_value(1e10)), unit="any scale").problems
    assert background.startswith("1 examples have depth up to 1e+10, in 25.00%")
    bare = look({"id": "a", "image": PICTURE}, unit="none")
    assert str(bare).endswith("verdict: fit for pseudo-labeling: it has no depth of its own")


def test_a_limit_spreads_over_the_source():
    report = look(*[good(n, RAMP + n) for n in range(10)], limit=2)
    assert report.read == 2
    assert report.total == 10
    assert report.high == 9  # of numbers 0 and 5


def test_what_a_source_notes_about_its_files_is_said():
    source = Source("made", [0, 1], partial(read, [good(0), good(1)]), notes=lambda item, example: ["are odd"][item:])
    assert check(source, progress=False).problems == ["1 examples are odd, first e0"]
