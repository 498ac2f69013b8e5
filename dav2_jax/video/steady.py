"""A range for the pictures of a video that does not jump from frame to frame, and a figure for how much they flicker.

The official run_video.py draws each frame between its own smallest and largest value, so one pixel more or less makes
the whole picture jump. Averaging these ranges would not help: a relative model gives each frame a scale and a shift of
its own, and a range that lags behind them shows all of that. So `SteadyRange` first fits the frame to the steady
picture before it, which takes scale and shift away, and lets the range follow the scene slowly from there.
"""

from __future__ import annotations

import math

import numpy as np

NARROW, WIDEN = 1.0, 0.125  # seconds in which the range goes 63 % of the way to a narrower, and to a wider one
PERCENTILES = (0.5, 99.5)  # the robust range of one frame
_SAMPLES = 16_384  # sampled pixels per frame, on a grid
_FITS, _TRIM = 5, 2.5  # iterations of the trimmed fit, and its threshold in robust standard deviations
_LEAST_CORRELATION = 0.5  # least correlation of two frames that are aligned
_CUT, _CUT_RATIO = 12.0, 3.0  # thumbnail change that is a cut: absolute (of 255), and relative to the running average
_THUMBNAIL = 16  # pixels, height and width
_STILL = 2  # of 255: a pixel of the video that changes no more has not moved


def grid(array: np.ndarray) -> np.ndarray:
    """About 16,384 pixels of (H, W, ...), evenly spaced: a view."""
    step = math.isqrt(max(array.shape[0] * array.shape[1] // _SAMPLES, 1))
    return array[step // 2 :: step, step // 2 :: step]


class SteadyRange:
    """The depth range in which each frame of a video is drawn. Causal: a frame never depends on a later one.

    Its attributes (arrays, numbers or None) are its whole state.
    """

    def __init__(self):
        self.values = None  # (h, w) float32, the frame before, on the grid
        self.low = self.high = self.time = None  # how it was drawn, and when

    def limits(self, values: np.ndarray, time: float, new_scene: bool = False) -> tuple[float, float]:
        """The values (low, high) to draw as black and white in this frame; (0, 0) where nothing has a range yet.

        values     (H, W) float32 in any unit, not finite where unknown
        time       seconds, later than the frame before
        new_scene  forget all frames before: the first frame of a scene is drawn in its own robust range

        Source of the fit up to scale and shift: MiDaS (Ranftl et al. 2020, section 5), where it aligns prediction to
        ground truth.
        """
        values = np.ascontiguousarray(grid(values))
        own = _robust_range(values)
        if new_scene:
            self.values = None
        if own is None:  # a constant frame changes nothing
            return (0.0, 0.0) if self.values is None else (self.low, self.high)
        low, high = own if self.values is None else self._follow(values, own, time - self.time)
        self.values, self.low, self.high, self.time = values, low, high, time
        return low, high

    def _follow(self, values, own, elapsed):
        span = self.high - self.low
        to_steady = fit(values, (self.values - self.low) / span) if values.shape == self.values.shape else None
        scale, shift = to_steady or (1 / span, -self.low / span)  # without a fit: the range before
        # In units of the steady picture, which reaches from 0 to 1, this frame's own range is:
        low, high = (scale * end + shift for end in own)
        low = _share(elapsed, WIDEN if low < 0 else NARROW) * low
        high = 1 + _share(elapsed, WIDEN if high > 1 else NARROW) * (high - 1)
        return (low - shift) / scale, (high - shift) / scale


def _share(elapsed: float, seconds: float) -> float:
    return 1 - math.exp(-max(elapsed, 0.0) / seconds)


def _robust_range(values):
    known = values[np.isfinite(values)]
    if known.size == 0:
        return None
    low, high = (float(end) for end in np.percentile(known, PERCENTILES))
    return (low, high) if high > low else None


def fit(values: np.ndarray, target: np.ndarray) -> tuple[float, float] | None:
    """(scale, shift), scale > 0, such that scale * values + shift is close to `target` on most of the pixels.

    Pixels that do not fit (what moved, what appeared) are left out, in five rounds. The line is the one between the two
    regressions (reduced major axis): least squares would shrink the scale a little in each frame, because `values` are
    noisy too, and over a video that adds up. None where the two hardly correlate, such as in different scenes.
    """
    known = np.isfinite(values) & np.isfinite(target)
    x, y = values[known].astype(np.float64), target[known].astype(np.float64)
    inliers = np.ones(x.shape, bool)
    for _ in range(_FITS):
        if not inliers.any():
            return None
        x_mean, y_mean, x_std, y_std = x[inliers].mean(), y[inliers].mean(), x[inliers].std(), y[inliers].std()
        covariance = ((x[inliers] - x_mean) * (y[inliers] - y_mean)).mean()
        if not (covariance > 0 and x_std > 0):
            return None
        scale = y_std / x_std
        shift = y_mean - scale * x_mean
        residuals = np.abs(scale * x + shift - y)
        inliers = residuals <= max(_TRIM * 1.4826 * np.median(residuals), 1e-6)
    return (float(scale), float(shift)) if covariance > _LEAST_CORRELATION * x_std * y_std else None


class CutDetector:
    """Finds scene cuts: the whole picture changes, a lot, and much more than from frame to frame of late.

    Its attributes (arrays, numbers or None) are its whole state.
    """

    def __init__(self):
        self.thumbnail = None  # (16, 16, 3) float32, of the frame before
        self.average = (
            2 * _CUT / _CUT_RATIO
        )  # running average change, of 255; at first a guess, for videos that start in motion

    def is_cut(self, image: np.ndarray) -> bool:
        """Whether this frame, (H, W, 3) uint8, starts another scene; the first one does not."""
        thumbnail, before = _thumbnail(image), self.thumbnail
        self.thumbnail = thumbnail
        if before is None or before.shape != thumbnail.shape:
            return False
        change = float(np.abs(thumbnail - before).mean())
        usual = _CUT_RATIO * self.average
        self.average += 0.2 * (min(change, usual) - self.average)  # a cut counts little: the next one is found too
        return change > max(_CUT, usual)


def _thumbnail(image):
    """Block means: fine texture that moves by a pixel leaves them alone."""
    small = grid(image).astype(np.float32)
    for axis in (0, 1):
        starts = np.unique(np.linspace(0, small.shape[axis], _THUMBNAIL, endpoint=False).astype(int))
        sizes = np.diff(starts, append=small.shape[axis]).astype(np.float32)
        small = np.add.reduceat(small, starts, axis) / (sizes[:, None, None] if axis == 0 else sizes[None, :, None])
    return small


class Flicker:
    """The flicker figure: how much the drawn values change where the video does not.

    The mean absolute change of the drawn value from one frame to the next, in percent of the drawn range, over all
    pixels of which no color channel changes by more than 2 of 255, on a grid; scene cuts do not count. 0 is perfectly
    steady. Changes of the network's own, which no range can take away, count as well.

    Its attributes (arrays, numbers or None) are its whole state.
    """

    def __init__(self):
        self.image = self.drawn = None  # of the frame before, on the grid
        self.total, self.pixels = 0.0, 0

    def add(self, image: np.ndarray, values: np.ndarray, limits: tuple[float, float], new_scene: bool = False) -> None:
        """Count one frame: image (H, W, 3) uint8, values (H, W) drawn between limits (low, high), clipped."""
        low, high = limits
        image = grid(image).astype(np.int16)
        with np.errstate(invalid="ignore"):  # infinite values: they are not counted
            drawn = ((grid(values) - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(grid(values))
        if self.image is not None and not new_scene and image.shape == self.image.shape:
            still = (np.abs(image - self.image) <= _STILL).all(axis=-1)
            changes = np.abs(drawn - self.drawn)[still]
            changes = changes[np.isfinite(changes)]
            self.total += float(changes.sum(dtype=np.float64))
            self.pixels += changes.size
        self.image, self.drawn = image, drawn

    @property
    def percent(self) -> float | None:
        """Percent of the range; None where no pixel of the video stayed as it was."""
        return 100 * self.total / self.pixels if self.pixels else None
