"""V1's strong perturbations of the student's images, in JAX on the device: color jitter, gray, blur and CutMix.

They are elementwise work on batches of one size, which costs a device next to nothing and would keep the host's cores
busy. Each example draws from its own seed, so it gets the same changes in any batch, on any device and host.

Depth Anything names the kinds but no numbers; the defaults are those of UniMatch-V2, by the same first author
(`dataset/semi.py` and `dataset/transform.py` of LiheYoung/UniMatch-V2).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dav2_jax.image.normalize import normalize

RATIOS = 256  # shapes of a rectangle that CutMix chooses from


@dataclasses.dataclass(frozen=True)
class Strong:
    """How much and how often; a probability of 0 switches its kind off."""

    jitter: float = 0.8  # probability
    brightness: float = 0.5  # a factor of 1 - x to 1 + x, like the next two
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.25  # a turn of -x to x, 1 being the whole circle
    gray: float = 0.2  # probability
    blur: float = 0.5  # probability
    sigma: tuple[float, float] = (0.1, 2.0)  # of the blur, in pixels
    cutmix: float = 0.5  # probability
    area: tuple[float, float] = (0.02, 0.4)  # of the rectangle, a share of the image
    ratio: tuple[float, float] = (0.3, 1 / 0.3)  # its height over its width


class Mixed(NamedTuple):
    """A batch after CutMix: image i is image partner[i] where mask[i], and image i elsewhere.

    In V1's words u_ab = u_a M + u_b (1 - M), with u_b the example itself and u_a its partner. So the student's depth of
    row i is compared inside the mask with the teacher's map of the partner, `of_partner(maps)[i]`, and outside with
    maps[i], each region aligned by itself, and the two are weighted by their areas. Without CutMix the mask is empty.
    """

    images: jax.Array  # float32 [B, H, W, 3]
    partner: jax.Array  # int32 [B]: rows of the same batch
    mask: jax.Array  # bool [B, H, W]


def unit(images: jax.Array) -> jax.Array:
    """The loader's images, float32 or uint8 [B, H, W, 3] -> float32 of 0..1."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def network_input(images: jax.Array) -> jax.Array:
    """The loader's images, float32 or uint8 [B, H, W, 3] -> float32, normalized as the network expects them."""
    return normalize(unit(images), full=1)


def strong(images: jax.Array, seeds: jax.Array, settings: Strong = Strong()) -> Mixed:
    """All of it: colors of every image by itself, then CutMix.

    images  float32 of 0..1 or uint8 [B, H, W, 3]; the overshoot of the cubic is clipped
    seeds   uint32 [B], as the loader gives them: of the run, the epoch and the example
    """
    return cutmix(photometric(images, seeds, settings), seeds, settings)


def photometric(images: jax.Array, seeds: jax.Array, settings: Strong = Strong()) -> jax.Array:
    """Color jitter, gray and blur; images and seeds as for `strong`. float32 [B, H, W, 3] of 0..1."""
    images = jnp.clip(unit(images), 0, 1)
    return jax.vmap(functools.partial(_photometric, settings=settings))(images, _keys(seeds, 0))


def cutmix(images: jax.Array, seeds: jax.Array, settings: Strong = Strong()) -> Mixed:
    """Rectangles from the next image of the batch; float32 [B, H, W, 3], which may be split over devices and hosts."""
    batch, height, width, _ = images.shape
    rectangle = functools.partial(_rectangle, height=height, width=width, settings=settings)
    mask = jax.vmap(rectangle)(_keys(seeds, 1))
    partner = of_partner(jnp.arange(batch, dtype=jnp.int32))
    return Mixed(jnp.where(mask[..., None], of_partner(images), images), partner, mask)


def of_partner(values: jax.Array) -> jax.Array:
    """[B, ...]: in each row what its partner has. The partner is the next row, so devices exchange one row each."""
    return jnp.roll(values, -1, axis=0)


def _keys(seeds: jax.Array, purpose: int) -> jax.Array:
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), purpose))(seeds)


def _photometric(x: jax.Array, key: jax.Array, settings: Strong) -> jax.Array:
    chances, jittering, blurring = jax.random.split(key, 3)
    jittered, grayed, blurred = jax.random.uniform(chances, (3,))
    factors, turn, order = _draw_jitter(jittering, settings)
    x = jnp.where(jittered < settings.jitter, color_jitter(x, factors, turn, order), x)
    x = jnp.where(grayed < settings.gray, jnp.broadcast_to(luminance(x), x.shape), x)
    low, high = settings.sigma
    sigma = jax.random.uniform(blurring, minval=low, maxval=high)
    return jnp.where(blurred < settings.blur, gaussian_blur(x, sigma, radius=math.ceil(3 * high)), x)


def _draw_jitter(key: jax.Array, settings: Strong) -> tuple[jax.Array, jax.Array, jax.Array]:
    for_factors, for_turn, for_order = jax.random.split(key, 3)
    spread = jnp.array([settings.brightness, settings.contrast, settings.saturation])
    low = jnp.maximum(1 - spread, 0)
    factors = low + jax.random.uniform(for_factors, (3,)) * (1 + spread - low)
    turn = jax.random.uniform(for_turn, minval=-settings.hue, maxval=settings.hue)
    return factors, turn, jax.random.permutation(for_order, 4)


def color_jitter(x: jax.Array, factors: jax.Array, turn: jax.Array, order: jax.Array) -> jax.Array:
    """Brightness, contrast and saturation by `factors` [3] and hue by `turn`, one after another as `order` [4] says.

    x [H, W, 3] of 0..1. In `order` 0 is brightness, 1 contrast, 2 saturation, 3 hue. The formulas are those of
    torchvision on floats (`transforms/_functional_tensor.py`), which clip after each step.
    """
    place = jnp.argsort(order)  # of each of the four
    blends, before_hue = jnp.argsort(place[:3]), place[3]  # hue, the dearest, is thus computed once
    for step in range(3):
        x = jnp.where(step < before_hue, _blend(x, blends[step], factors), x)
    x = turn_hue(x, turn)
    for step in range(3):
        x = jnp.where(step < before_hue, x, _blend(x, blends[step], factors))
    return x


def _blend(x: jax.Array, kind: jax.Array, factors: jax.Array) -> jax.Array:
    gray = luminance(x)
    other = jnp.where(kind == 0, 0, jnp.where(kind == 1, gray.mean(), gray))
    return jnp.clip(factors[kind] * x + (1 - factors[kind]) * other, 0, 1)


def luminance(x: jax.Array) -> jax.Array:
    """[H, W, 3] -> [H, W, 1], with the weights of torchvision's grayscale."""
    return 0.2989 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]


def turn_hue(x: jax.Array, turn: jax.Array) -> jax.Array:
    """[H, W, 3] of 0..1 with its hue turned by a part of the circle; value and saturation (HSV) stay."""
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = x.max(-1)
    chroma = value - x.min(-1)
    by = jnp.where(chroma == 0, 1, chroma)
    sector = jnp.where(
        value == red,
        (green - blue) / by,
        jnp.where(value == green, 2 + (blue - red) / by, 4 + (red - green) / by),
    )
    sector = jnp.mod(sector + 6 * turn, 6)

    def channel(offset):
        k = jnp.mod(offset + sector, 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], -1)


def gaussian_blur(x: jax.Array, sigma: jax.Array, radius: int) -> jax.Array:
    """[H, W, 3] blurred by a Gaussian cut off at `radius` pixels, the border repeated."""
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if axis == side else (0, 0) for side in range(3)]
        padded = jnp.pad(x, pad, mode="edge")
        moved = (jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(2 * radius + 1))
        x = sum(weight * part for weight, part in zip(weights, moved, strict=True))
    return x


def _rectangle(key: jax.Array, height: int, width: int, settings: Strong) -> jax.Array:
    """bool [H, W]: the rectangle of CutMix, or nothing.

    UniMatch-V2 draws a shape and a corner until the rectangle lies inside the image. Here a shape is drawn with the
    probability that its rectangle would have been accepted, then a corner that fits: the same law, without a loop.
    """
    chance, for_area, for_ratio, for_top, for_left = jax.random.split(key, 5)
    low, high = settings.area
    area = jax.random.uniform(for_area, minval=low, maxval=high) * height * width
    low, high = settings.ratio
    ratios = low + (high - low) * (jnp.arange(RATIOS) + 0.5) / RATIOS
    fits = jnp.maximum(width + 1 - jnp.floor(jnp.sqrt(area / ratios)), 0)
    fits = fits * jnp.maximum(height + 1 - jnp.floor(jnp.sqrt(area * ratios)), 0)
    ratio = ratios[jax.random.categorical(for_ratio, jnp.log(fits))]
    box_height = jnp.floor(jnp.sqrt(area * ratio)).astype(jnp.int32)
    box_width = jnp.floor(jnp.sqrt(area / ratio)).astype(jnp.int32)
    top = jax.random.randint(for_top, (), 0, height + 1 - box_height)
    left = jax.random.randint(for_left, (), 0, width + 1 - box_width)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    inside = (rows >= top) & (rows < top + box_height) & (columns >= left) & (columns < left + box_width)
    return inside & (jax.random.uniform(chance) < settings.cutmix)
