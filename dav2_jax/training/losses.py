"""Losses: metric depth (SiLog), relative depth (L_ssi + 2 L_gm, trimmed), feature alignment and CutMix.

Depth Anything published the metric loss alone; the others are built from the papers and from the loss code of MiDaS
and of the authors' own Video Depth Anything, and say where they follow which.

- A loss takes (prediction, target, valid): [B, H, W] each, of any float type, and computes in float32. Values where
  `valid` is False do not matter, NaN included. Targets get no gradient.
- Reduction is batch-based, as in the code of MiDaS and Video Depth Anything: one sum over all pixels of the global
  batch over one count. Under `jit` with a batch that is split over devices the value is therefore the same, up to the
  order of the sums (about 1e-7 relative), for any number of them.
- An image does not count, and has a gradient of exactly zero, where it has fewer than MIN_VALID valid pixels or its
  target is constant: all sky, an empty mask, padding. Nothing that counts: the loss is 0.
- A prediction that is not finite at a valid pixel makes the loss NaN: that must stop a run, not hide.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from dav2_jax.evaluation import metrics
from dav2_jax.training.order_statistics import kth_smallest, median

MIN_VALID = 10  # pixels; below, the official validation skips an image (metric_depth/train.py)
FIXED_MEDIAN, FIXED_MOST = 2.0, 12.0  # of the targets of fixed_scale_loss, in mean deviations
_CONSTANT = 1e-6  # mean deviation, of values up to 1 or 2; float32 rounds at 6e-8


def silog(prediction: Array, target: Array, valid: Array, *, lambd: float = 0.5) -> Array:
    """sqrt(mean(g^2) - lambd * mean(g)^2) with g = log(target / prediction), over all valid pixels of the batch.

    prediction, target  metres, positive. A prediction that underflowed to 0 counts as the smallest normal number.
    valid               also leaves out sky, whose target is infinite, and what the model's range does not reach

    Official code: metric_depth/util/loss.py, with this lambd and no factor of 10. There a perfect prediction has the
    gradient NaN (the square root at 0) and a zero gives infinity; here the gradients are 0. Nothing else differs.
    """
    prediction, target, valid = _checked(prediction, target, valid)
    tiny = jnp.finfo(prediction.dtype).tiny
    log_ratio = jnp.log(jnp.where(valid, target, 1)) - jnp.log(jnp.maximum(jnp.where(valid, prediction, 1), tiny))
    count = _per_image(valid)
    square = _ratio(_per_image(log_ratio**2), count)
    mean = _ratio(_per_image(log_ratio), count)
    variance = square - lambd * mean**2
    perfect = variance <= 0  # also what rounding makes negative; False for NaN
    return jnp.where(perfect, 0, jnp.sqrt(jnp.where(perfect, 1, variance)))


class Normalized(NamedTuple):
    """values: (map - shift) / scale, [B, H, W], 0 where not valid. shift, scale: [B]; a scale of 0 says that the map
    is constant or has fewer than MIN_VALID valid pixels."""

    values: Array
    shift: Array
    scale: Array


def affine_normalize(maps: Array, valid: Array) -> Normalized:
    """Each map without its shift, the median of its valid values, and its scale, their mean distance from it.

    MiDaS equation 5 and 6; Depth Anything V1 section 3.1. The median is the lower middle, as torch.median, and of valid
    pixels only (Video Depth Anything lets the others in as zeros). Gradients flow through shift and scale, as in the
    code of MiDaS and Video Depth Anything, and as they must if the loss is to be blind to both. A constant map becomes
    0, with the gradient of (map - shift) / its own size, so that training can leave that state.
    """
    maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
    maps = jnp.where(valid, maps, 0)
    # First by a power of two, which is exact, to the size of 1: the gradient of a division has the square of the scale.
    largest = lax.stop_gradient(jnp.max(jnp.abs(maps), axis=(1, 2)))
    size = jnp.where(largest == 0, 1, largest / (2 * jnp.frexp(largest)[0]))  # NaN for NaN and infinity
    maps = maps / size[:, None, None]
    count = _per_image(valid)
    shift = median(maps, valid)
    centered = jnp.where(valid, maps - shift[:, None, None], 0)
    deviation = _per_image(jnp.abs(centered)) / jnp.maximum(count, 1)
    nothing = (count < MIN_VALID) | (deviation <= _CONSTANT)  # and False for NaN
    values = centered / jnp.where(nothing, 1, deviation)[:, None, None]
    return Normalized(values, shift * size, jnp.where(nothing, 0, deviation * size))


def trim(residuals: Array, valid: Array, share: float = 0.1) -> Array:
    """Weights [B, H, W] that drop the largest residuals of each image: 1 for those that stay, 0 for the others.

    residuals  at least 0
    share      to drop, in steps of 0.0001. Of N valid pixels the floor((1 - share) * N) smallest stay: per image, where
               Video Depth Anything sorts the whole batch. Pixels equal to the largest that stays share what is left, so
               that the weights always add up to this number.

    Depth Anything V2 section 5.2 ("regions" of 10 %; pixels here, the paper does not say); MiDaS `ssitrim`.
    """
    residuals = lax.stop_gradient(residuals)
    count = jnp.sum(valid, axis=(1, 2), dtype=jnp.int32)
    parts = round((1 - share) * 10_000)
    keep = count // 10_000 * parts + count % 10_000 * parts // 10_000  # in integers: 0.9 is no float, and N * 0.9 not N
    threshold = kth_smallest(residuals, valid, jnp.maximum(keep - 1, 0))[:, None, None]
    below, equal = valid & (residuals < threshold), valid & (residuals == threshold)
    left = (keep - _per_image(below)) / jnp.maximum(_per_image(equal), 1)
    return below + equal * left[:, None, None]


def ssi(prediction: Array, target: Array, valid: Array, *, trim: float = 0.0) -> Array:
    """L_ssi: mean |p - t| over valid pixels, where p and t are the affine-normalized disparities; at most 2.

    trim  share of the largest residuals of each image that does not count. The sum of the others is divided by the
          number of all valid pixels, as MiDaS and Video Depth Anything do (without their factor of 1/2).

    Depth Anything V1 section 3.1. Does not change under scale > 0 and shift of prediction or target. A constant
    prediction has the loss 1.
    """
    residual, counted = _residual(prediction, target, valid)
    return _mean_residual(residual, counted, trim)


def gradient_matching(prediction: Array, target: Array, valid: Array, *, scales: int = 4) -> Array:
    """L_gm: mean |dx (p - t)| + |dy (p - t)| of affine-normalized disparities, summed over scales of 1, 2, 4, 8 pixels.

    MiDaS equation 11, in the form of its code and of Video Depth Anything: a scale takes every k-th pixel, without
    averaging; a difference counts where both of its pixels are valid, and each sum is divided by the valid pixels of
    that scale. Not trimmed. Invariant as `ssi`.
    """
    residual, counted = _residual(prediction, target, valid)
    return _mean_gradient(residual, counted, scales)


def relative_loss(
    prediction: Array,
    target: Array,
    valid: Array,
    *,
    gm_weight: float = 2.0,
    trim: float = 0.1,
    scales: int = 4,
) -> tuple[Array, dict[str, Array]]:
    """(ssi + gm_weight * gm, {"ssi", "gm"}): the loss of relative depth, with its two parts for the log.

    prediction, target  disparity; sky is 0 and valid
    trim                0.1 for pseudo-labels; 0 for labels that are right, as those of synthetic scenes

    Weights and trimming of Depth Anything V2 (sections 5.2, 7.1 and B.7; MiDaS has gm_weight 0.5).
    """
    residual, counted = _residual(prediction, target, valid)
    parts = {
        "ssi": _mean_residual(residual, counted, trim),
        "gm": _mean_gradient(residual, counted, scales),
    }
    return parts["ssi"] + gm_weight * parts["gm"], parts


def fixed_scale_loss(
    prediction: Array, target: Array, valid: Array, *, gm_weight: float = 0.2, scales: int = 4
) -> tuple[Array, dict[str, Array]]:
    """(ssi + gm_weight * gm, {"ssi", "gm"}) as `relative_loss`, but the prediction is taken as it is.

    The target of an image is its disparity with a median of FIXED_MEDIAN and a mean deviation of 1, cut to 0 and
    FIXED_MOST. So scale and shift of the prediction are fixed, and this is plain regression. For learning from random
    numbers, where `relative_loss` is slow: it divides by the small and noisy scale that such a prediction has.
    """
    prediction, target, valid = _checked(prediction, target, valid)
    wanted = affine_normalize(target, valid)
    counted = valid & (wanted.scale != 0)[:, None, None]
    aim = jnp.clip(wanted.values + FIXED_MEDIAN, 0, FIXED_MOST)
    residual = jnp.where(counted, prediction - aim, 0)
    parts = {
        "ssi": _mean_residual(residual, counted, 0.0),
        "gm": _mean_gradient(residual, counted, scales),
    }
    return parts["ssi"] + gm_weight * parts["gm"], parts


def aligned_loss(
    prediction: Array, target: Array, valid: Array, *, scale_weight: float = 0.3, **options
) -> tuple[Array, dict[str, Array]]:
    """(miss + scale_weight * fixed_scale_loss(..., **options), {"miss", "ssi", "gm"}): what zero-shot scores look at.

    miss is the mean over images of the mean of e / (e + log 1.25) over the pixels of finite depth, where e is the
    absolute error of log depth after the least-squares fit of the benchmarks, `metrics.align_affine`, through which the
    gradient goes. e = log 1.25, the limit of delta1, counts 1/2: pixels near it have most to say, and those that are
    lost have little.

    For the last part of a training: the fit of a prediction that knows nothing is noise.
    """
    prediction, target, valid = _checked(prediction, target, valid)
    known = valid & (target > 0)
    counted = affine_normalize(target, known).scale != 0
    known &= counted[:, None, None]
    depth = 1 / jnp.where(known, target, 1)
    aligned = metrics.align_affine(jnp.where(known, prediction, 0), depth, known)
    error = jnp.where(known, jnp.abs(jnp.log(aligned) - jnp.log(depth)), 0)
    of_image = _per_image(error / (error + math.log(1.25))) / jnp.maximum(_per_image(known), 1)
    rest, parts = fixed_scale_loss(prediction, target, valid, **options)
    miss = _ratio(of_image, counted.astype(prediction.dtype))
    return miss + scale_weight * rest, {"miss": miss} | parts


def cutmix_loss(
    prediction: Array, target_inside: Array, target_outside: Array, inside: Array, valid: Array, **options
) -> tuple[Array, dict[str, Array]]:
    """`relative_loss` (which see for options and result) of an image put together from two, each part on its own.

    prediction      of the mixed image
    target_inside   of the image that was pasted, target_outside: of the other one, both in the mixed image's frame
    inside          bool [B, H, W]: where the pasted image is seen; all False for an image that was not mixed
    valid           bool [B, H, W]: where the target that applies is known

    Depth Anything V1 section 3.2: each region has its own shift and scale, because two photos have, and counts by its
    area. With one sum over all pixels that is what two separate maps in one batch give.
    """
    _checked(prediction, target_inside, inside)
    _checked(prediction, target_outside, valid)
    both = [
        # [B, 2, H, W] -> [2 B, H, W]: the halves of an image stay on its device
        jnp.stack(pair, axis=1).reshape(-1, *prediction.shape[1:])
        for pair in (
            (prediction, prediction),
            (target_inside, target_outside),
            (valid & inside, valid & ~inside),
        )
    ]
    return relative_loss(*both, **options)


def feature_alignment(features: Array, frozen: Array, valid: Array | None = None, *, margin: float = 0.85) -> Array:
    """L_feat: mean (1 - cos) between the trained encoder's features and those of a frozen DINOv2.

    features, frozen  [B, N, D]: the final patch features, of encoders of the same width
    valid             bool [B, N] or None: positions that take part, such as those of unlabeled images
    margin            positions with a larger cosine are left alone. They count as 0 in the mean, which keeps the weight
                      of the others what it is in the paper, 1 / N

    Depth Anything V1 section 3.3; the authors on the margin and the features: LiheYoung/Depth-Anything issues 80 and
    224. A feature of all zeros has cosine 0 and no gradient.
    """
    if valid is None:
        valid = jnp.ones(features.shape[:2], bool)
    if not features.shape == frozen.shape or not features.shape[:2] == valid.shape:
        raise ValueError(f"features {features.shape}, frozen {frozen.shape} and valid {valid.shape} do not match")
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    features = jnp.where(valid[..., None], features.astype(dtype), 0)
    frozen = jnp.where(valid[..., None], lax.stop_gradient(frozen).astype(dtype), 0)
    cosine = jnp.sum(_unit(features) * _unit(frozen), axis=-1)
    loss = jnp.where(valid & ~(cosine > margin), 1 - cosine, 0)
    return _ratio(jnp.sum(loss, axis=1), jnp.sum(valid, axis=1, dtype=dtype))


def _residual(prediction: Array, target: Array, valid: Array) -> tuple[Array, Array]:
    """The difference of the normalized maps, 0 where it does not count, and where it counts; both [B, H, W]."""
    prediction, target, valid = _checked(prediction, target, valid)
    wanted = affine_normalize(target, valid)
    counted = valid & (wanted.scale != 0)[:, None, None]  # True for NaN: a broken target must not pass unseen
    given = affine_normalize(prediction, counted)
    return jnp.where(counted, given.values - wanted.values, 0), counted


def _mean_residual(residual: Array, counted: Array, share: float) -> Array:
    size = jnp.abs(residual)
    weighted = size * trim(size, counted, share) if share else size
    return _ratio(_per_image(weighted), _per_image(counted))


def _mean_gradient(residual: Array, counted: Array, scales: int) -> Array:
    loss = jnp.zeros((), residual.dtype)
    for step in (2**k for k in range(scales)):
        r, m = residual[:, ::step, ::step], counted[:, ::step, ::step]
        down = jnp.where(m[:, 1:] & m[:, :-1], jnp.abs(r[:, 1:] - r[:, :-1]), 0)
        across = jnp.where(m[:, :, 1:] & m[:, :, :-1], jnp.abs(r[:, :, 1:] - r[:, :, :-1]), 0)
        loss += _ratio(_per_image(down) + _per_image(across), _per_image(m))
    return loss


def _checked(prediction: Array, target: Array, valid: Array) -> tuple[Array, Array, Array]:
    """In float32, or float64 if the prediction is; the target without gradient."""
    if not prediction.shape == target.shape == valid.shape or prediction.ndim != 3:
        raise ValueError(
            f"prediction {prediction.shape}, target {target.shape} and valid {valid.shape} must be one [B, H, W]"
        )
    dtype = jnp.promote_types(prediction.dtype, jnp.float32)
    return prediction.astype(dtype), lax.stop_gradient(target).astype(dtype), valid


def _per_image(maps: Array) -> Array:
    """[B]: the sum over the pixels of each image; a float, also of a mask."""
    dtype = jnp.float32 if maps.dtype == bool else maps.dtype
    return jnp.sum(maps, axis=(1, 2), dtype=dtype)


def _ratio(totals: Array, counts: Array) -> Array:
    """Sum over sum, over the global batch; 0 where nothing was counted."""
    return jnp.sum(totals) / jnp.maximum(jnp.sum(counts), 1)


def _unit(vectors: Array) -> Array:
    square = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return jnp.where(square > 0, vectors / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
