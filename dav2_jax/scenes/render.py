"""A scene through a camera: color, exact depth, tags, and the depth behind glass, in mirrors and behind thin things.

Depth and tag are those of the one ray through the middle of a pixel and are never averaged: a mean of two depths is on
neither surface. The color is that of 1 + EXTRA rays, but only at pixels that differ from a neighbor in shape or
brightness (a quarter of a picture or so): elsewhere more rays look like one.

Work goes in jobs of one tile's rays, first the middles of all pixels, then the extra rays, through one loop, so that
the costly part is compiled once, and each job meets only the shapes that it can see. Each ray ends on one lit surface:
where the first one is a mirror or glass, a second ray goes on from there. Glass behind glass, and in mirrors, is not
seen.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dav2_jax.scenes.cull import in_view
from dav2_jax.scenes.intersect import add, along, dot, present, scale, trace, unit
from dav2_jax.scenes.light import reflected, shade
from dav2_jax.scenes.shapes import GLASS, MIRROR, ROUND, Scene
from dav2_jax.scenes.surface import describe, fetch
from dav2_jax.scenes.tags import TAGS

TILE = 84  # pixels on a side, at most
EXTRA = ((0.33, -0.25), (-0.33, 0.25))  # of a pixel, from its middle
EDGES = 0.6  # at most this share of the pixels gets extra rays


class Camera(NamedTuple):
    """Without distortion; lengths in the picture are over its longer side."""

    place: jax.Array  # [3] metres
    turn: jax.Array  # [3, 3], columns: right, down and ahead in the world
    focal: jax.Array
    shift: jax.Array  # [2] of the optical axis from the middle, to the right and down


class Picture(NamedTuple):
    """All [H, W, ...]; `behind` is what a device that measures by light would meet: t along the ray that glass let
    through, a mirror sent elsewhere, or a thin thing did not stop; inf is sky."""

    color: jax.Array  # float32 [H, W, 3], linear
    depth: jax.Array  # float32 [H, W], metres along the optical axis, inf is sky
    tag: jax.Array  # uint8 [H, W]
    behind: jax.Array  # float32 [H, W]
    which: jax.Array  # int32 [H, W]: number of the shape, -1 for sky


def intrinsics(camera: Camera, height: int, width: int) -> jax.Array:
    """float32 [4]: fx, fy, cx, cy in pixels; the center of the first pixel is (0, 0)."""
    size = max(height, width)
    fx = camera.focal * size
    cx, cy = (width - 1) / 2 + camera.shift[0] * size, (height - 1) / 2 + camera.shift[1] * size
    return jnp.stack([fx, fx, cx, cy])


def render_scene(scene: Scene, camera: Camera, height: int, width: int, extra: tuple = EXTRA) -> Picture:
    """Draws a scene; `extra` are the further rays of a pixel at edges, () for none."""
    tiles_down, tiles_across = -(-height // TILE), -(-width // TILE)
    tile_height, tile_width = -(-height // tiles_down), -(-width // tiles_across)
    job, first = tile_height * tile_width, tiles_down * tiles_across  # rays of a job; jobs for the middles
    pixels = first * job  # tile after tile; those beyond the picture's border repeat it
    places = int(first * EDGES + 1) * job if extra else 0
    fx, fy, cx, cy = intrinsics(camera, height, width)
    jobs = first + len(extra) * (places // job)
    offsets = jnp.float32(((0.0, 0.0), *extra))

    def to_picture(leaf):
        """[pixels, ...] in the order of tiles -> [rows, columns, ...], with what lies beyond the border."""
        leaf = leaf.reshape(tiles_down, tiles_across, tile_height, tile_width, *leaf.shape[1:])
        return jnp.moveaxis(leaf, 2, 1).reshape(tiles_down * tile_height, tiles_across * tile_width, *leaf.shape[4:])

    def middles(results):
        return jax.tree.map(lambda leaf: leaf[:pixels], results)

    def to_tiles(leaf):
        return jnp.moveaxis(leaf.reshape(tiles_down, tile_height, tiles_across, tile_width), 2, 1).reshape(-1)

    def work(state):
        number, results, chosen, count = state
        if extra:
            chosen, count = lax.cond(
                number == first, lambda: _edges(middles(results), to_picture, to_tiles, places), lambda: (chosen, count)
            )
        later = number - first
        lists = jnp.maximum(-(-count // job), 1)  # jobs that one round of extra rays takes
        begin = jnp.where(number < first, number * job, (later % lists) * job)
        pixel = jnp.minimum(begin + jnp.arange(job, dtype=jnp.int32), pixels - 1)
        offset = jnp.where(number < first, 0, later // lists + 1)
        if extra:
            listed = lax.dynamic_slice_in_dim(chosen, jnp.where(number < first, 0, begin), job)
            pixel = jnp.where(number < first, pixel, jnp.minimum(listed, pixels - 1))
        du, dv = offsets[offset]
        tile, inside = pixel // job, pixel % job
        row = jnp.minimum(tile // tiles_across * tile_height + inside // tile_width, height - 1)
        column = jnp.minimum(tile % tiles_across * tile_width + inside % tile_width, width - 1)
        x = (column.astype(jnp.float32) + du - cx) / fx
        y = (row.astype(jnp.float32) + dv - cy) / fy
        d = tuple(camera.turn[i, 0] * x + camera.turn[i, 1] * y + camera.turn[i, 2] for i in range(3))
        seen = look(scene, tuple(camera.place), d, 1 / fx, number < first, in_view(scene, camera, x, y))
        place = jnp.where(number < first, number * job, first * job + (offset - 1) * places + begin)
        results = jax.tree.map(lambda all_, new: lax.dynamic_update_slice_in_dim(all_, new, place, 0), results, seen)
        return number + 1, results, chosen, count

    def unfinished(state):
        number, _, _, count = state
        return (number < first) | (number < first + len(extra) * -(-count // job))

    empty = jnp.zeros(jobs * job, jnp.float32)
    results = Seen(*[empty] * 6, which=jnp.zeros(jobs * job, jnp.int32))
    # Not 0 before the edges are known, so that the loop does not end there.
    begin = (jnp.int32(0), results, jnp.zeros(places, jnp.int32), jnp.int32(1 if extra else 0))
    _, results, chosen, count = lax.while_loop(unfinished, work, begin)

    middle = jax.tree.map(lambda leaf: to_picture(leaf)[:height, :width], middles(results))
    color = jnp.stack([results.red, results.green, results.blue], -1)
    mean = color[:pixels]
    if extra:
        # The place of a pixel in the list, which is sorted.
        mine = jnp.arange(pixels, dtype=jnp.int32)
        rank = jnp.minimum(jnp.searchsorted(chosen, mine).astype(jnp.int32), places - 1)
        has = (chosen[rank] == mine) & (rank < count)
        total = mean
        for number in range(len(extra)):
            total = total + color[first * job + number * places + rank]
        mean = jnp.where(has[:, None], total / (1 + len(extra)), mean)
    color = to_picture(mean)[:height, :width]
    return Picture(color, middle.depth, middle.tag.astype(jnp.uint8), middle.behind, middle.which)


class Seen(NamedTuple):
    red: jax.Array
    green: jax.Array
    blue: jax.Array
    depth: jax.Array
    tag: jax.Array
    behind: jax.Array
    which: jax.Array


def look(scene: Scene, o, d, pixel, measure, possible) -> Seen:
    """What rays [R] see; pixel: the width of a pixel at depth 1; measure: whether `behind` is wanted; possible: bool
    [N], the shapes that they can meet."""
    t, which = trace(scene, o, d, 1e-3, possible)
    one = fetch(scene, which)
    hit = which >= 0
    depth = jnp.where(hit, t, jnp.inf)
    t = jnp.where(hit, t, 1.0)
    optics = jnp.where(hit, one.material.optics, 0.0)
    thin = hit & (one.material.thin > 0) & (optics == 0)
    tag = jnp.where(thin, _tag("thin"), 0)
    for kind, name in ((GLASS, "glass"), (MIRROR, "mirror")):
        tag = jnp.where(optics == kind, _tag(name), tag)
    tag = jnp.where(hit, tag, _tag("sky"))

    normal, _, _ = describe(one, o, d, t)
    point = along(o, d, t)
    length = jnp.sqrt(dot(d, d))
    towards = dot(d, normal)  # negative
    mirror, glass = optics == MIRROR, optics == GLASS
    # A pane shifts what is behind it sideways; a bottle bends it.
    aside = add(d, scale(normal, -towards))
    bent = add(d, scale(normal, -0.22 * length * jnp.where(glass & (one.kind == ROUND), 1.0, 0.0)))
    bent = scale(bent, length * lax.rsqrt(dot(bent, bent)))
    reflection = add(d, scale(normal, -2 * towards))
    onward = tuple(jnp.where(mirror, r, b) for r, b in zip(reflection, bent, strict=True))
    lift = (1e-3 + 1e-4 * t) * jnp.where(mirror, 1.0, -1.0)
    start = add(along(point, normal, lift), scale(aside, jnp.where(glass, 0.008, 0.0) / length))
    special = mirror | glass
    t2, which2 = _second(scene, start, onward, thin, special | (thin & measure))

    o = tuple(jnp.where(special, a, b) for a, b in zip(start, o, strict=True))
    last = tuple(jnp.where(special, a, b) for a, b in zip(onward, d, strict=True))
    final_t, final = jnp.where(special, t2, t), jnp.where(special, which2, which)
    whole = jnp.where(special, t + jnp.where(which2 >= 0, t2, 1.0), t)
    color = shade(scene, o, last, final_t, final, whole * pixel)

    view = unit(d)
    facing = jnp.clip(-dot(normal, view), 0, 1)
    around = reflected(scene, point, along(view, normal, 2 * facing))
    fresnel = jnp.where(glass, 0.05 + 0.6 * (1 - facing) ** 4, 0.0)
    tints = one.material.color
    color = [
        jnp.where(special, c * tint * (1 - fresnel) + a * fresnel, c)
        for c, tint, a in zip(color, tints, around, strict=True)
    ]
    behind = jnp.where(special | thin, jnp.where(which2 >= 0, t + t2, jnp.inf), depth)
    return Seen(*color, depth, tag.astype(jnp.float32), behind, which)


def _second(scene: Scene, o, d, skip_thin, wanted):
    """`trace` for the rays that are wanted [R], a quarter of a job at a time: they are few."""
    size = wanted.shape[0]
    clear = present(scene, glass=False)
    part = max(size // 4, 1)
    rank = jnp.cumsum(wanted, dtype=jnp.int32)
    count = rank[-1]
    order = jnp.searchsorted(rank, jnp.arange(1, size + part + 1, dtype=jnp.int32))
    order = jnp.minimum(order, size - 1).astype(jnp.int32)

    def some(number, state):
        mine = lax.dynamic_slice_in_dim(order, number * part, part)
        picked = jnp.stack([*o, *d, skip_thin.astype(jnp.float32)], -1)[mine]
        columns = [picked[:, column] for column in range(7)]
        found = trace(scene, tuple(columns[:3]), tuple(columns[3:6]), 1e-4, clear, columns[6] > 0)
        return tuple(
            lax.dynamic_update_slice_in_dim(all_, new, number * part, 0) for all_, new in zip(state, found, strict=True)
        )

    begin = (jnp.full(size + part, jnp.inf), jnp.full(size + part, -1, jnp.int32))
    t, which = lax.fori_loop(0, -(-count // part), some, begin)
    rank = jnp.maximum(rank - 1, 0)
    return jnp.where(wanted, t[rank], jnp.inf), jnp.where(wanted, which[rank], -1)


def _edges(results: Seen, to_picture, to_tiles, places: int):
    """Pixels (in the order of tiles, [places]) that differ from a neighbor, and how many they are."""
    which = to_picture(results.which)
    bright = to_picture(results.red + results.green + results.blue)
    bright = bright / (bright + jnp.mean(jnp.minimum(bright, 10.0)))
    edge = jnp.zeros(which.shape, bool)
    for axis in (0, 1):
        low = lax.slice_in_dim(which, 0, which.shape[axis] - 1, axis=axis)
        differs = low != lax.slice_in_dim(which, 1, None, axis=axis)
        differs |= jnp.abs(jnp.diff(bright, axis=axis)) > 0.12
        pad = [(0, 0), (0, 0)]
        for side in ((1, 0), (0, 1)):
            pad[axis] = side
            edge |= jnp.pad(differs, pad)
    rank = jnp.cumsum(to_tiles(edge), dtype=jnp.int32)
    order = jnp.searchsorted(rank, jnp.arange(1, places + 1, dtype=jnp.int32)).astype(jnp.int32)
    # Entries beyond the last edge are the number of pixels, which keeps the list sorted.
    return order, jnp.minimum(rank[-1], places)


def _tag(name: str) -> float:
    return float(TAGS.index(name))
