"""Procedural textures: where between its two colors a surface is, from its own coordinates in metres.

Patterns fade to their mean where a period is smaller than a pixel, as they would flicker and mislead otherwise.
"""

from __future__ import annotations

import jax.numpy as jnp

from dav2_jax.scenes.cutouts import chance

PATTERNS = (
    "plain", "noise", "stripes", "checks", "bricks", "planks", "gradient", "tiles", "facade", "foliage", "dots", "road",
    "picture", "books", "weave", "panels",
)  # fmt: skip


def noise(u, v, seed):
    """Smooth value noise of period 1, from 0 to 1."""
    x, y = jnp.floor(u), jnp.floor(v)
    a, b = u - x, v - y
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    low = chance(x, y, seed) * (1 - a) + chance(x + 1, y, seed) * a
    high = chance(x, y + 1, seed) * (1 - a) + chance(x + 1, y + 1, seed) * a
    return low * (1 - b) + high * b


def _band(x, half, blur):
    """1 where x, in periods, is within `half` of a whole number, with edges as soft as a pixel is wide."""
    distance = jnp.abs(x - jnp.round(x))
    sharp = jnp.clip((half - distance) / jnp.maximum(blur, 1e-4) + 0.5, 0, 1)
    fade = jnp.clip(blur * 1.5 - 0.5, 0, 1)
    return sharp * (1 - fade) + 2 * half * fade


def albedo(material, u, v, pixel):
    """Linear RGB, three arrays [R], and the glow of lit windows [R].

    material: columns [R]; u, v: metres on the surface; pixel: metres that a pixel covers there.
    """
    seed, size = material.seed, material.scale
    x, y, blur = u / size, v / size, pixel / size
    keep = jnp.clip(1.5 - blur * 2, 0, 1)  # of what varies faster than a pixel
    fine = noise(x * 8, y * 8, seed) * jnp.clip(1.5 - blur * 16, 0, 1) + 0.5 * (1 - jnp.clip(1.5 - blur * 16, 0, 1))
    mid = noise(x * 2.3, y * 2.3, seed + 0.11)
    coarse = noise(x * 0.7, y * 0.7, seed + 0.23)
    cloud = coarse * 0.5 + mid * 0.3 + fine * 0.2

    row = jnp.floor(y)
    brick_x = x * 0.5 + jnp.where(row - 2 * jnp.floor(row / 2) > 0, 0.5, 0.0)
    mortar = 1 - (1 - _band(brick_x, 0.035, blur)) * (1 - _band(y, 0.07, blur))
    brick_tone = 0.7 + 0.5 * chance(jnp.floor(brick_x), row, seed) * keep + 0.25 * (1 - keep)

    plank = jnp.floor(y)
    plank_end = _band(x * 0.09 + chance(plank, 3.0, seed), 0.0012, blur * 0.09)
    gap = 1 - (1 - _band(y, 0.015, blur)) * (1 - plank_end * keep)
    grain = noise(x * 0.8 + 13 * chance(plank, 1.0, seed), y * 9, seed)
    plank_tone = 0.8 + 0.4 * chance(plank, 5.0, seed)

    grout = 1 - (1 - _band(x, 0.02, blur)) * (1 - _band(y, 0.02, blur))
    tile_tone = 0.9 + 0.2 * chance(jnp.floor(x), jnp.floor(y), seed) * keep

    checks = jnp.floor(x) + jnp.floor(y)
    checks = jnp.where(checks - 2 * jnp.floor(checks / 2) > 0, 1.0, 0.0) * keep + 0.5 * (1 - keep)
    dots = jnp.clip((0.28 - jnp.hypot(x - jnp.round(x), y - jnp.round(y))) / jnp.maximum(blur, 0.02) + 0.5, 0, 1)

    # Windows: floors are 2 scales high, bays 1.6 wide; panes are darker than the wall and differ from each other.
    bay, storey = x / 1.6, y / 2.0
    window = _inside(bay, 0.27, blur / 1.6) * _inside(storey, 0.26, blur / 2)
    frame = _inside(bay, 0.31, blur / 1.6) * _inside(storey, 0.30, blur / 2) - window
    bar = _band(bay - 0.5, 0.012, blur / 1.6) * window
    pane = chance(jnp.floor(bay), jnp.floor(storey), seed)
    lit = jnp.where(pane > 0.72, 1.0, 0.0) * (window - bar) * keep

    lane = _inside(u / 100 + 0.5, 0.0008, pixel / 100) * _band(v / 6, 0.2, pixel / 6)
    edge = jnp.abs(jnp.abs(u) - size * 0.93) < 0.07

    sharp = jnp.clip(1.5 - pixel * 60, 0, 1)
    grit = noise(u * 30, v * 30, seed) * sharp + 0.5 * (1 - sharp)
    leaf = noise(x * 5, y * 5, seed + 0.4)
    clear = jnp.clip(1.5 - blur * 40, 0, 1)
    blade = noise(x * 31, y * 31, seed + 0.7) * clear + 0.5 * (1 - clear)
    foliage = jnp.clip((coarse * 0.3 + (leaf * 0.3 + blade * 0.4) * keep + 0.35 * (1 - keep) - 0.3) * 2.4, 0, 1)
    book = jnp.floor(x * 2.2)
    tall = 0.66 + 0.3 * chance(book, jnp.floor(y), seed)
    book_gap = jnp.where(y - jnp.floor(y) > tall, 0.12, 1.0)
    picture = noise(x * 1.7 + 2 * mid, y * 1.7 + 2 * coarse, seed + 0.6)
    weave = 0.5 + 0.5 * jnp.where((fine > 0.5), 1.0, -1.0) * jnp.clip(1 - blur * 8, 0, 1) * 0.6
    panel = 1 - (1 - _band(x, 0.012, blur)) * (1 - _band(y * 0.5, 0.006, blur * 0.5))

    mix, tone, hue = 0.0 * x, 1.0 + 0.0 * x, 0.0 * x
    for name, m, shade, turn in (
        ("noise", cloud, 1.0, 0.0),
        ("stripes", _band(x, 0.25, blur), 1.0, 0.0),
        ("checks", checks, 1.0, 0.0),
        ("bricks", mortar, brick_tone, 0.0),
        ("planks", grain * 0.6, plank_tone * (1 - 0.6 * gap), 0.0),
        ("gradient", jnp.clip(0.5 + y * 0.5, 0, 1), 1.0, 0.0),
        ("tiles", grout, tile_tone, 0.0),
        ("facade", window, 1 + 0.35 * frame + window * (pane - 0.5) * 0.9 + bar, 0.0),
        ("foliage", foliage, (0.45 + 0.5 * leaf + 0.5 * blade) * keep + 0.95 * (1 - keep), 0.0),
        ("dots", dots, 1.0, 0.0),
        ("road", jnp.maximum(lane, jnp.where(edge, 0.7, 0.0)), 0.7 + 0.25 * fine + 0.35 * grit, 0.0),
        ("picture", picture, 0.5 + mid, 1.0),
        ("books", 0.0, book_gap * (0.6 + 0.6 * chance(book, 9.0, seed)), keep),
        ("weave", weave * 0.6 + cloud * 0.3, 1.0, 0.0),
        ("panels", 0.0, (1 - 0.5 * panel) * (0.95 + 0.1 * cloud), 0.0),
    ):
        mine = material.pattern == PATTERNS.index(name)
        mix, tone, hue = jnp.where(mine, m, mix), jnp.where(mine, shade, tone), jnp.where(mine, turn, hue)
    tone = tone * (0.9 + 0.2 * cloud)
    # Books and pictures have many colors: each channel is turned by another random number.
    cell = jnp.where(material.pattern == PATTERNS.index("books"), book, jnp.floor(picture * 5))
    colors = []
    for channel, (one, two) in enumerate(zip(material.color, material.color2, strict=True)):
        many = 0.06 + 0.75 * chance(cell, 40.0 + channel, seed) ** 2
        colors.append(((one * (1 - mix) + two * mix) * (1 - hue) + many * hue) * tone)
    return tuple(colors), jnp.where(material.pattern == PATTERNS.index("facade"), lit, 0.0)


def _inside(x, half, blur):
    """1 within `half` of the middle of each period."""
    return _band(x - 0.5, half, blur)
