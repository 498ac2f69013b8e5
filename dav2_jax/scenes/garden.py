"""Open ground: a house or two, trees, a fence, grass, hills, and all sorts of things."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.scenes import catalog, palette
from dav2_jax.scenes.camera import aim
from dav2_jax.scenes.dice import Dice
from dav2_jax.scenes.place import Placed, build, footprints, nearest_first, put, separate, sizes
from dav2_jax.scenes.shapes import ROUND, SPHERE, about_y, by_kind, join, shape
from dav2_jax.scenes.street import FENCES, TREES
from dav2_jax.scenes.weather import open_air

GARDEN = catalog.numbers(
    "bench",
    "rock",
    "sculpture",
    "playground",
    "greenhouse",
    "gazing ball",
    "pond",
    "bush",
    "boxes",
    "person",
    "car",
    "billboard",
    "toys",
    "traffic cone",
    "table",
    "glass table",
    "bus shelter",
    "chair",
)
GARDEN_OFTEN = np.float32([2, 2, 2, 1.5, 2, 1.6, 1.6, 2.5, 1, 2.5, 1.5, 0.6, 1.5, 1, 1, 1, 0.8, 1])


def make(key: jax.Array, style: palette.Style):
    """(Scene, Camera): open ground with a house or two, trees, a fence and all sorts of things."""
    dice = Dice(key)
    uniform, chosen = dice.uniform, dice.chosen

    eye = jnp.stack([jnp.float32(0), jnp.where(chosen(0.85), uniform(0.6, 2.0), uniform(2.0, 5.0)), jnp.float32(0)])
    target = jnp.stack([uniform(-3, 3), eye[1] * 0.7 + uniform(-1.2, 1.0), jnp.float32(12)])
    camera = aim(eye, target, uniform(-0.07, 0.07), uniform(0.5, 1.2), uniform(-0.02, 0.02, (2,)))
    clear = jnp.float32([[0, 0, 0.8], [0, 1.5, 0.6]])

    def scatter(things, count, near, far, present, weights=None, spread=0.75):
        thing = dice.pick(things, count, weights)
        away = near + (far - near) * uniform(0, 1, (count,)) ** 1.4
        bearing = uniform(-spread, spread, (count,))
        place = jnp.stack([jnp.sin(bearing) * away, 0 * away, jnp.cos(bearing) * away], -1)
        return Placed(thing, place, uniform(0, 6.28, (count,)), sizes(dice, thing), chosen(present, (count,)))

    house = scatter(catalog.numbers("house", "house", "building"), 3, 14, 45, 0.6)
    house = house._replace(angle=np.pi + uniform(-0.5, 0.5, (3,)))
    fence = jnp.broadcast_to(dice.pick(FENCES, 1), (9,))
    fence_size = jnp.broadcast_to(sizes(dice, fence)[:1], (9, 3))
    lean = uniform(-0.5, 0.5)
    steps = (jnp.arange(9) - 4) * (fence_size[:, 0] + 0.02)
    fence_at = jnp.stack([steps * jnp.cos(lean), jnp.zeros(9), uniform(3.5, 13) - steps * jnp.sin(lean)], -1)
    fences = Placed(fence, fence_at, jnp.full(9, lean), fence_size, jnp.full(9, chosen(0.6)))
    # Things stay clear of the fence only by luck of their place: its line has no area.
    things = scatter(GARDEN, 18, 2.2, 22, 0.75 if style == "worn" else 0.6, GARDEN_OFTEN)
    trees = scatter(TREES, 12, 6, 60, 0.7)
    grass = scatter(catalog.numbers("grass"), 9, 1.6, 9, 0.8)
    grass = grass._replace(present=grass.present & chosen(0.5))
    pole = scatter(catalog.numbers("pole", "street lamp", "sign"), 2, 5, 20, 0.5)
    straight = jnp.abs(jnp.sin(2 * lean)) < 0.25  # else the boxes around the pieces would overlap
    slim = fences._replace(
        angle=jnp.where(straight, fences.angle, 0.0),
        size=fences.size * jnp.where(straight, jnp.float32([0.98, 1, 1]), jnp.float32([0.2, 1, 1])),
    )
    standing = separate(put(house, slim, things, trees, pole), clear)
    kept = standing.present[3:12]
    standing = jax.tree.map(
        lambda all_, mine: jnp.concatenate([all_[:3], mine, all_[12:]]), standing, fences._replace(present=kept)
    )
    grass = separate(grass, clear)

    wire = jnp.full(2, catalog.number("wires"))
    wire_size = jnp.stack([uniform(14, 24, (2,)), uniform(4, 8, (2,)), jnp.full(2, 0.1)], -1)
    wires = Placed(
        wire,
        jnp.stack([uniform(-4, 4, (2,)), jnp.zeros(2), uniform(7, 22, (2,))], -1),
        uniform(-0.6, 0.6, (2,)),
        wire_size,
        chosen(0.4, (2,)),
    )
    shapes = nearest_first(build(dice, put(standing, grass, wires), style), eye)

    bearing, away = uniform(-0.9, 0.9, (4,)), uniform(140, 230, (4,))
    hills = shape(
        jnp.where(chosen(0.6, (4,)), ROUND, 0),
        jnp.stack([jnp.sin(bearing) * away, jnp.zeros(4), jnp.cos(bearing) * away], -1),
        jnp.stack([uniform(50, 90, (4,)), uniform(8, 35, (4,)), uniform(30, 45, (4,))], -1),
        about_y(jnp.zeros(4)),
        jnp.broadcast_to(jnp.float32(SPHERE), (4, 6)),
        palette.draw(style, jnp.full(4, palette.family("leaf")), jnp.broadcast_to(uniform(0.0, 1.0, (1, 8)), (4, 8))),
    )
    hills = hills._replace(material=hills.material._replace(scale=jnp.full(4, 12.0)))
    shapes = by_kind(join(hills, shapes))
    lights = jnp.concatenate(
        [uniform(-6, 6, (4, 1)), jnp.full((4, 1), 3.0), uniform(5, 12, (4, 1)), jnp.zeros((4, 3))], -1
    )
    return open_air(dice, style, shapes, lights, jnp.zeros(4, bool), footprints(standing, eye, 16)), camera
