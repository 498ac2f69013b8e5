"""Scale and shift from known depths: exact, in spite of wrong points, and with an error where there is no answer."""

import numpy as np
import pytest

import dav2_jax as dav2
from dav2_jax.errors import Dav2Error
from dav2_jax.inference import align
from dav2_jax.inference.depth import Depth

SCALE, SHIFT = 0.013, 0.021


def scene(height=60, width=80, seed=0):
    """(true depth in metres, the disparity of a perfect relative model), both (height, width)."""
    rng = np.random.default_rng(seed)
    depth = 1 / np.linspace(1 / 30, 1 / 2, height)[:, None] * rng.uniform(0.8, 1.25, (height, width))
    return depth, (1 / depth - SHIFT) / SCALE


def points_of(depth, count, rng):
    rows, columns = rng.integers(0, depth.shape[0], count), rng.integers(0, depth.shape[1], count)
    return np.stack([rows, columns, depth[rows, columns]], -1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e5])  # where uncentered normal equations lose their digits
def test_least_squares_is_lstsq(weighted, offset):
    rng = np.random.default_rng(1)
    d = rng.gamma(2.0, 30.0, 500) + offset
    q = 0.01 * d + rng.normal(0, 0.3, 500)
    w = rng.uniform(0.1, 2, 500) if weighted else np.ones(500)
    root = np.sqrt(w)[:, None]
    expected = np.linalg.lstsq(np.stack([d, np.ones(500)], -1) * root, q * root[:, 0])[0]
    affine = align.least_squares(d, q, w if weighted else None)
    np.testing.assert_allclose([affine.scale, affine.shift], expected, rtol=1e-9 if offset else 1e-12)
    np.testing.assert_allclose(affine(d), expected[0] * d + expected[1], rtol=1e-9, atol=1e-9)
    assert affine.used.all()


def test_pairs_that_do_not_count():
    d = np.array([[1.0, 2.0, np.nan, 4.0], [5.0, 6.0, 7.0, 8.0]])
    q = 3 * d + 1
    q[0, 2], q[1, 0], q[1, 1] = 5.0, np.inf, 1000.0
    valid = np.ones(d.shape, bool)
    valid[1, 1] = False
    affine = align.least_squares(d, q, valid)
    assert (affine.scale, affine.shift) == pytest.approx((3, 1), rel=1e-12)
    np.testing.assert_array_equal(affine.used, [[1, 1, 0, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize("seed", range(5))
def test_ransac_bears_noise_and_two_fifths_of_wrong_points(seed):
    rng = np.random.default_rng(seed)
    depth, disparity = scene(seed=seed)
    d, g = disparity.ravel(), depth.ravel() * rng.lognormal(0, 0.02, depth.size)
    wrong = rng.random(d.size) < 0.4
    g[wrong] = rng.uniform(0.5, 60, wrong.sum())
    affine = align.ransac(d, 1 / g, seed=seed)
    assert (affine.scale, affine.shift) == pytest.approx((SCALE, SHIFT), rel=0.02)  # measured: at most 0.013
    assert affine.used[~wrong].mean() > 0.999
    assert np.abs(affine(d) * g - 1)[wrong & affine.used].max(initial=0) <= 0.1 + 1e-9  # chance hits only
    plain = align.least_squares(d, 1 / g)
    assert abs(plain.scale / SCALE - 1) > 0.2  # or else this test would be about nothing

    again = align.ransac(d, 1 / g, seed=seed)
    assert (again.scale, again.shift) == (affine.scale, affine.shift)
    refit = align.least_squares(d, 1 / g, affine.used)
    assert (refit.scale, refit.shift) == (affine.scale, affine.shift)


def test_ransac_without_wrong_points_is_least_squares():
    rng = np.random.default_rng(0)
    depth, disparity = scene()
    q = 1 / (depth * rng.uniform(0.97, 1.03, depth.shape))
    robust, plain = align.ransac(disparity, q), align.least_squares(disparity, q)
    assert (robust.scale, robust.shift) == (plain.scale, plain.shift)


def test_ransac_judges_by_share_of_the_depth():
    """At 50 m and at 1 m, 8 % off agrees and 12 % off does not, though 1 / depth differs by a factor of 50."""
    depth = np.repeat([1.0, 2.0, 5.0, 10.0, 50.0], 500)
    d = 1 / depth
    q = d.copy()
    q[[0, 2000]] *= 1.08
    q[[1, 2001]] *= 1.14
    q[[2, 2002]] = 0, -1  # no depth at all
    used = align.ransac(d, q).used
    assert used[[0, 2000]].all()
    assert not used[[1, 2001, 2, 2002]].any()
    assert used.sum() == 2496


def test_metres_stop_at_the_cap():
    affine = align.Affine(0.1, -0.5, np.ones(4, bool))
    np.testing.assert_allclose(align.metres([15, 7, 5, 0], affine, 20.0), [1.0, 5.0, 20.0, 20.0])


@pytest.mark.parametrize("method", ["ransac", "least-squares"])
def test_points_give_the_true_depth(method):
    depth, disparity = scene()
    photo = np.zeros((*depth.shape, 3), np.uint8)
    points = points_of(depth, 50, np.random.default_rng(0))
    far = points[:, 2].max()
    given = Depth(disparity, "disparity", photo, focal_length=70.0)
    aligned = dav2.align_to_metric(given, points, method=method)
    assert (aligned.unit, aligned.focal_length, aligned.image is photo) == ("metres", 70.0, True)
    assert aligned.max_depth == pytest.approx(far)
    np.testing.assert_allclose(aligned.values, np.minimum(depth, far), rtol=1e-5)
    capped = dav2.align_to_metric(given, points, method=method, max_depth=8.0)
    np.testing.assert_allclose(capped.values, np.minimum(depth, 8.0), rtol=1e-5)
    assert capped.max_depth == 8.0


def test_wrong_points_change_nothing():
    rng = np.random.default_rng(3)
    depth, disparity = scene()
    points = points_of(depth, 200, rng)
    points[:80, 2] = rng.uniform(0.5, 500, 80)
    aligned = dav2.align_to_metric(Depth(disparity, "disparity"), points)
    assert aligned.max_depth < 40  # the 500 m are not believed
    np.testing.assert_allclose(aligned.values, np.minimum(depth, aligned.max_depth), rtol=0.02)


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_a_sparse_map_of_another_size(factor):
    """Blocks of factor x factor pixels of the photo share one known depth, as with a low-resolution LiDAR."""
    small, small_disparity = scene(30, 40)
    disparity = np.kron(small_disparity, np.ones((factor, factor)))
    known = small.copy()
    known[np.random.default_rng(0).random(known.shape) < 0.8] = 0
    known[0, :3] = np.nan, np.inf, -1
    aligned = dav2.align_to_metric(Depth(disparity, "disparity"), known, max_depth=100)
    np.testing.assert_allclose(aligned.values, np.kron(small, np.ones((factor, factor))), rtol=1e-5)


def test_a_map_finer_than_the_photo():
    depth, disparity = scene()
    aligned = dav2.align_to_metric(Depth(disparity, "disparity"), np.kron(depth, np.ones((3, 3))), max_depth=100)
    np.testing.assert_allclose(aligned.values, depth, rtol=1e-5)


def test_points_are_array_indices():
    rows, columns, metres = align.known_pairs((10, 20), np.array([[0, 0, 1.0], [9.4, 18.6, 2.0], [3, 4, np.nan]]))
    assert (rows.tolist(), columns.tolist(), metres.tolist()) == ([0, 9], [0, 19], [1.0, 2.0])


def test_metres_get_one_factor():
    depth, _ = scene()
    points = points_of(depth, 99, np.random.default_rng(0))
    points[:30, 2] *= 9  # a median bears these
    given = Depth(depth / 1.34, "metres", max_depth=20.0)
    aligned = dav2.align_to_metric(given, points)
    np.testing.assert_allclose(aligned.values, depth, rtol=1e-5)
    assert aligned.max_depth == pytest.approx(26.8)
    assert dav2.align_to_metric(given, points, max_depth=10.0).values.max() == 10.0
    with pytest.raises(Dav2Error, match="no finite positive depth"):
        dav2.align_to_metric(Depth(np.zeros((60, 80)), "metres"), points)


GOOD = [[0, 0, 2.0], [20, 30, 5.0], [40, 50, 9.0]]


@pytest.mark.parametrize(
    ("known", "options", "message"),
    [
        ([[0, 0, 2.0]], {}, "1 known depths .* two or more"),
        (np.zeros((60, 80)), {}, "0 known depths"),
        (
            [[5, 79, 2.0], [79, 5, 2.0]],
            {},
            r"1 of 2 known points lie outside the photo of 80 x 60, .* row 79, column 5",
        ),
        (np.ones((80, 60)), {}, "is 60 x 80 and the photo 80 x 60: they must show the same view"),
        (np.ones(5), {}, r"shape \(5,\): give points \(N, 3\) or a map"),
        (GOOD, {"max_depth": 0}, "max_depth is 0"),
        (GOOD, {"method": "median"}, "method is 'median': use 'ransac' or 'least-squares'"),
        (GOOD, {"tolerance": 0}, "tolerance is 0"),
    ],
)
def test_known_depths_that_do_not_do(known, options, message):
    _, disparity = scene()
    with pytest.raises(Dav2Error, match=message) as caught:
        dav2.align_to_metric(Depth(disparity, "disparity"), np.array(known), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["ransac", "least-squares"])
def test_no_scale_can_be_told(method):
    depth, disparity = scene()
    points = points_of(depth, 50, np.random.default_rng(0))
    with pytest.raises(Dav2Error, match="nearer is farther"):
        dav2.align_to_metric(Depth(-disparity, "disparity"), points, method=method)
    with pytest.raises(Dav2Error, match=r"disparity is 7 wherever depths are known"):
        dav2.align_to_metric(Depth(np.full(depth.shape, 7.0), "disparity"), points, method=method)
    with pytest.raises(Dav2Error, match="0 pairs"):
        dav2.align_to_metric(Depth(np.full(depth.shape, np.nan), "disparity"), points, method=method)


def test_shapes_that_differ():
    with pytest.raises(Dav2Error, match="differ in shape"):
        align.least_squares(np.ones(3), np.ones(4))


def test_the_alignment_is_reported():
    rng = np.random.default_rng(0)
    depth, disparity = scene()
    points = points_of(depth, 200, rng)
    points[:, 2] *= np.where(np.arange(200) % 2, 1.02, 0.98)
    wrong = np.arange(200) < 60
    points[wrong, 2] *= 3
    report = dav2.align_to_metric(Depth(disparity, "disparity"), points).alignment
    assert (report.known, report.inliers) == (200, 140)
    assert (report.scale, report.shift) == pytest.approx((SCALE, SHIFT), rel=0.03)
    assert report.residual == pytest.approx(0.02, abs=0.003)
    assert (report.nearest, report.farthest) == pytest.approx((points[~wrong, 2].min(), points[~wrong, 2].max()))
    assert 0.01 < report.rmse < 1
    assert str(report).startswith("140 of 200 known depths agree, from 1.")
    metric = dav2.align_to_metric(Depth(depth / 1.5, "metres"), points).alignment
    assert (metric.inliers, metric.shift) == (140, 0)
    assert metric.scale == pytest.approx(1.5, rel=0.03)
    plain = dav2.align_to_metric(Depth(disparity, "disparity"), points[60:], method="least-squares").alignment
    assert (plain.known, plain.inliers) == (140, 140)


@pytest.mark.parametrize("kind", ["map", "points"])
def test_known_depths_that_are_hardly_metres_are_noted(kind):
    depth, disparity = scene()
    millimetres = np.round(depth * 1000).astype(np.uint16)
    points = points_of(millimetres, 50, np.random.default_rng(0))
    with pytest.warns(
        UserWarning, match=r"lie between [\d,]+ and [\d,]+, hardly metres: divide millimetres .* by 1000"
    ):
        dav2.align_to_metric(Depth(disparity, "disparity"), millimetres if kind == "map" else points)
