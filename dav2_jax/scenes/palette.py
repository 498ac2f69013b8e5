"""What things are made of: families of materials with a few variants each, one table a style.

"clean" is a catalog: bright, saturated, even. "worn" is the other domain: earthy, dark, patterned and dirty, with
other textures for the same things. A scene draws a variant of the right family and a point between its two ends.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.scenes.shapes import Material
from dav2_jax.scenes.textures import PATTERNS

Style = Literal["clean", "worn"]
STYLES: tuple[Style, ...] = ("clean", "worn")
VARIANTS = 4


def _row(pattern, low, high, second=None, second_high=None, scale=None, gloss=(0, 0.1)):
    """Ends of the first color, of the other one (default: a darker first), of the period in metres and the gloss."""
    if second is None:
        second, second_high = 0.6 * np.array(low), 0.6 * np.array(high)
    elif second_high is None:
        second_high = second
    return np.array(
        [PATTERNS.index(pattern), *low, *high, *second, *second_high, *(scale or (1, 1)), *gloss], np.float32
    )


WHITE, CREAM, GREY, DARK = (0.75, 0.75, 0.74), (0.72, 0.66, 0.52), (0.35, 0.35, 0.36), (0.03, 0.03, 0.035)
OAK, WALNUT, PINE = (0.42, 0.26, 0.12), (0.14, 0.07, 0.035), (0.6, 0.42, 0.22)
RED, BLUE, GREEN, YELLOW = (0.55, 0.06, 0.05), (0.05, 0.14, 0.45), (0.08, 0.32, 0.1), (0.7, 0.48, 0.06)
TEAL, PINK, ORANGE, BROWN = (0.05, 0.35, 0.36), (0.7, 0.35, 0.38), (0.7, 0.25, 0.05), (0.2, 0.12, 0.07)
BRICK, SAND, STONE, LEAF, DRY = (
    (0.4, 0.13, 0.08),
    (0.55, 0.45, 0.3),
    (0.4, 0.38, 0.35),
    (0.1, 0.26, 0.05),
    (0.3, 0.25, 0.1),
)

CLEAN = {
    "wall": [_row("plain", WHITE, CREAM), _row("plain", (0.45, 0.6, 0.68), (0.7, 0.72, 0.6)),
             _row("stripes", WHITE, CREAM, (0.55, 0.6, 0.66), (0.7, 0.55, 0.5), (0.15, 0.4)),
             _row("plain", (0.62, 0.42, 0.36), (0.4, 0.55, 0.42))],
    "floor": [_row("planks", OAK, PINE, WALNUT, OAK, (0.12, 0.2), (0.2, 0.5)),
              _row("tiles", WHITE, GREY, (0.4, 0.4, 0.4), None, (0.3, 0.7), (0.3, 0.7)),
              _row("checks", WHITE, CREAM, DARK, BROWN, (0.3, 0.5), (0.3, 0.6)),
              _row("weave", (0.3, 0.35, 0.45), (0.6, 0.5, 0.4), None, None, (0.2, 0.5))],
    "ceiling": [_row("plain", (0.8, 0.8, 0.8), (0.85, 0.83, 0.78))] * 4,
    "wood": [_row("planks", OAK, PINE, WALNUT, OAK, (0.1, 0.3), (0.1, 0.4)), _row("plain", WHITE, CREAM, gloss=(0.2, 0.5)),
             _row("planks", WALNUT, OAK, DARK, WALNUT, (0.1, 0.3), (0.2, 0.5)), _row("plain", OAK, PINE, gloss=(0.1, 0.3))],
    "fabric": [_row("plain", RED, ORANGE), _row("plain", BLUE, TEAL), _row("weave", GREY, CREAM, None, None, (0.1, 0.2)),
               _row("stripes", WHITE, CREAM, BLUE, RED, (0.1, 0.3))],
    "paint": [_row("plain", RED, ORANGE, gloss=(0.3, 0.9)), _row("plain", BLUE, TEAL, gloss=(0.3, 0.9)),
              _row("plain", YELLOW, GREEN, gloss=(0.3, 0.9)), _row("plain", WHITE, PINK, gloss=(0.3, 0.9))],
    "metal": [_row("plain", GREY, WHITE, gloss=(0.7, 1)), _row("plain", DARK, GREY, gloss=(0.4, 0.8)),
              _row("plain", (0.6, 0.45, 0.15), (0.5, 0.3, 0.2), gloss=(0.8, 1)), _row("plain", DARK, DARK, gloss=(0.3, 0.6))],
    "toy": [_row("checks", RED, YELLOW, WHITE, BLUE, (0.1, 0.3), (0.2, 0.8)), _row("dots", TEAL, PINK, WHITE, YELLOW, (0.1, 0.2), (0.2, 0.8)),
            _row("gradient", ORANGE, RED, BLUE, GREEN, (0.3, 0.6), (0.2, 0.8)), _row("stripes", BLUE, GREEN, WHITE, YELLOW, (0.08, 0.3), (0.2, 0.8))],
    "leaf": [_row("foliage", (0.05, 0.2, 0.03), (0.12, 0.3, 0.05), (0.2, 0.45, 0.08), (0.3, 0.5, 0.1), (0.4, 0.8))] * 3
            + [_row("foliage", (0.35, 0.2, 0.03), (0.4, 0.12, 0.03), (0.6, 0.4, 0.06), (0.6, 0.25, 0.05), (0.4, 0.8))],
    "bark": [_row("noise", (0.16, 0.1, 0.06), BROWN, (0.3, 0.22, 0.15), None, (0.1, 0.3))] * 4,
    "facade": [_row("facade", CREAM, PINK, (0.06, 0.09, 0.14), None, (1.4, 1.8), (0.1, 0.3)), _row("facade", WHITE, SAND, (0.07, 0.1, 0.15), None, (1.4, 1.9), (0.1, 0.3)),
               _row("facade", (0.55, 0.3, 0.2), BRICK, (0.05, 0.07, 0.1), None, (1.4, 1.7), (0.1, 0.3)), _row("facade", (0.4, 0.5, 0.6), GREY, (0.1, 0.14, 0.2), None, (1.5, 1.9), (0.2, 0.5))],
    "masonry": [_row("bricks", BRICK, (0.5, 0.25, 0.15), (0.6, 0.58, 0.52), None, (0.09, 0.13)), _row("plain", CREAM, SAND), _row("plain", WHITE, GREY), _row("tiles", STONE, SAND, GREY, None, (0.4, 0.8))],
    "roof": [_row("tiles", BRICK, (0.5, 0.18, 0.1), (0.2, 0.07, 0.05), None, (0.25, 0.4)), _row("plain", GREY, DARK), _row("planks", GREY, BROWN, DARK, None, (0.3, 0.5)), _row("tiles", (0.2, 0.22, 0.26), GREY, DARK, None, (0.25, 0.4))],
    "road": [_row("road", (0.12, 0.12, 0.13), (0.2, 0.2, 0.2), (0.8, 0.8, 0.78), None, (3.2, 4.5))] * 4,
    "paving": [_row("tiles", STONE, (0.5, 0.48, 0.45), (0.25, 0.25, 0.25), None, (0.4, 0.9))] * 3 + [_row("bricks", (0.45, 0.3, 0.25), STONE, GREY, None, (0.1, 0.2))],
    "ground": [_row("foliage", (0.1, 0.24, 0.04), (0.16, 0.3, 0.06), (0.2, 0.4, 0.08), (0.3, 0.42, 0.1), (1, 2.5))] * 2
              + [_row("noise", SAND, (0.5, 0.4, 0.25), (0.35, 0.28, 0.18), None, (0.8, 2)), _row("tiles", STONE, GREY, GREY, None, (0.6, 1.5))],
    "glass": [_row("plain", (0.75, 0.9, 0.84), (0.85, 0.93, 0.92), gloss=(1, 1)), _row("plain", (0.6, 0.78, 0.85), (0.8, 0.9, 0.95), gloss=(1, 1)),
              _row("plain", (0.45, 0.75, 0.5), (0.7, 0.88, 0.72), gloss=(1, 1)), _row("plain", (0.8, 0.6, 0.35), (0.9, 0.85, 0.75), gloss=(1, 1))],
    "mirror": [_row("plain", (0.85, 0.87, 0.88), (0.92, 0.93, 0.92), gloss=(1, 1))] * 4,
    "picture": [_row("picture", RED, BLUE, YELLOW, GREEN, (0.2, 0.7), (0.1, 0.3))] * 4,
    "books": [_row("books", RED, BLUE, None, None, (0.1, 0.14))] * 4,
    "screen": [_row("plain", (0.01, 0.01, 0.012), (0.02, 0.02, 0.025), gloss=(0.8, 1))] * 4,
    "rubber": [_row("plain", (0.015, 0.015, 0.015), (0.03, 0.03, 0.03))] * 4,
    "lamp": [_row("plain", (0.95, 0.85, 0.6), (0.95, 0.9, 0.8))] * 4,
    "card": [_row("plain", (0.45, 0.3, 0.16), (0.5, 0.36, 0.2))] * 4,
    "skin": [_row("plain", (0.55, 0.32, 0.22), (0.2, 0.1, 0.06))] * 4,
}  # fmt: skip

# The same families where textures, colors and wear differ; those not named here stay as they are.
WORN = CLEAN | {
    "wall": [_row("noise", (0.4, 0.36, 0.28), (0.5, 0.47, 0.4), (0.25, 0.22, 0.17), None, (0.8, 2.5)),
             _row("bricks", (0.3, 0.13, 0.09), (0.4, 0.3, 0.24), (0.3, 0.28, 0.25), None, (0.07, 0.12)),
             _row("dots", (0.38, 0.4, 0.3), (0.35, 0.25, 0.22), (0.5, 0.4, 0.25), (0.25, 0.3, 0.22), (0.1, 0.25)),
             _row("planks", (0.3, 0.2, 0.12), (0.38, 0.33, 0.26), (0.15, 0.1, 0.06), None, (0.1, 0.2))],
    "floor": [_row("planks", (0.2, 0.12, 0.07), (0.3, 0.22, 0.15), (0.09, 0.06, 0.04), None, (0.08, 0.14), (0.05, 0.3)),
              _row("noise", (0.22, 0.21, 0.2), (0.35, 0.33, 0.3), (0.15, 0.14, 0.13), None, (0.5, 1.5), (0, 0.3)),
              _row("bricks", (0.3, 0.15, 0.1), (0.35, 0.25, 0.2), (0.2, 0.18, 0.16), None, (0.1, 0.2)),
              _row("weave", (0.25, 0.08, 0.06), (0.2, 0.2, 0.12), (0.35, 0.28, 0.15), None, (0.15, 0.4))],
    "ceiling": [_row("noise", (0.5, 0.48, 0.42), (0.6, 0.56, 0.5), (0.4, 0.36, 0.3), None, (1, 3))] * 3
               + [_row("planks", (0.3, 0.2, 0.12), (0.36, 0.26, 0.16), (0.15, 0.1, 0.06), None, (0.12, 0.2))],
    "wood": [_row("planks", WALNUT, (0.25, 0.16, 0.1), DARK, None, (0.06, 0.2), (0, 0.2)), _row("noise", (0.3, 0.3, 0.26), (0.38, 0.34, 0.25), BROWN, None, (0.1, 0.5)),
             _row("planks", (0.3, 0.2, 0.12), OAK, BROWN, None, (0.06, 0.2), (0, 0.2)), _row("noise", (0.15, 0.2, 0.18), (0.25, 0.12, 0.08), DARK, None, (0.2, 0.6))],
    "fabric": [_row("checks", (0.25, 0.08, 0.06), (0.15, 0.17, 0.12), (0.35, 0.3, 0.2), None, (0.06, 0.15)), _row("weave", BROWN, (0.3, 0.26, 0.2), None, None, (0.05, 0.2)),
               _row("noise", (0.12, 0.14, 0.18), (0.25, 0.22, 0.2), (0.08, 0.08, 0.1), None, (0.2, 0.6)), _row("dots", (0.3, 0.25, 0.15), (0.18, 0.2, 0.14), BROWN, None, (0.05, 0.15))],
    "paint": [_row("noise", (0.3, 0.06, 0.05), (0.25, 0.1, 0.05), BROWN, None, (0.3, 1), (0.1, 0.6)), _row("noise", (0.06, 0.09, 0.16), (0.1, 0.16, 0.16), GREY, None, (0.3, 1), (0.1, 0.6)),
              _row("noise", (0.3, 0.3, 0.28), (0.5, 0.48, 0.44), BROWN, None, (0.3, 1), (0.1, 0.6)), _row("plain", DARK, (0.12, 0.12, 0.12), gloss=(0.3, 0.8))],
    "metal": [_row("noise", (0.2, 0.19, 0.18), GREY, (0.2, 0.1, 0.05), None, (0.1, 0.4), (0.2, 0.6)), _row("noise", (0.2, 0.1, 0.05), (0.26, 0.14, 0.07), (0.1, 0.05, 0.03), None, (0.05, 0.3))] * 2,
    "toy": [_row("noise", (0.3, 0.2, 0.1), (0.4, 0.35, 0.3), DARK, BROWN, (0.1, 0.4), (0, 0.4)), _row("stripes", (0.3, 0.3, 0.25), BROWN, DARK, RED, (0.1, 0.3)),
            _row("bricks", STONE, SAND, GREY, None, (0.05, 0.1)), _row("planks", OAK, BROWN, DARK, None, (0.05, 0.2))],
    "leaf": [_row("foliage", (0.05, 0.09, 0.03), (0.1, 0.13, 0.05), (0.16, 0.2, 0.07), (0.22, 0.22, 0.1), (0.3, 0.6))] * 2
            + [_row("foliage", (0.2, 0.13, 0.04), (0.25, 0.2, 0.08), (0.34, 0.25, 0.08), None, (0.3, 0.6))] * 2,
    "facade": [_row("facade", (0.28, 0.14, 0.1), (0.3, 0.2, 0.15), (0.05, 0.055, 0.06), None, (1.1, 1.5)), _row("facade", (0.3, 0.28, 0.24), (0.38, 0.34, 0.28), (0.06, 0.06, 0.06), None, (1.2, 1.6)),
               _row("bricks", (0.3, 0.12, 0.08), (0.28, 0.2, 0.16), (0.35, 0.33, 0.3), None, (0.12, 0.25)), _row("facade", (0.2, 0.2, 0.2), (0.28, 0.27, 0.25), (0.1, 0.1, 0.09), None, (1.5, 2))],
    "masonry": [_row("bricks", (0.28, 0.12, 0.08), (0.32, 0.26, 0.22), (0.35, 0.33, 0.3), None, (0.1, 0.2)), _row("noise", STONE, (0.3, 0.28, 0.25), BROWN, None, (0.5, 1.5)),
                _row("bricks", STONE, SAND, DARK, None, (0.2, 0.4)), _row("noise", (0.4, 0.36, 0.3), SAND, (0.2, 0.18, 0.15), None, (0.5, 2))],
    "road": [_row("road", (0.06, 0.06, 0.06), (0.1, 0.1, 0.1), (0.4, 0.38, 0.3), (0.5, 0.4, 0.1), (3.2, 4.5), (0.1, 0.4))] * 4,
    "paving": [_row("bricks", (0.2, 0.19, 0.18), (0.28, 0.24, 0.2), (0.1, 0.1, 0.1), None, (0.12, 0.3), (0, 0.3))] * 2 + [_row("noise", GREY, STONE, DARK, None, (0.4, 1.2))] * 2,
    "ground": [_row("foliage", (0.12, 0.13, 0.05), (0.15, 0.14, 0.06), (0.25, 0.22, 0.1), None, (0.6, 1.5)), _row("noise", (0.2, 0.15, 0.1), (0.26, 0.22, 0.17), (0.1, 0.08, 0.06), None, (0.5, 1.5)),
               _row("bricks", STONE, GREY, DARK, None, (0.2, 0.5)), _row("noise", DRY, SAND, BROWN, None, (0.8, 2.5))],
    "lamp": [_row("plain", (0.95, 0.6, 0.25), (0.95, 0.75, 0.45))] * 4,
}  # fmt: skip

FAMILIES = tuple(CLEAN)
_TABLES = {
    "clean": np.stack([np.stack(CLEAN[name]) for name in FAMILIES]),
    "worn": np.stack([np.stack(WORN[name]) for name in FAMILIES]),
}  # [families, VARIANTS, 17]


def family(name: str) -> int:
    return FAMILIES.index(name)


def draw(style: Style, families: jax.Array, random: jax.Array, optics=0.0, thin=0.0, glow=0.0) -> Material:
    """Materials [...] of families (int [...]) by random numbers [..., 8] in 0 to 1."""
    variant = jnp.minimum((random[..., 0] * VARIANTS).astype(jnp.int32), VARIANTS - 1)
    row = jnp.asarray(_TABLES[style])[families, variant]

    def between(low, high, place):
        return row[..., low : low + 3] + (row[..., high : high + 3] - row[..., low : low + 3]) * place[..., None]

    tone = 0.8 + 0.4 * random[..., 4:5]
    shape = families.shape
    return Material(
        jnp.clip(between(1, 4, random[..., 1]) * tone, 0, 0.95),
        jnp.clip(between(7, 10, random[..., 2]) * tone, 0, 0.95),
        row[..., 0],
        row[..., 13] + (row[..., 14] - row[..., 13]) * random[..., 3],
        row[..., 15] + (row[..., 16] - row[..., 15]) * random[..., 5],
        jnp.broadcast_to(jnp.float32(optics), shape),
        jnp.broadcast_to(jnp.float32(thin), shape),
        jnp.broadcast_to(jnp.float32(glow), shape),
        random[..., 6],
    )
