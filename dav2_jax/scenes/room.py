"""Rooms: four walls with windows and doors, furniture along them, a table in the middle, things on top, lamps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.scenes import catalog, palette
from dav2_jax.scenes.camera import aim
from dav2_jax.scenes.cutouts import OPENING, PANEL
from dav2_jax.scenes.dice import Dice
from dav2_jax.scenes.place import Placed, build, footprints, nearest_first, put, separate, sizes
from dav2_jax.scenes.shapes import BOX, CARD, GLASS, Scene, about_y, by_kind, join, shape

ALONG = catalog.numbers(
    "sofa",
    "bed",
    "wardrobe",
    "mirror wardrobe",
    "bookshelf",
    "glass cabinet",
    "desk",
    "television",
    "chest",
    "floor lamp",
    "plant",
    "radiator",
    "standing mirror",
    "boxes",
    "armchair",
    "screen",
)
ALONG_OFTEN = np.float32([3, 1.5, 2, 1.2, 3, 1.4, 2, 2, 2.5, 1.2, 2.2, 1, 1, 1, 1.5, 0.8])
MIDDLE = catalog.numbers("table", "metal table", "glass table", "round table")
LOOSE = catalog.numbers("toys", "person", "boxes", "plant", "armchair", "clothes horse", "screen", "chair")
ON_TOP = catalog.numbers(
    "vase",
    "bottle",
    "glass bowl",
    "bowl of fruit",
    "books",
    "table lamp",
    "chrome ball",
    "mug",
    "torus",
    "solids",
    "basket",
    "bottle",
)
ON_WALL = catalog.numbers("picture", "picture", "picture", "wall mirror", "round mirror", "shelf", "clock")
BEYOND = catalog.numbers("building", "house", "tree", "conifer", "tree", "bush")
# The walls' angles: their fronts look into the room. Back, left, right, and the one behind the camera.
ANGLES = np.float32([np.pi, np.pi / 2, -np.pi / 2, 0])


def make(key: jax.Array, style: palette.Style):
    """(Scene, Camera) of a room; the floor is at height 0, the middle at x = z = 0."""
    dice = Dice(key)
    uniform, chosen = dice.uniform, dice.chosen

    clutter = 0.85 if style == "worn" else 0.72
    width, length, height = uniform(3.0, 6.5), uniform(3.6, 8.5), uniform(2.3, 3.2)
    reach = jnp.stack([length, width, width, length]) / 2  # from the middle to each wall
    half_wall = jnp.stack([width, length, length, width]) / 2
    inward = jnp.stack([jnp.sin(ANGLES), 0 * ANGLES, jnp.cos(ANGLES)], -1)
    beside = jnp.stack([jnp.cos(ANGLES), 0 * ANGLES, -jnp.sin(ANGLES)], -1)

    def at_wall(wall, place, out, y):
        """[N, 3]: `place` metres along walls [N], `out` metres into the room, at height y."""
        return (
            beside[wall] * place[:, None]
            + inward[wall] * (out - reach[wall])[:, None]
            + jnp.stack([0 * y, y, 0 * y], -1)
        )

    eye_x, eye_z = uniform(-0.3, 0.3) * width, -length / 2 + 0.35 + uniform(0, 0.22) * length
    eye = jnp.stack([eye_x, jnp.minimum(uniform(0.7, 2.1), height - 0.3), eye_z])
    target = jnp.stack([uniform(-0.3, 0.3) * width, uniform(0.5, 1.4), uniform(0.15, 0.5) * length])
    camera = aim(eye, target, uniform(-0.06, 0.06), uniform(0.5, 1.05), uniform(-0.02, 0.02, (2,)))
    clear = jnp.stack([eye_x, eye_z, jnp.float32(0.55)])[None]

    # Windows: the share of the wall to each side, then heights in metres.
    window = chosen(0.55, (4,)) & (jnp.arange(4) < 3)
    wide = jnp.minimum(uniform(0.5, 1.3, (4,)), half_wall * 0.7)
    center = uniform(-0.6, 0.6, (4,)) * (half_wall - wide)
    to_floor = chosen(0.25, (4,))
    sill = jnp.where(to_floor, 0.02, uniform(0.7, 1.0, (4,)))
    lintel = jnp.minimum(uniform(1.9, 2.3, (4,)), height - 0.15)

    walls = jnp.arange(3).repeat(3)
    thing = dice.pick(ALONG, 9, ALONG_OFTEN)
    size = sizes(dice, thing)
    size = size.at[:, 0].min(half_wall[walls] * 0.62).at[:, 1].min(height - 0.1)
    spot = (jnp.tile(jnp.float32([-0.64, 0.0, 0.64]), 3) + uniform(-0.08, 0.08, (9,))) * half_wall[walls]
    furniture = Placed(
        thing,
        at_wall(walls, spot, size[:, 2] / 2 + 0.02, 0 * spot),
        jnp.asarray(ANGLES)[walls],
        size,
        chosen(clutter, (9,)),
    )

    door_wall = dice.pick(np.arange(3), 1)
    door = jnp.full(1, catalog.number("door"))
    door_size = sizes(dice, door)
    door_spot = uniform(-0.7, 0.7, (1,)) * half_wall[door_wall]
    blocked = window[door_wall] & (jnp.abs(door_spot - center[door_wall]) < wide[door_wall] + 0.6)
    doors = Placed(
        door,
        at_wall(door_wall, door_spot, 0.04 + 0 * door_spot, 0 * door_spot),
        jnp.asarray(ANGLES)[door_wall],
        door_size,
        ~blocked,
    )

    table = dice.pick(MIDDLE, 1)
    table_size = sizes(dice, table)
    table_at = jnp.stack([uniform(-0.2, 0.2) * width, jnp.float32(0), uniform(-0.1, 0.25) * length])[None]
    table_turn = jnp.where(chosen(0.5, (1,)), np.pi / 2, 0.0) + uniform(-0.05, 0.05, (1,))
    tables = Placed(table, table_at, table_turn, table_size, chosen(0.75, (1,)))
    side = jnp.float32([[0.45, 1], [-0.45, 1], [0.45, -1], [-0.45, -1]])
    seat = side * table_size[:, ::2] / 2 + jnp.float32([[0, 0.24]]) * side * (1 + uniform(0, 0.6, (4, 1)))
    seat = jnp.stack([seat[:, 0], 0 * seat[:, 0], seat[:, 1]], -1)
    turn = about_y(table_turn)[0]
    seats = table_at + (turn[None] * seat[:, None, :]).sum(-1)
    chair = jnp.full(4, catalog.number("chair"))
    facing = table_turn + jnp.where(side[:, 1] > 0, np.pi, 0.0) + uniform(-0.3, 0.3, (4,))
    high = table_size[0, 1] > 0.6
    chairs = Placed(chair, seats, facing, sizes(dice, chair) * 0.98, chosen(0.7, (4,)) & high)

    loose = dice.pick(LOOSE, 4)
    loose_at = jnp.stack([uniform(-0.4, 0.4, (4,)) * width, jnp.zeros(4), uniform(-0.25, 0.42, (4,)) * length], -1)
    others = Placed(
        loose,
        loose_at,
        uniform(0, 6.28, (4,)),
        sizes(dice, loose),
        chosen(clutter * 0.6, (4,)),
    )

    standing = separate(put(doors, tables, chairs, furniture, others), clear)
    rug = jnp.full(1, catalog.number("rug"))
    rugs = Placed(rug, table_at, table_turn, sizes(dice, rug), chosen(0.5, (1,)))

    # On top of what has a top; each thing goes to a random host.
    top = jnp.asarray(catalog.TOP)[standing.thing]
    host = jnp.argmax(jnp.where((top > 0) & standing.present, uniform(0.0, 1.0, (9, top.shape[0])), -1.0), axis=1)
    small = dice.pick(ON_TOP, 9)
    small_size = sizes(dice, small)
    room_left = jnp.maximum(0.5 * (standing.size[host] - small_size), 0.0)
    offset = uniform(-1, 1, (9, 3)) * room_left * jnp.float32([1, 0, 0.8])
    offset = (about_y(standing.angle[host]) * offset[:, None, :]).sum(-1)
    rise = jnp.stack([0 * top[host], top[host] * standing.size[host][:, 1], 0 * top[host]], -1)
    tops = Placed(
        small,
        standing.place[host] + offset + rise,
        uniform(0, 6.28, (9,)),
        small_size,
        chosen(clutter + 0.2, (9,)) & (top[host] > 0) & standing.present[host],
    )
    tops = separate(tops, jnp.float32([[1e4, 1e4, 0]]))

    hung = dice.pick(ON_WALL, 9)
    hung_size = sizes(dice, hung)
    hung_at = (jnp.tile(jnp.float32([-0.5, 0.05, 0.55]), 3) + uniform(-0.12, 0.12, (9,))) * half_wall[walls]
    covered = window[walls] & (jnp.abs(hung_at - center[walls]) < wide[walls] + hung_size[:, 0] / 2 + 0.1)
    on_door = (walls == door_wall) & (jnp.abs(hung_at - door_spot) < 0.6 + hung_size[:, 0] / 2) & doors.present
    pictures = Placed(
        hung,
        at_wall(walls, hung_at, hung_size[:, 2] / 2, uniform(1.1, 1.4, (9,))),
        jnp.asarray(ANGLES)[walls],
        hung_size,
        chosen(0.55, (9,)) & ~covered & ~on_door,
    )

    lamp_thing = dice.pick(catalog.numbers("pendant", "ceiling lamp"), 1)
    lamp_size = sizes(dice, lamp_thing)
    lamp_at = jnp.stack([table_at[0, 0], height - lamp_size[0, 1], table_at[0, 2] * 0.6])[None]
    lamps = Placed(lamp_thing, lamp_at, jnp.zeros(1), lamp_size, jnp.ones(1, bool))

    outside = dice.pick(BEYOND, 7)
    below = jnp.where(chosen(0.5), 0.2, uniform(2.5, 8.0))
    bearing, away = uniform(-1.9, 1.9, (7,)), uniform(12, 45, (7,))
    far = Placed(
        outside,
        jnp.stack([jnp.sin(bearing) * away, -below + 0 * away, jnp.cos(bearing) * away], -1),
        bearing + np.pi,
        sizes(dice, outside),
        jnp.ones(7, bool),
    )

    # Walls, floor and ceiling are cards; a window is an opening in one, with a frame and mostly a pane.
    # They reach a little beyond the corners: between two that only touch, rays slip through.
    grown, grown_up = half_wall + 0.04, height / 2 + 0.04
    wall_u = jnp.stack([center - wide, center + wide], -1) / grown[:, None]
    wall_v = (jnp.stack([sill, lintel], -1) - height / 2) / grown_up
    form = jnp.concatenate([jnp.where(window, OPENING, PANEL)[:, None], wall_u, wall_v, jnp.zeros((4, 1))], -1)
    turns = about_y(jnp.asarray(ANGLES))
    middle = at_wall(jnp.arange(4), jnp.zeros(4), jnp.zeros(4), jnp.full(4, height / 2))
    half = jnp.stack([grown, jnp.full(4, grown_up), jnp.ones(4)], -1)
    flat = jnp.float32([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    families = jnp.array([palette.family(name) for name in ("wall", "wall", "wall", "wall", "floor", "ceiling")])
    paint = uniform(0.0, 1.0, (6, 8))
    paint = paint.at[1:4].set(jnp.where(chosen(0.75), paint[:1], paint[1:4]))
    floor_half = jnp.stack([width / 2 + 0.04, length / 2 + 0.04, jnp.float32(1)])
    shell = shape(
        jnp.full(6, CARD),
        jnp.concatenate([middle, jnp.stack([jnp.zeros(3), jnp.float32([0, 1, 0]) * height])]),
        jnp.concatenate([half, jnp.stack([floor_half, floor_half])]),
        jnp.concatenate([turns, jnp.stack([flat, flat])]),
        jnp.concatenate([form, jnp.zeros((2, 6))]),
        palette.draw(style, families, paint),
    )

    # For each wall: left, right, sill, head, upright bar, cross bar, skirting; then the pane.
    zero, tall = jnp.zeros(4), (lintel - sill) / 2
    across = jnp.stack([-wide, wide, zero, zero, zero, zero, -center], -1)
    up = jnp.stack([zero, zero, -tall, tall, zero, tall * 0.35, 0.05 - (sill + lintel) / 2], -1)
    bar_x = jnp.stack([zero + 0.04, zero + 0.04, wide + 0.08, wide + 0.08, zero + 0.018, wide, half_wall], -1)
    bar_y = jnp.stack([tall + 0.04, tall + 0.04, zero + 0.03, zero + 0.04, tall, zero + 0.018, zero + 0.05], -1)
    bar_z = jnp.broadcast_to(jnp.float32([0.07, 0.07, 0.14, 0.07, 0.025, 0.025, 0.006]), (4, 7))
    spot = beside[:, None] * (center[:, None] + across)[..., None] - inward[:, None] * reach[:, None, None]
    spot = spot.at[..., 1].add((sill + lintel)[:, None] / 2 + up)
    bars_random = jnp.broadcast_to(uniform(0.0, 1.0, (1, 8)), (28, 8))
    bar_kind = jnp.where(window[:, None] | (jnp.arange(7) == 6), BOX, 0).reshape(-1)
    frame = shape(
        bar_kind,
        spot.reshape(-1, 3),
        jnp.stack([bar_x, bar_y, bar_z], -1).reshape(-1, 3),
        jnp.repeat(turns, 7, axis=0),
        jnp.zeros((28, 6)),
        palette.draw(style, jnp.full(28, palette.family("ceiling")), bars_random),
    )
    pane = window & chosen(0.85, (4,))
    panes = shape(
        jnp.where(pane, CARD, 0),
        beside * center[:, None] - inward * reach[:, None] + jnp.stack([zero, (sill + lintel) / 2, zero], -1),
        jnp.stack([wide, tall, jnp.ones(4)], -1),
        turns,
        jnp.zeros((4, 6)),
        palette.draw(style, jnp.full(4, palette.family("glass")), uniform(0.0, 1.0, (4, 8)), GLASS),
    )

    things = put(standing, tops, pictures, lamps, rugs, far)
    shapes = by_kind(join(shell, panes, frame, nearest_first(build(dice, things, style), eye)))

    # Light: by day from the windows and the sun through them, else from the lamp.
    any_window = jnp.any(window)
    day = any_window & chosen(0.7)
    warm = jnp.float32([1.0, 0.78, 0.5]) if style == "worn" else jnp.float32([1.0, 0.9, 0.75])
    sunny = day & chosen(0.5)
    power = uniform(2.0, 3.5) * jnp.where(day, 0.35, 1.0) * (width * length / 20)
    key_lamp = jnp.concatenate([lamp_at[0] - jnp.float32([0, 0.12, 0]), power * warm])
    glow_at = at_wall(jnp.arange(3), center[:3], jnp.full(3, 0.25), (sill + lintel)[:3] / 2)
    strength = jnp.where(window[:3] & day, uniform(1.0, 1.8), 0.0) * wide[:3]
    glows = jnp.concatenate([glow_at, strength[:, None] * jnp.float32([[0.85, 0.95, 1.1]])], -1)
    # The sun stands before one of the windows.
    sunny_wall = jnp.argmax(window)
    heading = jnp.asarray(ANGLES)[sunny_wall] + np.pi + uniform(-0.7, 0.7)
    rise_of_sun = uniform(0.35, 0.9)
    sun = jnp.stack(
        [jnp.sin(heading) * jnp.cos(rise_of_sun), jnp.sin(rise_of_sun), jnp.cos(heading) * jnp.cos(rise_of_sun)]
    )
    ambient = jnp.where(day, 0.22, 0.1) * jnp.stack([jnp.float32([1, 1, 1.02]), warm]) * uniform(0.7, 1.3)
    dusk = jnp.where(day, 1.0, 0.06)
    scene = Scene(
        shapes=shapes,
        ground=palette.draw(style, jnp.int32(palette.family("ground")), uniform(0.0, 1.0, (8,))),
        ground_height=-below,
        room=jnp.stack([-width / 2, jnp.float32(0), -length / 2, width / 2, height, length / 2]),
        sun=sun,
        sun_color=jnp.where(sunny, 2.2, jnp.where(day, 0.8, 0.0)) * jnp.float32([1.0, 0.93, 0.8]),
        sky=dusk * jnp.float32([0.25, 0.5, 1.0]),
        horizon=dusk * jnp.float32([0.8, 0.92, 1.05]),
        clouds=uniform(0, 1),
        lamps=jnp.concatenate([key_lamp[None], glows]),
        key_lamp=jnp.where(sunny, 0.0, 1.0),
        ambient=ambient,
        fog=jnp.float32(0.0),
        fog_color=jnp.ones(3),
        footprints=footprints(standing, eye, 16),
        seed=uniform(0, 1),
    )
    return scene, camera
