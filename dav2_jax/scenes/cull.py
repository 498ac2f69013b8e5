"""Which shapes a bundle of rays can meet at all: most of a scene is out of the way of any small part of a picture.

Every shape lies in a box turned as its frame is; a direction's interval over that box is exact. A shape is left out
where its interval and that of the rays are apart in one direction, so nothing that could be met is ever left out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dav2_jax.scenes.shapes import CARD, ROUND, TORUS, Scene

SLACK = 0.02  # metres; rays start a little beside the surfaces that they leave


def _extent(scene: Scene, direction):
    """(low, high), [N] each, of direction . point over each shape; direction: three scalars."""
    shapes = scene.shapes
    frame = shapes.to_local
    axes = frame / jnp.maximum(jnp.sum(frame * frame, -1, keepdims=True), 1e-20)  # rows: half an axis each
    q0, q1, q2 = shapes.form[:, 0], shapes.form[:, 1], shapes.form[:, 2]
    # The widest place of a round is at an end, or at the middle of a ball; that of a torus is 1 + its tube.
    widest = jnp.sqrt(jnp.maximum(jnp.maximum(q0 + jnp.abs(q1) + q2, q0 + jnp.maximum(q2, 0.0)), 1e-12))
    is_torus = shapes.kind == TORUS
    around = jnp.where(shapes.kind == ROUND, widest, jnp.where(is_torus, 1 + q0, 1.0))
    x, y, z = direction
    reach = jnp.abs(axes[..., 0] * x + axes[..., 1] * y + axes[..., 2] * z)  # N 3
    flat = jnp.where(shapes.kind == CARD, 0.0, around)
    reach = reach[:, 0] * around + reach[:, 1] * jnp.where(is_torus, q0, 1.0) + reach[:, 2] * flat
    middle = shapes.center[:, 0] * x + shapes.center[:, 1] * y + shapes.center[:, 2] * z
    return middle - reach - SLACK, middle + reach + SLACK


def in_view(scene: Scene, camera, x, y) -> jax.Array:
    """bool [N]: shapes that camera rays through (x, y) [R], at depth 1, can meet."""
    possible = scene.shapes.kind > 0
    right, down, ahead = (camera.turn[:, i] for i in range(3))
    for plane in (right - jnp.min(x) * ahead, jnp.max(x) * ahead - right,
                  down - jnp.min(y) * ahead, jnp.max(y) * ahead - down, ahead):  # fmt: skip
        eye = jnp.sum(plane * camera.place)
        possible &= _extent(scene, tuple(plane))[1] >= eye
    return possible


def towards_light(scene: Scene, points, lit) -> jax.Array:
    """bool [N]: shapes between points [R] and the light that casts shadows; lit: bool [R], points that count."""

    def interval(direction):
        place = sum(p * q for p, q in zip(points, direction, strict=True))
        return jnp.min(jnp.where(lit, place, jnp.inf)), jnp.max(jnp.where(lit, place, -jnp.inf))

    sun, lamp = scene.sun, scene.lamps[0, :3]
    level = jnp.stack([sun[2], jnp.float32(0), -sun[0]])
    level = level / jnp.maximum(jnp.linalg.norm(level), 1e-6)
    other = jnp.cross(sun, level)
    from_sun = from_lamp = jnp.array(True)
    for direction in (level, other, sun):
        low, high = interval(tuple(direction))
        least, most = _extent(scene, tuple(direction))
        from_sun &= (most >= low) & ((least <= high) if direction is not sun else True)
    for axis in range(3):
        direction = tuple(1.0 if axis == i else 0.0 for i in range(3))
        low, high = interval(direction)
        least, most = _extent(scene, direction)
        from_lamp &= (most >= jnp.minimum(low, lamp[axis])) & (least <= jnp.maximum(high, lamp[axis]))
    return jnp.where(scene.key_lamp > 0, from_lamp, from_sun)
