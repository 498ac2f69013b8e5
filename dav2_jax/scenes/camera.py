"""Where the camera stands and how it is turned."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dav2_jax.scenes.render import Camera


def aim(place, target, roll, focal, shift) -> Camera:
    """A camera at `place` that looks at `target`, both [3], turned by `roll` radians about its axis."""
    ahead = target - place
    ahead = ahead / jnp.linalg.norm(ahead)
    right = jnp.stack([-ahead[2], jnp.float32(0), ahead[0]])
    right = right / jnp.linalg.norm(right)
    down = jnp.cross(ahead, right)
    c, s = jnp.cos(roll), jnp.sin(roll)
    right, down = c * right + s * down, c * down - s * right
    turn: jax.Array = jnp.stack([right, down, ahead], axis=1)
    return Camera(place, turn, focal, shift)
