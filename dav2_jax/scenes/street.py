"""Streets: a road with parked cars between two rows of buildings, lamps, wires, trees, people and fences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.scenes import catalog, palette
from dav2_jax.scenes.camera import aim
from dav2_jax.scenes.dice import Dice
from dav2_jax.scenes.place import Placed, build, footprints, nearest_first, put, separate, sizes
from dav2_jax.scenes.shapes import BOX, about_y, by_kind, join, shape
from dav2_jax.scenes.weather import open_air

ROWS = catalog.numbers("building", "shop", "office", "house", "tree", "hedge")
ROWS_OFTEN = np.float32([0.38, 0.3, 0.1, 0.1, 0.07, 0.05])
KERB = catalog.numbers(
    "bench",
    "bin",
    "sign",
    "bollard",
    "traffic cone",
    "bus shelter",
    "person",
    "bush",
    "traffic mirror",
    "billboard",
    "boxes",
    "person",
    "chrome ball",
)
KERB_OFTEN = np.float32([2, 2, 2.5, 2, 1.5, 2, 4, 1, 1.6, 0.5, 1, 4, 0.5])
TREES = catalog.numbers("tree", "tree", "conifer", "bare tree", "bush")
CARS = catalog.numbers("car", "car", "car", "van")
FENCES = catalog.numbers("chain link", "picket fence", "railing", "glass railing", "grid fence", "hedge")


def make(key: jax.Array, style: palette.Style):
    """(Scene, Camera): a road along z between two rows of buildings."""
    dice = Dice(key)
    uniform, chosen = dice.uniform, dice.chosen

    road, walk = uniform(3.0, 5.0), uniform(1.8, 3.2)
    line = road + walk  # where the buildings begin
    eye = jnp.stack(
        [
            uniform(-0.9, 0.9) * (road + 0.6),
            jnp.where(chosen(0.8), uniform(1.2, 2.2), uniform(2.5, 6.0)),
            jnp.float32(0),
        ]
    )
    aside = jnp.where(chosen(0.6), uniform(-0.25, 0.25), uniform(-0.75, 0.75))
    target = eye + jnp.stack([jnp.sin(aside) * 20, uniform(-2.5, 1.8), jnp.cos(aside) * 20])
    camera = aim(eye, target, uniform(-0.05, 0.05), uniform(0.45, 1.1), uniform(-0.02, 0.02, (2,)))
    clear = jnp.stack([eye[0], eye[2], jnp.float32(0.9)])[None]

    def row(side):
        thing = dice.pick(ROWS, 9, ROWS_OFTEN)
        size = sizes(dice, thing)
        ends = jnp.cumsum(size[:, 0] + jnp.where(chosen(0.3, (9,)), uniform(0.3, 3.0, (9,)), 0.03)) - uniform(8, 16)
        z = ends - size[:, 0] / 2
        x = side * (line + uniform(0, 0.4, (9,)) + size[:, 2] / 2)
        return Placed(thing, jnp.stack([x, 0 * x, z], -1), jnp.full(9, -side * np.pi / 2), size, jnp.ones(9, bool))

    rows = put(row(-1.0), row(1.0))
    end = dice.pick(ROWS[:2], 2)
    ends = Placed(
        end,
        jnp.stack([jnp.float32([-7, 7]), jnp.zeros(2), jnp.full(2, 1.0) * uniform(90, 150)], -1),
        jnp.full(2, np.pi),
        sizes(dice, end),
        chosen(0.6, (2,)),
    )

    lamp = jnp.full(8, catalog.number("street lamp"))
    lamp_side = jnp.where(jnp.arange(8) < 4, 1.0, -1.0)
    spacing = uniform(14, 24)
    lamp_z = (jnp.arange(8) % 4 + 0.2) * spacing + uniform(0, 6)
    lamp_size = jnp.broadcast_to(sizes(dice, lamp)[:1], (8, 3))
    lamps = Placed(
        lamp,
        jnp.stack([lamp_side * (road + 0.7), 0 * lamp_z, lamp_z], -1),
        -lamp_side * np.pi / 2,
        lamp_size,
        jnp.where(lamp_side > 0, chosen(0.75), chosen(0.4)),
    )

    # Poles stand 24 m apart on one side and carry wires; some wires cross the street.
    wire_side = jnp.where(chosen(0.5), 1.0, -1.0)
    pole_z = jnp.float32([-12, 12, 36, 60]) + uniform(-8, 8)
    has_wires = chosen(0.65)
    pole = jnp.full(4, catalog.number("pole"))
    pole_size = jnp.broadcast_to(sizes(dice, pole)[:1], (4, 3))
    pole_x = jnp.full(4, wire_side * (road + 0.45))
    poles = Placed(pole, jnp.stack([pole_x, 0 * pole_z, pole_z], -1), jnp.zeros(4), pole_size, jnp.full(4, has_wires))
    wire = jnp.full(5, catalog.number("wires"))
    wire_z = jnp.concatenate([pole_z[:3] + 12, uniform(6, 35, (2,))])
    wire_x = jnp.concatenate([pole_x[:3], jnp.zeros(2)])
    tall = pole_size[0, 1]
    wire_size = jnp.stack(
        [jnp.float32([24, 24, 24, 0, 0]) + jnp.float32([0, 0, 0, 2, 2]) * line, jnp.full(5, tall), jnp.full(5, 0.1)], -1
    )
    wires = Placed(
        wire,
        jnp.stack([wire_x, 0 * wire_z, wire_z], -1),
        jnp.float32([1, 1, 1, 0, 0]) * np.pi / 2,
        wire_size,
        jnp.concatenate([jnp.full(3, has_wires), chosen(0.35, (2,))]),
    )

    tree = dice.pick(TREES, 8)
    tree = jnp.where(chosen(0.6), tree[0], tree)
    tree_side = jnp.where(jnp.arange(8) < 4, 1.0, -1.0)
    tree_z = (jnp.arange(8) % 4 + 0.55) * spacing + uniform(-1, 5, (8,))
    trees = Placed(
        tree,
        jnp.stack([tree_side * (road + 1.2), 0 * tree_z, tree_z], -1),
        uniform(0, 6, (8,)),
        sizes(dice, tree) * jnp.float32([0.75, 0.9, 0.75]),
        chosen(0.6, (8,)) & chosen(0.7),
    )
    slim = trees._replace(size=trees.size * jnp.float32([0.15, 1, 0.15]))  # crowns may hang over other things

    car = dice.pick(CARS, 11)
    car_size = sizes(dice, car)
    car_side = jnp.where(jnp.arange(11) < 5, 1.0, -1.0)
    parked = jnp.arange(11) < 9
    car_x = car_side * jnp.where(parked, road - 1.05, road * 0.4) + uniform(-0.1, 0.1, (11,))
    car_z = jnp.where(parked, (jnp.arange(11) % 5) * 6.3 + uniform(2, 6, (11,)), uniform(8, 60, (11,)))
    cars = Placed(
        car,
        jnp.stack([car_x, 0 * car_x, car_z], -1),
        jnp.where(car_side > 0, np.pi, 0.0) + uniform(-0.04, 0.04, (11,)),
        car_size,
        chosen(0.5, (11,)),
    )

    count = 18
    thing = dice.pick(KERB, count, KERB_OFTEN)
    size = sizes(dice, thing)
    side = jnp.where(chosen(0.5, (count,)), 1.0, -1.0)
    x = side * (road + 0.3 + uniform(0, 1, (count,)) * (walk - 0.8))
    z = 2.5 + 34 * uniform(0, 1, (count,)) ** 1.6
    turn = (
        -side * np.pi / 2
        + jnp.where(
            (thing == catalog.number("sign"))
            | (thing == catalog.number("person"))
            | (thing == catalog.number("traffic mirror")),
            side * np.pi / 2 + np.pi,
            0.0,
        )
        + uniform(-0.2, 0.2, (count,))
    )
    things = Placed(thing, jnp.stack([x, 0 * x, z], -1), turn, size, chosen(0.75 if style == "worn" else 0.6, (count,)))

    fence = jnp.broadcast_to(dice.pick(FENCES, 1), (6,))
    fence_size = jnp.broadcast_to(sizes(dice, fence)[:1], (6, 3))
    fence_z = uniform(1, 8) + jnp.arange(6) * (fence_size[:, 0] + 0.03)
    fence_side = jnp.where(chosen(0.5), 1.0, -1.0)
    fences = Placed(
        fence,
        jnp.stack([jnp.full(6, fence_side * (road + 0.25)), 0 * fence_z, fence_z], -1),
        jnp.full(6, -fence_side * np.pi / 2),
        fence_size,
        jnp.full(6, chosen(0.5)),
    )

    standing = separate(put(lamps, poles, slim, fences, cars, things), clear)
    kept = standing.present[12:20]
    standing = jax.tree.map(
        lambda all_, mine: jnp.concatenate([all_[:12], mine, all_[20:]]), standing, trees._replace(present=kept)
    )
    raised = jnp.where(jnp.abs(standing.place[:, :1]) > road, 0.12, 0.02) * jnp.float32([0, 1, 0])
    standing = standing._replace(place=standing.place + raised)
    shapes = nearest_first(build(dice, put(standing, rows, ends, wires), style), eye)

    # The road and the pavements are flat boxes on the ground.
    flats = shape(
        jnp.full(3, BOX),
        jnp.stack(
            [
                jnp.stack([jnp.float32(0), jnp.float32(-0.08), jnp.float32(60)]),
                *[jnp.stack([s * (road + walk / 2 + 2), jnp.float32(0), jnp.float32(60)]) for s in (-1, 1)],
            ]
        ),
        jnp.stack(
            [
                jnp.stack([road, jnp.float32(0.1), jnp.float32(120)]),
                *[jnp.stack([walk / 2 + 2, jnp.float32(0.12), jnp.float32(120)])] * 2,
            ]
        ),
        about_y(jnp.zeros(3)),
        jnp.zeros((3, 6)),
        palette.draw(
            style,
            jnp.array([palette.family("road"), palette.family("paving"), palette.family("paving")]),
            jnp.broadcast_to(uniform(0.0, 1.0, (1, 8)), (3, 8)),
        ),
    )
    width = flats.material.scale.at[0].set(road)
    flats = flats._replace(material=flats.material._replace(scale=width))
    shapes = by_kind(join(flats, shapes))
    lights = jnp.stack(
        [
            jnp.concatenate(
                [
                    lamps.place[i] + jnp.stack([-lamp_side[i] * 1.3, lamp_size[0, 1] - 0.15, jnp.float32(0)]),
                    jnp.zeros(3),
                ]
            )
            for i in (0, 1, 4, 5)
        ]
    )
    return open_air(
        dice, style, shapes, lights, lamps.present[jnp.array([0, 1, 4, 5])], footprints(standing, eye, 16)
    ), camera
