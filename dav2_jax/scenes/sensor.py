"""What a depth camera, or a lidar outdoors, would have labeled: the flaws that the paper blames real labels for.

glass     measured through: the depth of what is behind it, or a hole
mirror    the depth of the reflected scene, as far behind the mirror as that is before it, or a hole
thin      lost: the depth of what is behind
edges     holes beside foreground objects, and foreground that is too wide
range     nothing nearer than 0.3 m, farther than 9 m indoors or 80 m outdoors, and nothing in the sky
noise     growing with the square of depth indoors (triangulation), with depth outdoors
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dav2_jax.scenes.render import Picture
from dav2_jax.scenes.tags import TAGS
from dav2_jax.scenes.textures import noise


def measure(key: jax.Array, picture: Picture, indoors: jax.Array) -> jax.Array:
    """float32 [H, W]: metres along the optical axis, 0 where the sensor sees nothing."""
    height, width = picture.depth.shape
    keys = jax.random.split(key, 5)
    tag = picture.tag
    v, u = jnp.mgrid[:height, :width].astype(jnp.float32) * (40 / max(height, width))

    def patches(number, size):
        """[H, W] in 0 to 1, alike within about 1/40 of the picture times `size`."""
        return noise(u / size, v / size, jax.random.uniform(keys[number]))

    glass, mirror, thin = (tag == TAGS.index(name) for name in ("glass", "mirror", "thin"))
    depth = jnp.where(glass | mirror | (thin & (patches(0, 1.5) < 0.75)), picture.behind, picture.depth)
    far, near = _window(depth, jnp.maximum), _window(depth, jnp.minimum)
    ragged = patches(1, 0.7)
    edge = far > near * 1.06
    depth = jnp.where(edge & (ragged < 0.45), near, depth)  # foreground grows by a pixel
    hole = edge & (depth > near * 1.03) & (ragged > 0.6)
    hole |= (glass | mirror) & (patches(2, 2.0) > 0.72)
    hole |= patches(3, 1.2) > jnp.where(indoors, 0.93, 0.9)

    finite = jnp.where(jnp.isfinite(depth), depth, 0.0)
    sigma = jnp.where(indoors, 0.001 + 0.0022 * finite * finite, 0.01 + 0.004 * finite)
    measured = finite + sigma * jax.random.normal(keys[4], depth.shape)
    # Indoors depth comes in steps of disparity: an eighth of a pixel of a camera with 40 pixel metres.
    steps = jnp.round(320 / jnp.maximum(measured, 0.1))
    measured = jnp.where(indoors, 320 / jnp.maximum(steps, 1), measured)
    hole |= (finite < 0.3) | (finite > jnp.where(indoors, 9.0, 80.0))
    return jnp.where(hole, 0.0, jnp.maximum(measured, 0.05))


def _window(values: jax.Array, choose) -> jax.Array:
    """The largest or smallest of the 3 x 3 pixels around each."""
    for axis in (0, 1):
        pad = [(1, 1) if number == axis else (0, 0) for number in range(2)]
        wide = jnp.pad(values, pad, mode="edge")
        size = values.shape[axis]
        parts = [jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i in range(3)]
        values = choose(choose(parts[0], parts[1]), parts[2])
    return values
