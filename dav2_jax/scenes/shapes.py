"""What a scene is made of: boxes, rounds (spheres, cylinders, cones), cards (flat, with holes) and tori, as arrays.

World coordinates are metres, right-handed, y up. Every shape has a frame of its own in which it is a standard one, and
`to_local` takes the world there, so one formula a kind serves all sizes and turns:

    box    the cube [-1, 1]^3
    round  x^2 + z^2 <= q0 + q1 y + q2 y^2 for y in [-1, 1], closed by flat ends; form = (q0, q1, q2)
    card   the square [-1, 1]^2 of the plane z = 0, less its cut-outs; form = (code, five numbers), see `cutouts`
    torus  around y, radius 1 and tube radius form[0]; its frame must scale all axes alike
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

BOX, ROUND, CARD, TORUS = 1, 2, 3, 4  # 0 is an empty place
DULL, MIRROR, GLASS = 0, 1, 2

SPHERE = (1.0, 0.0, -1.0, 0.0, 0.0, 0.0)
CYLINDER = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def frustum(bottom: float, top: float) -> tuple[float, ...]:
    """The form of a round whose radius goes from `bottom` to `top`; (1, 0) is a cone."""
    mean, slope = (bottom + top) / 2, (top - bottom) / 2
    return (mean * mean, 2 * mean * slope, slope * slope, 0.0, 0.0, 0.0)


class Material(NamedTuple):
    """How a surface looks; float32 arrays with the leading axes of what they belong to."""

    color: jax.Array  # [..., 3] linear RGB
    color2: jax.Array  # [..., 3] the pattern's other color
    pattern: jax.Array  # which one: a place in textures.PATTERNS
    scale: jax.Array  # metres, the period of the pattern
    gloss: jax.Array  # 0 matt to 1 polished
    optics: jax.Array  # DULL, MIRROR or GLASS
    thin: jax.Array  # 1 for what the tag calls thin
    glow: jax.Array  # light of its own, times color
    seed: jax.Array  # 0 to 1: no two alike


class Shapes(NamedTuple):
    """N shapes; float32 throughout, so that a shape can be one row of a table."""

    kind: jax.Array  # [N]
    to_local: jax.Array  # [N, 3, 3]
    center: jax.Array  # [N, 3]
    form: jax.Array  # [N, 6]
    material: Material


class Scene(NamedTuple):
    """Everything that is seen, and the light on it. Lengths in metres, colors linear."""

    shapes: Shapes  # places by kind, empty ones at the end of each: see `by_kind`
    ground: Material  # of the plane y = ground_height, which ends 400 m away
    ground_height: jax.Array
    room: jax.Array  # [6]: low and high corner of the room around the camera; beyond 1e3: none
    sun: jax.Array  # [3] unit vector to the sun, or to the moon
    sun_color: jax.Array  # [3]
    sky: jax.Array  # [3] overhead
    horizon: jax.Array  # [3]
    clouds: jax.Array  # 0 clear to 1 overcast
    lamps: jax.Array  # [L, 6]: place, color times intensity; the first one casts shadows when `key_lamp` is 1
    key_lamp: jax.Array
    ambient: jax.Array  # [2, 3]: from above, from below
    fog: jax.Array  # 1 / metres
    fog_color: jax.Array  # [3]
    footprints: jax.Array  # [F, 6]: x, z, half sizes, cosine and sine of the turn of what stands on the floor
    seed: jax.Array  # 0 to 1


# Places of each kind in a scene. What does not fit is left out, the last in the list first.
PLACES = {BOX: 120, ROUND: 96, CARD: 48, TORUS: 4}
UNROLL = 2  # shapes that one pass over the rays tests


def shape(kind, center, half, turn, form, material) -> Shapes:
    """Shapes from half sizes along their own axes.

    kind [N], center [N, 3], half [N, 3] (metres, positive), turn [N, 3, 3] (columns are the shape's axes in the
    world), form [N, 6], material of [N].
    """
    to_local = jnp.swapaxes(turn, -1, -2) / half[..., :, None]
    return Shapes(jnp.float32(kind), to_local, center, jnp.float32(form), material)


def about_y(angle: jax.Array) -> jax.Array:
    """[..., 3, 3] rotations about the vertical; a positive angle takes z towards x."""
    c, s, o = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)
    return jnp.stack([jnp.stack([c, o, s], -1), jnp.stack([o, o + 1, o], -1), jnp.stack([-s, o, c], -1)], -2)


def join(*groups: Shapes) -> Shapes:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *groups)


def by_kind(shapes: Shapes, places: dict[int, int] = PLACES) -> Shapes:
    """Shapes sorted into the places of their kinds, in their order; places that are left over get kind 0."""
    groups = []
    for kind, room in places.items():
        mine = shapes.kind == kind
        order = jnp.argsort(~mine, stable=True)
        if order.shape[0] < room:
            order = jnp.pad(order, (0, room - order.shape[0]))
        order = order[:room]
        count = jnp.minimum(jnp.sum(mine), room)
        group = jax.tree.map(lambda leaf, order=order: leaf[order], shapes)
        groups.append(group._replace(kind=jnp.where(jnp.arange(room) < count, group.kind, 0.0)))
    return join(*groups)


def pack(*trees) -> jax.Array:
    """[N, K]: one row of numbers a shape, so that a pixel fetches its own in a single gather."""
    leaves = jax.tree.leaves(trees)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


def unpack_columns(columns: list[jax.Array]) -> Shapes:
    """Shapes from the columns of packed rows, each of any shape [...]; vectors become lists of columns."""
    take = iter(columns)

    def some(count):
        return [next(take) for _ in range(count)]

    kind, to_local, center, form = next(take), some(9), some(3), some(6)
    material = Material(some(3), some(3), *some(7))
    return Shapes(kind, [to_local[0:3], to_local[3:6], to_local[6:9]], center, form, material)
