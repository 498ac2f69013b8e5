"""Disparity to metres with the help of some known depths: 1 / depth = scale * disparity + shift.

Relative models give disparity up to a scale and a shift that differ from photo to photo (the authors confirm this
relation in issues 43 and 157 of their repository). A few known depths, from LiDAR, structure from motion or a tape
measure, fix the two numbers. Everything here is NumPy in float64.

Far away, scale * disparity + shift comes near zero or below, where 1 / x explodes: it is floored first. Conventions:

    1 / largest known depth   MoGe (`disparity_affine_invariant`); the default here
    1 / cap of the data set   MiDaS paper (KITTI 80 m, NYU 10 m, ETH3D and Sintel 72 m), DepthAnythingAC: `max_depth=`
    0.001, so 1000 m          Marigold and Video Depth Anything: `max_depth=1000`
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from dav2_jax.errors import Dav2Error, check_choice
from dav2_jax.image.quiet import warn
from dav2_jax.inference.depth import Depth

TOLERANCE = 0.1  # of `ransac`: a good relative model is off by 5 to 8 % of the depth where all points are right
_TRIALS = 1000  # with 80 % of the points wrong, all trials miss with probability 0.96 ** 1000 = 2e-18
_SCORED = 4096  # points on which a trial is judged; counting more changes nothing but the time
_SAME_ASPECT = 0.02  # relative
_NEAREST, _FARTHEST = 0.05, 200.0  # metres: a median beyond these is more likely in another unit


@dataclasses.dataclass(frozen=True)
class Affine:
    """target = scale * disparity + shift; `used` says which of the pairs it was fitted on, in their shape."""

    scale: float
    shift: float
    used: np.ndarray

    def __call__(self, disparity: np.ndarray) -> np.ndarray:
        return self.scale * np.asarray(disparity, np.float64) + self.shift


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How well `align_to_metric` brought a map and known depths together. `str(alignment)` is one line of it.

    scale, shift  1 / metres = scale * disparity + shift; of a map in metres, metres = scale * predicted, and shift is 0
    known         number of known depths
    inliers       number of those that agree: that the fit was made on ("ransac"), or whose error is within `tolerance`
    residual      median of |aligned - known| / known over the inliers
    rmse          root of the mean of (aligned - known) ** 2 over the inliers, metres
    nearest, farthest  of the inliers' known depths, metres: what lies beyond is extrapolated
    """

    scale: float
    shift: float
    known: int
    inliers: int
    residual: float
    rmse: float
    nearest: float
    farthest: float

    def __str__(self) -> str:
        return (
            f"{self.inliers} of {self.known} known depths agree, from {self.nearest:.3g} to {self.farthest:.3g} m; "
            f"median error {self.residual:.1%}, RMSE {self.rmse:.3g} m"
        )


def least_squares(disparity: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> Affine:
    """The scale and the shift that minimize sum of weights * (scale * disparity + shift - target) ** 2.

    disparity  predicted, any shape
    target     1 / metres, the same shape
    weights    the same shape, at least 0, or bool for valid or not; None: 1 for all

    Pairs that are not finite, or of weight 0, do not count. The estimator of all evaluation protocols, MiDaS equation 4
    among them; it takes the sign of the scale as it comes. Raises Dav2Error for fewer than two pairs, and where the
    disparity is the same in all of them.
    """
    d, q, w, valid = _pairs(disparity, target, weights)
    w = w / w.sum()
    d_mean, q_mean = (w * d).sum(), (w * q).sum()
    centered = d - d_mean  # without which the normal equations lose half of the digits
    scale = (w * centered * (q - q_mean)).sum() / (w * centered**2).sum()
    return Affine(float(scale), float(q_mean - scale * d_mean), valid)


def ransac(
    disparity: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Affine:
    """As `least_squares`, on those pairs only that agree with each other: for known depths of which many are wrong.

    tolerance  a pair agrees when |scale * disparity + shift - target| <= tolerance * target. That is a share of the
               depth, the same near and far: 0.1 lets known / aligned depth lie between 0.9 and 1.1.
    seed       of the trials; the same seed gives the same result.

    Lines of positive scale through two random pairs each are judged by the sum of min(1, (error / allowed)^2) (MSAC,
    Torr and Zisserman 2000), and the best is fitted again by least squares on the pairs that agree with it until they
    stay the same. Raises Dav2Error as `least_squares`, for a tolerance that is not positive, where no line has a
    positive scale, and where fewer than two pairs agree.
    """
    if not tolerance > 0:
        raise Dav2Error(f"tolerance is {tolerance:g}: give a share of the depth, such as {TOLERANCE}")
    positive = np.asarray(target, np.float64) > 0  # no depth otherwise, and nothing to take a share of
    d, q, w, valid = _pairs(disparity, target, positive if weights is None else np.where(positive, weights, 0))
    rng = np.random.default_rng(seed)
    one, two = (rng.choice(d.size, _TRIALS, p=w / w.sum()) for _ in range(2))
    with np.errstate(divide="ignore", invalid="ignore"):  # pairs of equal disparity: their scale is not finite
        scale = (q[two] - q[one]) / (d[two] - d[one])
    one, scale = one[np.isfinite(scale) & (scale > 0)], scale[np.isfinite(scale) & (scale > 0)]
    if not scale.size:
        raise _disagreement()
    shift = q[one] - scale * d[one]

    some = rng.permutation(d.size)[:_SCORED]
    costs = [
        (w[some] * np.minimum(1, ((s * d[some] + t - q[some]) / (tolerance * q[some])) ** 2)).sum()
        for s, t in zip(scale, shift, strict=True)
    ]
    best = int(np.argmin(costs))
    s, t, agree = scale[best], shift[best], None
    for _ in range(20):  # it settles in a few
        before, agree = agree, np.abs(s * d + t - q) <= tolerance * q
        if before is not None and np.array_equal(before, agree):
            break
        fit = least_squares(d, q, w * agree)
        s, t = fit.scale, fit.shift
    used = np.zeros(valid.shape, bool)
    used[valid] = fit.used
    return Affine(fit.scale, fit.shift, used)


def metres(disparity: np.ndarray, affine: Affine, max_depth: float) -> np.ndarray:
    """1 / max(affine(disparity), 1 / max_depth), float64: depth in metres, at most `max_depth`."""
    return 1 / np.maximum(affine(disparity), 1 / max_depth)


def known_pairs(shape: tuple[int, int], known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns, metres) of the known depths, each (N,), for a map of `shape` (H, W).

    known  (N, 3): points as row, column, metres, by array index, so that (0, 0) is the center of the first pixel; the
           nearest pixel is taken. Where pixel centers lie at .5 (COLMAP), subtract 0.5 first.
           (h, w): a map in metres; 0, negative or not finite: unknown. One of another size than (H, W) must show the
           same view: each of its pixels is paired with the pixel of the larger map nearest to its center, because an
           interpolated value lies between the surfaces at an edge, on neither of them.

    Raises Dav2Error for another shape, other proportions than the photo's, points outside of it, and fewer than two
    known depths.
    """
    known = np.asarray(known, np.float64)
    height, width = shape
    if known.ndim != 2:
        raise Dav2Error(f"known depths have shape {known.shape}: give points (N, 3) or a map (h, w), in metres")
    if known.shape[1] == 3:
        known = known[np.isfinite(known).all(-1) & (known[:, 2] > 0)]
        rows, columns = np.rint(known[:, 0]).astype(int), np.rint(known[:, 1]).astype(int)
        outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
        if outside.any():
            row, column, _ = known[outside][0]
            raise Dav2Error(
                f"{outside.sum()} of {len(known)} known points lie outside the photo of {width} x {height}, the first "
                f"at row {row:g}, column {column:g}: points are (row, column, metres)"
            )
        depths = known[:, 2]
    else:
        if abs(known.shape[1] / known.shape[0] / (width / height) - 1) > _SAME_ASPECT:
            raise Dav2Error(
                f"the map of known depths is {known.shape[1]} x {known.shape[0]} and the photo {width} x {height}: "
                "they must show the same view, so crop or turn one of them"
            )
        small_rows, small_columns = np.nonzero(np.isfinite(known) & (known > 0))
        rows = ((small_rows + 0.5) * height / known.shape[0]).astype(int)
        columns = ((small_columns + 0.5) * width / known.shape[1]).astype(int)
        depths = known[small_rows, small_columns]
    if len(depths) < 2:
        raise Dav2Error(f"{len(depths)} known depths (finite, positive): scale and shift need two or more")
    return rows, columns, depths


def align_to_metric(
    depth: Depth,
    known: np.ndarray,
    *,
    method: Literal["ransac", "least-squares"] = "ransac",
    max_depth: float | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Depth:
    """The same map in metres, as near as it gets to some known depths; `.alignment` says how near.

    known      points (N, 3) or a map (h, w), in metres, see `known_pairs`
    method     "ransac" bears wrong known depths (`tolerance`, `seed`: see there); "least-squares" is the estimator of
               evaluation protocols
    max_depth  metres, beyond which nothing is placed; None: the largest known depth (MoGe), of those that agree

    A map that is in metres already gets one factor: the median of known / predicted (of method and tolerance only the
    count of inliers depends, and nothing is cut off without `max_depth`). Raises Dav2Error for what `known_pairs`,
    `least_squares` and `ransac` refuse, and where nearer and farther are swapped: prediction and known depths do not
    belong together then. Warns where the known depths are hardly metres (millimetres, as sensors store them).
    """
    if max_depth is not None and not 0 < max_depth < np.inf:
        raise Dav2Error(f"max_depth is {max_depth:g}: give metres, a positive number")
    check_choice("method", method, ("ransac", "least-squares"))
    rows, columns, depths = known_pairs(depth.shape, known)
    _doubt_unit(depths, np.asarray(known).dtype)
    predicted = depth.values[rows, columns].astype(np.float64)
    if depth.unit == "metres":
        usable = np.isfinite(predicted) & (predicted > 0)
        ratios = depths[usable] / predicted[usable]
        if not ratios.size:
            raise Dav2Error("the prediction has no finite positive depth where depths are known")
        factor = float(np.median(ratios))
        values = depth.values * factor
        reach = None if depth.max_depth is None else depth.max_depth * factor
        if max_depth is not None:
            values, reach = np.minimum(values, max_depth), max_depth
        agree = usable & (np.abs(predicted * factor - depths) <= tolerance * depths)
        alignment = _report(factor, 0.0, depths, predicted * factor, agree)
        return dataclasses.replace(depth, values=values, max_depth=reach, alignment=alignment)

    if method == "ransac":
        affine = ransac(predicted, 1 / depths, tolerance=tolerance, seed=seed)
    else:
        affine = least_squares(predicted, 1 / depths)
    if not affine.scale > 0:
        raise _disagreement(affine.scale)
    reach = float(depths[affine.used].max()) if max_depth is None else float(max_depth)
    at_known = metres(predicted, affine, reach)
    agree = affine.used if method == "ransac" else np.abs(affine(predicted) * depths - 1) <= tolerance
    return dataclasses.replace(
        depth,
        values=metres(depth.values, affine, reach),
        unit="metres",
        max_depth=reach,
        alignment=_report(affine.scale, affine.shift, depths, at_known, agree),
    )


def _report(scale: float, shift: float, known: np.ndarray, aligned: np.ndarray, agree: np.ndarray) -> Alignment:
    """The Alignment of pairs (N,), of which `agree` (N,) bool are the inliers."""
    inliers = int(agree.sum())
    if not inliers:
        return Alignment(scale, shift, len(known), 0, np.nan, np.nan, np.nan, np.nan)
    known_in, error = known[agree], np.abs(aligned - known)[agree]
    residual, rmse = float(np.median(error / known_in)), float(np.sqrt(np.mean(error**2)))
    return Alignment(scale, shift, len(known), inliers, residual, rmse, float(known_in.min()), float(known_in.max()))


def _doubt_unit(depths: np.ndarray, dtype: np.dtype) -> None:
    """Warns of known depths that are hardly metres."""
    middle = float(np.median(depths))
    if _NEAREST < middle < _FARTHEST:
        return
    low, high = (f"{end:,.0f}" if end >= 1000 else f"{end:.3g}" for end in (depths.min(), depths.max()))
    warn(
        f"the known depths ({dtype}) lie between {low} and {high}, hardly metres: divide "
        "millimetres (ARKit, NYU and most sensors) by 1000, depth of KITTI by 256",
        stacklevel=3,
    )


def _pairs(disparity, target, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Disparity, target and weight of the pairs that count, each (N,) float64, and which these are."""
    d, q = np.asarray(disparity, np.float64), np.asarray(target, np.float64)
    w = np.ones(d.shape) if weights is None else np.asarray(weights, np.float64)
    if not d.shape == q.shape == w.shape:
        raise Dav2Error(f"disparity {d.shape}, target {q.shape} and weights {w.shape} differ in shape")
    valid = np.isfinite(d) & np.isfinite(q) & (w > 0)
    d, q, w = d[valid], q[valid], w[valid]
    if d.size < 2:
        raise Dav2Error(f"{d.size} pairs of disparity and known depth: scale and shift need two or more")
    if np.ptp(d) <= 1e-6 * np.abs(d).max():  # float32 rounds at 6e-8
        raise Dav2Error(f"the disparity is {d[0]:g} wherever depths are known: scale and shift need two values or more")
    return d, q, w, valid


def _disagreement(scale: float | None = None) -> Dav2Error:
    found = "" if scale is None else f" (scale {scale:.3g})"
    return Dav2Error(
        f"what the prediction has nearer is farther in the known depths{found}: "
        "check that they belong to this photo, are depths and not disparities, and lie as (row, column)"
    )
