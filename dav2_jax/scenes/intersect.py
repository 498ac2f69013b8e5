"""Where rays meet shapes, and the surface there.

A ray is origin + t * direction; directions are not of unit length: those of a camera have a length of 1 along the
optical axis, so t of a first hit *is* the depth. Vectors are tuples of three arrays [R], or of scalars where all rays
share them, because XLA fuses chains on such arrays and does not on a trailing axis of 3.

All quadratics are solved after the origin is moved to the ray's nearest point to the shape: in float32 the usual form
loses all digits of a wire 50 m away.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from dav2_jax.scenes import cutouts
from dav2_jax.scenes.shapes import GLASS, PLACES, UNROLL, Scene, pack, unpack_columns

FAR = 400.0  # metres from the camera where the ground ends
NOTHING = -1


def add(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))


def along(o, d, t):
    return tuple(x + t * y for x, y in zip(o, d, strict=True))


def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def scale(a, s):
    return tuple(x * s for x in a)


def unit(a):
    return scale(a, lax.rsqrt(jnp.maximum(dot(a, a), 1e-20)))


def transform(matrix, v):
    return tuple(dot(row, v) for row in matrix)


def _nonzero(x):
    return jnp.where(jnp.abs(x) < 1e-12, 1e-12, x)


def _first(t, hit, least):
    return jnp.where(hit & (t > least), t, jnp.inf)


def box(o, d, form, least):
    near, far = -jnp.inf, jnp.inf
    for x, y in zip(o, d, strict=True):
        inverse = 1 / _nonzero(y)
        a, b = (-1 - x) * inverse, (1 - x) * inverse
        near, far = jnp.maximum(near, jnp.minimum(a, b)), jnp.minimum(far, jnp.maximum(a, b))
    return _first(jnp.where(near > least, near, far), near <= far, least)


def round_(o, d, form, least):
    q0, q1, q2 = form[:3]
    middle = -dot(o, d) / dot(d, d)
    x, y, z = along(o, d, middle)
    a = d[0] * d[0] + d[2] * d[2] - q2 * d[1] * d[1]
    b = x * d[0] + z * d[2] - (q2 * y + q1 / 2) * d[1]
    c = x * x + z * z - q0 - (q1 + q2 * y) * y
    inside = b * b - a * c
    q = -(b + jnp.where(b < 0, -1.0, 1.0) * jnp.sqrt(jnp.maximum(inside, 0)))
    t = jnp.inf
    for root in (q / _nonzero(a), c / _nonzero(q)):
        t = jnp.minimum(t, _first(middle + root, (inside >= 0) & (jnp.abs(y + root * d[1]) <= 1), least))
    upright = _nonzero(d[1])
    for end in (-1.0, 1.0):
        root = (end - y) / upright
        u, w = x + root * d[0], z + root * d[2]
        t = jnp.minimum(t, _first(middle + root, u * u + w * w <= q0 + end * q1 + q2, least))
    return t


def card(o, d, form, least):
    t = -o[2] / _nonzero(d[2])
    u, v = o[0] + t * d[0], o[1] + t * d[1]
    inside = (jnp.abs(u) <= 1) & (jnp.abs(v) <= 1)
    return _first(t, inside & cutouts.keep(u, v, form), least)


def torus(o, d, form, least, steps: int = 40):
    """Sphere tracing from the bounding sphere, then Newton's method, which brings the last digits."""
    tube = form[0]
    length = jnp.sqrt(dot(d, d))
    middle = -dot(o, d) / dot(d, d)
    nearest = along(o, d, middle)
    half = jnp.sqrt(jnp.maximum((1 + tube) ** 2 - dot(nearest, nearest), 0)) / length
    start = jnp.maximum(middle - half, least) - middle

    def distance(s):
        x, y, z = along(nearest, d, s)
        ring = jnp.sqrt(jnp.maximum(x * x + z * z, 1e-12))
        return jnp.sqrt(jnp.maximum((ring - 1) ** 2 + y * y, 1e-12)) - tube, (x, y, z), ring

    s = lax.fori_loop(0, steps, lambda _, s: s + distance(s)[0] / length, start)
    error = distance(s)[0]
    hit = (jnp.abs(error) < 0.02) & (half > 0) & (s < half)
    for _ in range(3):
        error, (x, y, z), ring = distance(s)
        core = error + tube
        gradient = ((ring - 1) / core * x / ring, y / core, (ring - 1) / core * z / ring)
        slope = dot(gradient, d)
        s = s - jnp.clip(error / jnp.where(slope > -1e-3 * length, -1e-3 * length, slope), -0.02, 0.02)
    return _first(middle + s, hit & (jnp.abs(distance(s)[0]) < 1e-4), least)


SOLVERS = (box, round_, card, torus)  # in the order of PLACES


def present(scene: Scene, glass: bool = True) -> jax.Array:
    """bool [N]: the shapes that are there; without glass on demand."""
    there = scene.shapes.kind > 0
    return there if glass else there & (scene.shapes.material.optics != GLASS)


def trace(scene: Scene, o, d, least, possible, skip_thin=None, places=PLACES):
    """The first surface on each ray: t [R] (inf where there is none) and which [R] (int32).

    `which` is a place in scene.shapes, or their number for the ground, or NOTHING. `least`: t below which nothing
    counts; possible: bool [N], the shapes that can be met (see `cull`), others cost nothing; skip_thin: bool [R], rays
    that do not see thin shapes.
    """
    ground = (scene.ground_height - o[1]) / _nonzero(d[1])
    t = _first(ground, (d[1] < 0) & (ground < FAR), least)
    which = jnp.where(t < jnp.inf, jnp.int32(scene.shapes.kind.shape[0]), NOTHING)
    table = pack(scene.shapes)
    start = 0
    for solve, room in zip(SOLVERS, places.values(), strict=True):
        mine = possible[start : start + room]
        order = jnp.argsort(~mine, stable=True).astype(jnp.int32)
        rows, count = table[start + order], jnp.sum(mine)

        def some(step, state, start=start, solve=solve, order=order, rows=rows, count=count):
            t, which = state
            some_rows = lax.dynamic_slice_in_dim(rows, step * UNROLL, UNROLL)
            numbers = lax.dynamic_slice_in_dim(order, step * UNROLL, UNROLL)
            for place in range(UNROLL):
                one = unpack_columns([some_rows[place, column] for column in range(table.shape[1])])
                local = transform(one.to_local, add(o, scale(one.center, -1)))
                hit = solve(local, transform(one.to_local, d), one.form, least)
                nearer = (step * UNROLL + place < count) & (hit < t)
                if skip_thin is not None:
                    nearer &= ~(skip_thin & (one.material.thin > 0))
                t = jnp.where(nearer, hit, t)
                which = jnp.where(nearer, start + numbers[place], which)
            return t, which

        t, which = lax.fori_loop(0, (count + UNROLL - 1) // UNROLL, some, (t, which))
        start += room
    return t, which
