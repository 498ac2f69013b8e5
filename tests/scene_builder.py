"""Small scenes made of given shapes, for tests of the renderer against closed forms."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dav2_jax.scenes.camera import aim
from dav2_jax.scenes.shapes import PLACES, Material, Scene, by_kind, join, shape


def material(count: int, optics=0, thin=0, color=0.5) -> Material:
    def full(value):
        return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (count,))

    rgb = jnp.full((count, 3), color, jnp.float32)
    return Material(rgb, rgb, full(0), full(1), full(0), full(optics), full(thin), full(0), full(0.5))


def scene(kind, center, half, turn=None, form=None, optics=0, thin=0, ground: float = -1e3) -> Scene:
    """Shapes [N] without a room around; the ground is out of sight unless asked for."""
    count = len(kind)
    turn = np.broadcast_to(np.eye(3), (count, 3, 3)) if turn is None else turn
    form = np.zeros((count, 6)) if form is None else form
    arrays = [jnp.asarray(np.asarray(a), jnp.float32) for a in (kind, center, half, turn, form)]
    made = shape(*arrays, material(count, optics, thin))
    empty = shape(*[jnp.zeros((1, *a.shape[1:])) + 1.0 for a in arrays], material(1))._replace(kind=jnp.zeros(1))
    shapes = by_kind(join(made, empty), PLACES)
    one = material(1)
    flat = type(one)(*[leaf[0] for leaf in one])
    return Scene(
        shapes=shapes, ground=flat, ground_height=jnp.float32(ground),
        room=jnp.float32([-1e4] * 3 + [1e4] * 3), sun=jnp.float32([0.0, 0.8, -0.6]), sun_color=jnp.ones(3),
        sky=jnp.float32([0.2, 0.4, 1.0]), horizon=jnp.ones(3), clouds=jnp.float32(0), lamps=jnp.zeros((4, 6)),
        key_lamp=jnp.float32(0), ambient=jnp.full((2, 3), 0.2), fog=jnp.float32(0), fog_color=jnp.ones(3),
        footprints=jnp.tile(jnp.float32([1e4, 1e4, 0, 0, 1, 0]), (16, 1)), seed=jnp.float32(0.5),
    )  # fmt: skip


def camera(place=(0, 0, 0), target=(0, 0, 10), roll=0.0, focal=0.9, shift=(0, 0)):
    return aim(*[jnp.float32(value) for value in (place, target, roll, focal, shift)])


def rays(cam, k, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Origin [3] and directions [H, W, 3] of length 1 along the axis, in float64."""
    fx, fy, cx, cy = np.asarray(k, float)
    v, u = np.mgrid[:height, :width].astype(float)
    local = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1)
    return np.asarray(cam.place, float), local @ np.asarray(cam.turn, float).T
