"""From linear light to a picture: automatic exposure and a tone curve, and what a real lens and sensor add to that."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dav2_jax.scenes.palette import Style


def develop(key: jax.Array, color: jax.Array, style: Style, photographic: bool) -> jax.Array:
    """uint8 [H, W, 3] from linear color [H, W, 3].

    photographic: exposure that is a little off, white balance, vignette, blur, noise of light and of the sensor;
    stronger where the style is "worn". Without it: the tone curve alone.
    """
    height, width = color.shape[:2]
    keys = jax.random.split(key, 8)
    worn = style == "worn"
    bright = color @ jnp.float32([0.25, 0.6, 0.15])
    level = jnp.exp(jnp.mean(jnp.log(jnp.clip(bright, 1e-3, 20.0))))
    gain = 0.33 / level**0.85  # dark scenes stay a little dark
    if photographic:
        gain *= 2 ** (jax.random.uniform(keys[0], minval=-0.7, maxval=0.5) - 0.05 * worn)
        warmth = jax.random.uniform(keys[1], minval=-0.14, maxval=0.14) + 0.05 * worn
        green = jax.random.uniform(keys[2], minval=-0.04, maxval=0.04)
        color = color * jnp.exp(jnp.stack([warmth, green, -warmth]))[None, None]
        y = (jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5) / height * 2 - 1
        x = (jnp.arange(width, dtype=jnp.float32)[None] + 0.5) / width * 2 - 1
        dark = jax.random.uniform(keys[3], minval=0.0, maxval=0.35 if worn else 0.2)
        color = color * (1 - dark * (x * x + y * y) / 2)[..., None]
        sigma = jax.random.uniform(keys[4], minval=0.25, maxval=0.8 if worn else 0.6)
        color = _blur(_blur(color, sigma, 0), sigma, 1)
    color = color * gain
    if photographic:
        strength = jax.random.uniform(keys[5], minval=0.002, maxval=0.03 if worn else 0.012)
        noise = jax.random.normal(keys[6], color.shape)
        color = color + strength * noise * jnp.sqrt(jnp.maximum(color, 0.0) + 0.01)
    color = jnp.maximum(color, 0)
    gray = (color @ jnp.float32([0.25, 0.6, 0.15]))[..., None]
    color = gray + (color - gray) * (0.72 if worn else 1.08)  # saturation
    curve = color * (1 + color / 16) / (1 + 0.75 * color)
    if worn:
        curve = curve * 0.93 + 0.012  # faded blacks
    return (jnp.clip(curve, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(jnp.uint8)


def _blur(color: jax.Array, sigma: jax.Array, axis: int) -> jax.Array:
    """A Gaussian of up to 5 pixels; edges repeat."""
    weights = jnp.exp(-0.5 * (jnp.arange(-2, 3) / sigma) ** 2)
    weights = weights / jnp.sum(weights)
    pad = [(2, 2) if number == axis else (0, 0) for number in range(3)]
    padded = jnp.pad(color, pad, mode="edge")
    size = color.shape[axis]
    parts = [weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5)]
    return sum(parts[1:], parts[0])
