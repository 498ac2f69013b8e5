"""The nine metrics against the official formulas in NumPy, and aligned depth against `evaluation.align`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav2_jax.data.example import TAGS
from dav2_jax.evaluation.metrics import MIN_VALID, NAMES, align_affine, image_metrics, mean, tag_metrics, totals
from dav2_jax.inference import align
from dav2_jax.sharding import batch_sharding, make_mesh

metrics = jax.jit(image_metrics)


def scene(batch=8, height=20, width=30, seed=0):
    """(prediction in metres, depth, valid): errors of all sizes, sky, and masks of all sizes, the first one empty."""
    rng = np.random.default_rng(seed)
    depth = rng.gamma(2.0, 4.0, (batch, height, width)).astype(np.float32) + 0.3
    prediction = (depth * rng.lognormal(0.05, rng.uniform(0.05, 0.6, (batch, 1, 1)), depth.shape)).astype(np.float32)
    depth[:, :2] = np.inf
    valid = rng.random(depth.shape) < np.linspace(0, 1, batch)[:, None, None]
    return prediction, depth, valid


def official(p, g):
    """metric_depth/util/metric.py, of the N pixels of an image, in float64."""
    p, g = p.astype(np.float64), g.astype(np.float64)
    threshold = np.maximum(g / p, p / g)
    log = np.log(p) - np.log(g)
    return {
        "d1": (threshold < 1.25).mean(),
        "d2": (threshold < 1.25**2).mean(),
        "d3": (threshold < 1.25**3).mean(),
        "abs_rel": (np.abs(p - g) / g).mean(),
        "sq_rel": ((p - g) ** 2 / g).mean(),
        "rmse": np.sqrt(((p - g) ** 2).mean()),
        "rmse_log": np.sqrt((log**2).mean()),
        "log10": np.abs(np.log10(p) - np.log10(g)).mean(),
        "silog": np.sqrt((log**2).mean() - 0.5 * log.mean() ** 2),
    }


def test_by_hand():
    """Ten pixels of 2 m: eight right, one of 4 m and one of 1 m."""
    prediction = np.array([[[2.0] * 8 + [4, 1]]])
    expected = {
        "d1": 0.8, "d2": 0.8, "d3": 0.8, "abs_rel": 1.5 / 10, "sq_rel": 2.5 / 10, "rmse": np.sqrt(0.5),
        "rmse_log": np.log(2) * np.sqrt(0.2), "log10": 0.2 * np.log10(2), "silog": np.log(2) * np.sqrt(0.2),
    }  # fmt: skip
    scores = mean(totals(metrics(prediction, np.full((1, 1, 10), 2.0), np.ones((1, 1, 10), bool))))
    assert scores == pytest.approx(expected, rel=1e-6)
    assert tuple(scores) == NAMES


def test_they_are_the_official_ones():
    prediction, depth, valid = scene()
    scores = metrics(prediction, depth, valid)
    known = valid & np.isfinite(depth)
    rows = [official(p[m], g[m]) for p, g, m in zip(prediction[1:], depth[1:], known[1:], strict=True)]
    assert scores["images"].tolist() == [0] + [1] * 7
    for name in NAMES:
        np.testing.assert_allclose(scores[name][1:], [row[name] for row in rows], rtol=1e-5)
        assert scores[name][0] == 0
    means = {name: np.mean([row[name] for row in rows]) for name in NAMES}
    assert mean(totals(scores)) == pytest.approx(means, rel=1e-5)  # of images, not of pixels

    halves = [totals(metrics(*(a[part] for a in (prediction, depth, valid)))) for part in (slice(3), slice(3, None))]
    together = jax.tree.map(jnp.add, *halves)
    assert mean(together) == pytest.approx(means, rel=1e-5)


def test_thresholds_are_strict():
    """1.25 m for 1 m is not within a factor of 1.25."""
    ones = np.ones((1, 2, 5), np.float32)
    valid = ones > 0
    for power in (1, 2, 3):
        at, below = np.float32(1.25**power), np.nextafter(np.float32(1.25**power), np.float32(0))
        assert metrics(ones * at, ones, valid)[f"d{power}"] == 0
        assert metrics(ones * below, ones, valid)[f"d{power}"] == 1


def test_pixels_that_are_not_scored():
    prediction, depth, valid = scene()
    clean = metrics(prediction, depth, valid)
    depth = np.where(valid, depth, np.nan)
    depth[-1, 2, :5] = np.nan, -np.inf, 0, -3, np.inf
    valid[-1, 2, 5:] = True
    poisoned = np.where(valid & np.isfinite(depth), prediction, np.nan)
    poisoned[-1, 2, :5] = np.nan
    dirty = metrics(poisoned, depth, valid)
    for name in NAMES:
        np.testing.assert_array_equal(dirty[name][:-1], clean[name][:-1])
    known = valid[-1] & (depth[-1] > 0) & np.isfinite(depth[-1])
    expected = official(prediction[-1][known], depth[-1][known])
    assert {name: float(dirty[name][-1]) for name in NAMES} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("pixels", "counted"), [(MIN_VALID - 1, 0), (MIN_VALID, 1), (0, 0)])
def test_an_image_needs_ten_pixels(pixels, counted):
    depth = np.full((1, 5, 5), 3.0)
    scores = metrics(depth + 1, depth, np.arange(25).reshape(depth.shape) < pixels)
    assert scores["images"] == counted
    assert scores["rmse"] == counted
    means = mean(totals(scores))
    assert means["rmse"] == 1 if counted else all(np.isnan(value) for value in means.values())


def test_broken_predictions_are_not_hidden():
    prediction, depth, valid = scene()
    prediction[-1, 5, 5] = np.nan
    assert all(np.isnan(metrics(prediction, depth, valid)[name][-1]) for name in NAMES)
    prediction[-1, 5, 5] = 0  # a sigmoid that underflowed
    scores = metrics(prediction, depth, valid)
    assert all(np.isfinite(scores[name][-1]) for name in NAMES)
    assert scores["log10"][-1] > 0.05


@pytest.mark.parametrize("devices", [2, 8])
def test_any_number_of_devices(devices):
    maps = scene()
    expected = mean(totals(metrics(*maps)))
    split = batch_sharding(make_mesh(jax.devices()[:devices]))
    shared = jax.jit(lambda *maps: totals(image_metrics(*maps)), in_shardings=(split,) * 3)(*maps)
    assert mean(shared) == pytest.approx(expected, rel=1e-6)


def relative(seed=0, scale=0.02, shift=0.01):
    """(disparity of a fair relative model, depth, valid)."""
    prediction, depth, valid = scene(seed=seed)
    return ((1 / prediction - shift) / scale).astype(np.float32), depth, valid


@pytest.mark.parametrize("max_depth", [None, 10.0, 1000.0])
def test_alignment_is_that_of_evaluation_align(max_depth):
    disparity, depth, valid = relative()
    known = valid & np.isfinite(depth)
    aligned = np.asarray(jax.jit(align_affine, static_argnums=3)(disparity, depth, valid, max_depth))
    floored = 0
    for row in range(1, 8):
        d, g, m = disparity[row], depth[row].astype(np.float64), known[row]
        affine = align.least_squares(d[m], 1 / g[m])
        cap = g[m].max() if max_depth is None else max_depth
        expected = align.metres(d, affine, cap)
        np.testing.assert_allclose(aligned[row], expected, rtol=1e-4)
        floored += (expected == cap).sum()
    assert floored > 0 or max_depth == 1000
    assert np.isfinite(aligned).all()
    assert (aligned[0] == 1).all() or max_depth is not None  # nothing known


@pytest.mark.parametrize(("scale", "shift"), [(1e-12, 0.0), (1e12, 0.0), (3.0, 500.0), (-1.0, 4.0)])
def test_alignment_is_blind_to_scale_and_shift(scale, shift):
    disparity, depth, valid = relative()
    plain = metrics(align_affine(disparity, depth, valid), depth, valid)
    other = metrics(align_affine(scale * disparity + np.float32(shift), depth, valid), depth, valid)
    for name in ("d1", "abs_rel"):
        np.testing.assert_allclose(other[name], plain[name], rtol=2e-3)


def test_a_perfect_relative_model():
    _, depth, valid = scene()
    aligned = align_affine(7 / depth + 0.4, depth, valid)
    means = mean(totals(metrics(aligned, depth, valid)))
    assert means["d1"] == 1
    assert means["abs_rel"] < 1e-5
    finite = valid[1:] & np.isfinite(depth[1:])
    assert np.max(np.asarray(aligned)[1:]) <= depth[1:][finite].max() * 1.00001  # also where there is sky


def test_a_collapsed_relative_model_is_scored_not_refused():
    _, depth, valid = scene()
    aligned = np.asarray(align_affine(np.full(depth.shape, 2.5), depth, valid))
    for row in range(1, 8):
        known = depth[row][valid[row] & np.isfinite(depth[row])]
        np.testing.assert_allclose(aligned[row], 1 / np.mean(1 / known), rtol=1e-5)


def test_tags_are_scored_apart_but_aligned_together():
    """Glass is predicted 3 times too far, all else exactly: a fit on the glass alone would hide it."""
    _, depth, valid = scene()
    depth = np.where(np.isfinite(depth), depth, 5.0).astype(np.float32)
    tag = np.zeros(depth.shape, np.uint8)
    tag[:4, 5:9, 5:9] = TAGS.index("glass")
    tag[:, 0] = TAGS.index("sky")
    depth[:, 0] = np.inf
    glass = tag == TAGS.index("glass")
    valid[:] = True
    prediction = np.where(glass, 3 * depth, depth)
    scores = {
        name: mean(totals(values)) for name, values in jax.jit(tag_metrics)(prediction, depth, valid, tag).items()
    }
    assert set(scores) == set(TAGS)
    assert scores["glass"]["abs_rel"] == pytest.approx(2, rel=1e-6)
    assert (scores["glass"]["d3"], scores["plain"]["d1"], scores["plain"]["abs_rel"]) == (0, 1, 0)
    assert all(np.isnan(scores[name]["d1"]) for name in ("sky", "mirror", "thin"))
    assert totals(tag_metrics(prediction, depth, valid, tag)["glass"])["images"] == 4

    aligned = align_affine(1 / prediction, depth, valid)
    assert mean(totals(tag_metrics(aligned, depth, valid, tag)["glass"]))["d1"] < 0.1
    assert mean(totals(metrics(align_affine(1 / prediction, depth, glass), depth, glass)))["d1"] == 1


def test_bfloat16_is_scored_in_float32():
    prediction, depth, valid = scene()
    half = jnp.asarray(prediction, jnp.bfloat16)
    scores, full = metrics(half, depth, valid), metrics(half.astype(jnp.float32), depth, valid)
    for name in NAMES:
        assert scores[name].dtype == jnp.float32
        np.testing.assert_array_equal(scores[name], full[name])
