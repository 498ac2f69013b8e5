"""What is at a hit: normal, coordinates on the surface, material."""

from __future__ import annotations

import jax.numpy as jnp

from dav2_jax.scenes.intersect import add, along, dot, scale, transform, unit
from dav2_jax.scenes.shapes import BOX, ROUND, TORUS, Scene, Shapes, pack, unpack_columns


def fetch(scene: Scene, which) -> Shapes:
    """The shapes at `which` [R], as columns [R]; the ground is the row after the last, and stands for the sky too."""
    table = pack(scene.shapes)
    rows = jnp.concatenate([table, _ground_row(scene, table.shape[1])])[jnp.where(which < 0, table.shape[0], which)]
    return unpack_columns([rows[:, column] for column in range(table.shape[1])])


def _ground_row(scene: Scene, width: int):
    material = jnp.concatenate([jnp.ravel(leaf) for leaf in scene.ground])
    return jnp.concatenate([jnp.zeros(width - material.shape[0]), material])[None]


def describe(one: Shapes, o, d, t):
    """(normal towards the ray's origin, u, v) of hits; u and v in metres.

    one: columns [R] from `fetch`; o, d, t: the rays.
    """
    point = along(o, d, t)
    x, y, z = transform(one.to_local, add(point, scale(one.center, -1)))
    sizes = [1 / jnp.sqrt(jnp.maximum(dot(row, row), 1e-20)) for row in one.to_local]
    sx, sy, sz = sizes
    ax, ay, az = jnp.abs(x), jnp.abs(y), jnp.abs(z)
    kind, form = one.kind, one.form

    face_x, face_y = (ax >= ay) & (ax >= az), (ay > ax) & (ay >= az)
    box_normal = (
        jnp.where(face_x, jnp.sign(x), 0.0),
        jnp.where(face_y, jnp.sign(y), 0.0),
        jnp.where(face_x | face_y, 0.0, jnp.sign(z)),
    )
    end = (ay > 0.999) & (x * x + z * z < 0.998 * (form[0] + form[1] * y + form[2] * y * y))
    round_normal = (
        jnp.where(end, 0.0, x),
        jnp.where(end, jnp.sign(y), -(form[1] / 2 + form[2] * y)),
        jnp.where(end, 0.0, z),
    )
    ring = jnp.sqrt(jnp.maximum(x * x + z * z, 1e-12))
    torus_normal = (x * (1 - 1 / ring), y, z * (1 - 1 / ring))

    is_box, is_round, is_torus = kind == BOX, kind == ROUND, kind == TORUS
    local = []
    for b, r, c, s in zip(box_normal, round_normal, (0.0, 0.0, 1.0), torus_normal, strict=True):
        local.append(jnp.where(is_box, b, jnp.where(is_round, r, jnp.where(is_torus, s, c))))
    rows = one.to_local
    world = tuple(local[0] * rows[0][i] + local[1] * rows[1][i] + local[2] * rows[2][i] for i in range(3))
    flat = kind == 0  # the ground
    world = (jnp.where(flat, 0.0, world[0]), jnp.where(flat, 1.0, world[1]), jnp.where(flat, 0.0, world[2]))
    normal = unit(world)
    normal = scale(normal, jnp.where(dot(normal, d) > 0, -1.0, 1.0))

    curved = (is_round & ~end) | is_torus
    angle = jnp.arctan2(z, x)
    u = jnp.where(curved, angle * sx, jnp.where(is_box & face_x, z * sz, x * sx))
    v = jnp.where((is_box & face_y) | (is_round & end), z * sz, y * sy)
    u, v = jnp.where(flat, point[0], u), jnp.where(flat, point[2], v)
    return normal, u, v
