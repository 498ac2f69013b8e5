"""Things at their places become shapes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dav2_jax.scenes import catalog, palette
from dav2_jax.scenes.dice import Dice
from dav2_jax.scenes.shapes import CARD, Shapes, about_y, shape

SMALLEST = 0.002  # metres: no shape is thinner


class Placed(NamedTuple):
    """N things: number in the catalog, where their foot stands, turn about the vertical (0 looks towards +z)."""

    thing: jax.Array  # int32 [N]
    place: jax.Array  # [N, 3]
    angle: jax.Array  # [N]
    size: jax.Array  # [N, 3] width, height, depth in metres
    present: jax.Array  # bool [N]


def sizes(dice: Dice, thing: jax.Array) -> jax.Array:
    """[N, 3]: a size for each, between the smallest and the largest that it comes in."""
    low, high = jnp.asarray(catalog.LOW)[thing], jnp.asarray(catalog.HIGH)[thing]
    return low + (high - low) * dice.uniform(0.0, 1.0, low.shape)


def put(*groups: Placed) -> Placed:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *groups)


def build(dice: Dice, placed: Placed, style: palette.Style) -> Shapes:
    """[N * PARTS] shapes, those of one thing together; absent things and parts have kind 0."""
    thing = placed.thing
    table = {name: jnp.asarray(getattr(catalog, name))[thing] for name in (
        "KIND", "FORM", "AT", "PLUS", "HALF", "MORE", "TURN", "SLOT", "OPTICS", "THIN", "GLOW")}  # fmt: skip
    unit = placed.size * jnp.float32([0.5, 1, 0.5])
    at = table["AT"] * unit[:, None] + table["PLUS"]
    half = jnp.maximum(table["HALF"] * unit[:, None] + table["MORE"], SMALLEST)
    # Cards have no thickness; any will do for their frame.
    half = half.at[..., 2].set(jnp.where(table["KIND"] == CARD, 1.0, half[..., 2]))
    turn = about_y(placed.angle)[:, None]
    center = placed.place[:, None] + jnp.einsum("nkij,npj->npi", turn, at, precision="highest")
    axes = jnp.einsum("nkij,npjl->npil", turn, table["TURN"], precision="highest")

    slot = table["SLOT"].astype(jnp.int32)
    random = dice.uniform(0.0, 1.0, (thing.shape[0], 4, 8))
    mine = jnp.take_along_axis(random, slot[..., None], axis=1)
    families = jnp.take_along_axis(jnp.asarray(catalog.SLOTS)[thing], slot, axis=1)
    material = palette.draw(style, families, mine, table["OPTICS"], table["THIN"], table["GLOW"])
    # Leaves and grass of two plants of one kind differ.
    form = table["FORM"].at[..., 5].add(jnp.where(table["KIND"] == CARD, random[:, 0, 7:8], 0.0))
    kind = jnp.where(placed.present[:, None], table["KIND"], 0.0)
    made = shape(kind, center, half, axes, form, material)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), made)


def separate(placed: Placed, keep_clear: jax.Array) -> Placed:
    """Things that stand in the way of an earlier one, or of the camera, are taken out.

    keep_clear: [M, 3]: x, z and a radius that must stay free.
    """
    spread = 0.5 * placed.size
    c, s = jnp.abs(jnp.cos(placed.angle)), jnp.abs(jnp.sin(placed.angle))
    half = jnp.stack([c * spread[:, 0] + s * spread[:, 2], s * spread[:, 0] + c * spread[:, 2]], -1)
    middle = placed.place[:, ::2]
    gap = jnp.abs(middle[:, None] - keep_clear[None, :, :2]) - half[:, None]
    free = ~jnp.any(jnp.linalg.norm(jnp.maximum(gap, 0), axis=-1) < keep_clear[None, :, 2], axis=1)

    def one(kept, number):
        apart = jnp.any(jnp.abs(middle - middle[number]) > half + half[number] - 0.02, axis=-1)
        good = placed.present[number] & free[number] & jnp.all(apart | ~kept)
        return kept.at[number].set(good), None

    kept, _ = jax.lax.scan(one, jnp.zeros(placed.present.shape, bool), jnp.arange(placed.present.shape[0]))
    return placed._replace(present=kept)


def nearest_first(shapes: Shapes, eye: jax.Array) -> Shapes:
    """Sorted so that what is far, and the details of what is far, come last and are left out if places run short."""
    part = jnp.arange(shapes.kind.shape[0]) % catalog.PARTS
    away = jnp.linalg.norm((shapes.center - eye)[:, ::2], axis=-1) + 2
    order = jnp.argsort(away * (1 + 0.3 * part.astype(jnp.float32)), stable=True)
    return jax.tree.map(lambda leaf: leaf[order], shapes)


def footprints(placed: Placed, eye: jax.Array, count: int) -> jax.Array:
    """[count, 6] of the things nearest to the camera, for Scene.footprints."""
    away = jnp.linalg.norm((placed.place - eye)[:, ::2], axis=-1) + jnp.where(placed.present, 0.0, 1e4)
    order = jnp.argsort(away, stable=True)[:count]
    x, z = placed.place[order, 0], placed.place[order, 2]
    a, b = 0.42 * placed.size[order, 0], 0.42 * placed.size[order, 2]
    rows = jnp.stack([x, z, a, b, jnp.cos(placed.angle[order]), jnp.sin(placed.angle[order])], -1)
    return jnp.where(placed.present[order][:, None], rows, jnp.float32([1e4, 1e4, 0, 0, 1, 0]))
