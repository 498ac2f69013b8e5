"""Scene number `index` of the endless list `seed`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dav2_jax.scenes import garden, room, street
from dav2_jax.scenes.palette import Style
from dav2_jax.scenes.render import Camera
from dav2_jax.scenes.shapes import Scene

KINDS = (("room", 0.48, room.make), ("street", 0.30, street.make), ("garden", 0.22, garden.make))


def scene(key: jax.Array, style: Style) -> tuple[Scene, Camera, jax.Array]:
    """(Scene, Camera, kind): kind is a place in KINDS, int32."""
    which, rest = jax.random.split(key)
    kind = jax.random.choice(which, len(KINDS), p=jnp.float32([share for _, share, _ in KINDS]))
    # Layouts are sums of places [N, 3] and offsets [3]; the strict mode for ranks would only make them hard to read.
    with jax.numpy_rank_promotion("allow"):
        made = jax.lax.switch(kind, [lambda rest, make=make: make(rest, style) for _, _, make in KINDS], rest)
    return *made, kind
