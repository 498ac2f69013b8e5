"""Cards with holes: fences, railings, grids, wires, grass and leaves as one flat shape each.

A card keeps the points (u, v) of [-1, 1]^2 for which `keep` holds. form = (code, a, b, c, d, e):

    PANEL    all of it
    DISC     u^2 + v^2 <= 1
    OPENING  all but the rectangle a..b in u, c..d in v: a wall with a window or a door
    BARS     a upright bars, the share b of each period, between two rails of height c
    GRID     a by b meshes; the share c of each period is wire
    DIAMONDS the same turned by 45 degrees: chain link
    PICKETS  a pointed boards, the share b of each period, on two rails
    WIRES    a hanging wires one above the other that sag by b and are 2 c high
    BLADES   a blades of grass, the share b of each period at the root, of random height and lean (seed e)
    GABLE    the triangle below the lines from the lower corners to the middle of the top
    LEAVES   a by b cells with a leaf of random place and size each, c the share of empty ones (seed e)
"""

from __future__ import annotations

import jax.numpy as jnp

PANEL, DISC, OPENING, BARS, GRID, DIAMONDS, PICKETS, WIRES, BLADES, LEAVES, GABLE = range(11)


def keep(u, v, form):
    """Whether the card is there at (u, v), arrays [R]; form: six scalars or arrays [R]."""
    code, a, b, c, d, e = form
    across, up = (u + 1) / 2, (v + 1) / 2  # 0 to 1
    cell = across * a
    place = cell - jnp.floor(cell) - 0.5  # -0.5 to 0.5 within a period
    row = up * b
    row_place = row - jnp.floor(row) - 0.5
    random = chance(jnp.floor(cell), 0.0, e)

    disc = u * u + v * v <= 1
    opening = (u < a) | (u > b) | (v < c) | (v > d)
    bars = (jnp.abs(place) * 2 <= b) | (v > 1 - 2 * c) | (jnp.abs(up - 0.06 - c / 2) < c / 2)
    grid = (jnp.abs(place) >= 0.5 - c / 2) | (jnp.abs(row_place) >= 0.5 - c / 2)
    left, right = across * a + row, across * a - row
    left, right = left - jnp.floor(left) - 0.5, right - jnp.floor(right) - 0.5
    diamonds = (jnp.abs(left) >= 0.5 - c / 2) | (jnp.abs(right) >= 0.5 - c / 2) | (v > 1 - c * 0.3)
    pickets = (jnp.abs(place) * 2 <= b * jnp.minimum(1, (1 - up) * 8)) | (
        (jnp.abs(up - 0.25) < 0.045) | (jnp.abs(up - 0.72) < 0.045)
    )
    level = v - (1 - b - c) - b * u * u  # the lowest wire hangs from the top; others below it
    step = (2 - b - 2 * c) / jnp.maximum(a, 1)
    nearest = jnp.clip(jnp.round(-level / step), 0, a - 1)
    wires = jnp.abs(level + nearest * step) <= c
    tall = 0.35 + 0.65 * random
    bend = (chance(jnp.floor(cell), 7.0, e) - 0.5) * 0.5 * (up / tall) ** 2
    blades = jnp.abs(place - bend) * 2 <= b * (1 - up / tall)
    in_row = chance(jnp.floor(cell), jnp.floor(row), e)
    other = chance(jnp.floor(cell) + 31.0, jnp.floor(row) + 17.0, e)
    x, y = place - (in_row - 0.5) * 0.5, row_place - (other - 0.5) * 0.5
    slant = (in_row * 7.0 + other * 3.0) % 1.0 * 2 - 1
    leaf = (x + slant * y) ** 2 * 2.2 + (y - slant * x) ** 2 * 0.9 <= 0.09 * (0.5 + other)
    leaves = leaf & ((in_row * 13.0) % 1.0 >= c) & (disc | (d > 0.5))

    result = True
    for number, kept in (
        (DISC, disc), (OPENING, opening), (BARS, bars), (GRID, grid), (DIAMONDS, diamonds), (PICKETS, pickets),
        (WIRES, wires), (BLADES, blades), (LEAVES, leaves), (GABLE, jnp.abs(u) <= 1 - up),
    ):  # fmt: skip
        result = jnp.where(code == number, kept, result)
    return result


def chance(x, y, seed):
    """Uniform in 0 to 1 from whole numbers x, y and a seed: the same on every device, as it is done in integers."""
    h = x.astype(jnp.int32) * jnp.int32(374761393)
    h = h + (jnp.asarray(y, jnp.float32).astype(jnp.int32) * jnp.int32(668265263))
    h = h + (jnp.asarray(seed, jnp.float32) * 65536).astype(jnp.int32) * jnp.int32(1274126177)
    h = h.astype(jnp.uint32)
    h = (h ^ (h >> 13)) * jnp.uint32(1274126177)
    h = (h ^ (h >> 16)) * jnp.uint32(2246822519)
    h = h ^ (h >> 15)
    return (h >> 8).astype(jnp.int32).astype(jnp.float32) * jnp.float32(1 / 16777216)
