"""The nine metrics of depth, per image and as means, on the device; and relative depth made comparable.

Everything takes [B, H, W] arrays, of NumPy or JAX, and can run under `jit` with a batch that is split over devices:
validation then needs no gathering of maps. Depth that is not known, not positive or infinite (sky) is not scored.

    scores = image_metrics(prediction, depth, valid)          nine values an image
    total = totals(scores)                                    their sums, to be added up over batches
    mean(total)                                               the means over images, as Python floats

    metres = align_affine(disparity, depth, valid)            for relative models; then as above
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from dav2_jax.data.example import TAGS

NAMES = ("d1", "d2", "d3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog")
MIN_VALID = 10  # pixels; the official validation skips an image with fewer (metric_depth/train.py)

Scores = dict[str, Array]


def image_metrics(prediction: Array, depth: Array, valid: Array, region: Array | None = None) -> Scores:
    """The metrics of each image over its valid pixels: float32 [B] by NAMES, and "images", 1 or 0.

    prediction  depth as predicted, in the unit of `depth`; 0 and negative values count as the smallest normal number,
                where the official code gives infinity or NaN
    depth       as known; `valid` says where
    region      bool [B, H, W]: score these pixels alone

    With p predicted and g known depth and e = log p - log g, means over pixels: d1, d2, d3 the share with
    max(p/g, g/p) below 1.25, 1.25^2, 1.25^3; abs_rel |p-g|/g; sq_rel (p-g)^2/g; rmse; rmse_log of e; log10
    |log10 p - log10 g|; silog sqrt(mean e^2 - mean(e)^2 / 2), as the official code (metric_depth/util/metric.py), so
    without the factor 100 of others. Depth is not clipped and not cropped, as there.

    An image with fewer than MIN_VALID such pixels has "images" 0, and 0 for all values. A prediction that is not finite
    gives NaN or infinity, it is not left out.
    """
    prediction, depth = (jnp.asarray(a, jnp.float32) for a in (prediction, depth))
    known = _known(depth, valid)
    if region is not None:
        known &= region
    count = jnp.sum(known, axis=(1, 2), dtype=jnp.float32)

    def mean_of(values):
        return jnp.sum(jnp.where(known, values, 0), axis=(1, 2)) / jnp.maximum(count, 1)

    g = jnp.where(known, depth, 1)
    p = jnp.maximum(jnp.where(known, prediction, 1), jnp.finfo(jnp.float32).tiny)
    ratio, difference, log = jnp.maximum(p / g, g / p), p - g, jnp.log(p) - jnp.log(g)
    scores = {f"d{k}": jnp.where(jnp.isnan(ratio).any((1, 2)), jnp.nan, mean_of(ratio < 1.25**k)) for k in (1, 2, 3)}
    square = mean_of(log**2)
    scores |= {
        "abs_rel": mean_of(jnp.abs(difference) / g),
        "sq_rel": mean_of(difference**2 / g),
        "rmse": jnp.sqrt(mean_of(difference**2)),
        "rmse_log": jnp.sqrt(square),
        "log10": mean_of(jnp.abs(log)) / math.log(10),
        "silog": jnp.sqrt(square - 0.5 * mean_of(log) ** 2),  # at least square / 2, so never below 0
    }
    enough = count >= MIN_VALID
    return {name: jnp.where(enough, scores[name], 0) for name in NAMES} | {"images": enough.astype(jnp.float32)}


def tag_metrics(prediction: Array, depth: Array, valid: Array, tag: Array) -> dict[str, Scores]:
    """`image_metrics` of what bears each tag, by the names in TAGS; tag is uint8 [B, H, W], see data/example.py.

    Aligned depth belongs in here aligned on the whole image: a fit on the glass alone would not see that the glass is
    predicted as what is behind it. Sky has no depth, so its scores are of 0 images.
    """
    tag = jnp.asarray(tag)
    return {name: image_metrics(prediction, depth, valid, tag == k) for k, name in enumerate(TAGS)}


def totals(scores: Scores) -> Scores:
    """Sums over the images of a batch, and how many these are: scalars, to be added over batches and processes."""
    return {name: jnp.sum(values) for name, values in scores.items()}


def mean(total: Scores) -> dict[str, float]:
    """The mean over images of each metric in NAMES, from sums; NaN if there was no image to score."""
    images = float(total["images"])
    return {name: float(total[name]) / images if images else math.nan for name in NAMES}


def align_affine(disparity: Array, depth: Array, valid: Array, max_depth: float | None = None) -> Array:
    """[B, H, W]: depth 1 / max(s * disparity + t, 1 / max_depth), where s and t fit each image best.

    disparity  as predicted, up to a scale and a shift
    depth      as known, in metres or any other unit; the result is in it
    max_depth  None: the largest known depth of the image, as MoGe. `evaluation.align` lists the other conventions

    s and t are those of `align.least_squares` for the target 1 / depth, over all known pixels of an image, here for
    batches on the device, in float32 (float64 if the disparity is) on centered values. Two cases that are errors there:
    a constant disparity gets s = 0, the mean for all pixels; an image without known depth gets 1 everywhere.
    """
    dtype = jnp.promote_types(jnp.asarray(disparity).dtype, jnp.float32)
    disparity, depth = (jnp.asarray(a, dtype) for a in (disparity, depth))
    known = _known(depth, valid)
    count = jnp.maximum(jnp.sum(known, axis=(1, 2), keepdims=True), 1)

    def mean_of(values):
        return jnp.sum(jnp.where(known, values, 0), axis=(1, 2), keepdims=True) / count

    wanted = 1 / jnp.where(known, depth, 1)
    middle, level = mean_of(disparity), mean_of(wanted)
    centered = disparity - middle
    # As a share of its size, or squares of small disparities would underflow.
    size = jnp.max(jnp.where(known, jnp.abs(centered), 0), axis=(1, 2), keepdims=True)
    flat = size <= 1e-6 * jnp.abs(middle)  # as in `align`; float32 rounds at 6e-8
    centered = centered / jnp.where(flat, 1, size)
    variance = mean_of(centered**2)
    slope = jnp.where(flat, 0, mean_of(centered * (wanted - level)) / jnp.where(flat, 1, variance))
    if max_depth is None:
        farthest = jnp.max(jnp.where(known, depth, 0), axis=(1, 2), keepdims=True)
    else:
        farthest = jnp.full(count.shape, max_depth, dtype)
    farthest = jnp.where(known.any((1, 2), keepdims=True), farthest, 1)
    fitted = slope * centered + level
    return 1 / jnp.maximum(fitted, 1 / farthest)


def _known(depth: Array, valid: Array) -> Array:
    return jnp.asarray(valid) & (depth > 0) & (depth < jnp.inf)
