"""Sky, light, shadow and fog. Colors are linear and have no unit: the camera sets the exposure afterwards."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from dav2_jax.scenes.cull import towards_light
from dav2_jax.scenes.intersect import add, along, dot, present, scale, trace, unit
from dav2_jax.scenes.shapes import Scene
from dav2_jax.scenes.surface import describe, fetch
from dav2_jax.scenes.textures import PATTERNS, albedo, noise


def sky(scene: Scene, d, clouds: bool = True):
    """The sky's color in direction d, three arrays [R]."""
    d = unit(d)
    up = jnp.clip(d[1], 0, 1)
    height = 1 - (1 - up) ** 3
    if clouds:
        flat = 1.7 / jnp.maximum(up + 0.08, 0.05)
        x, z, seed = d[0] * flat, d[2] * flat, scene.seed
        puffs = noise(x, z, seed) * 0.5 + noise(x * 2.1, z * 2.1, seed + 0.3) * 0.3
        puffs = puffs + noise(x * 4.5, z * 4.5, seed) * 0.2
        cover = jnp.clip((puffs - 0.75 + scene.clouds * 0.6) * 4, 0, 1) * jnp.clip(up * 8, 0, 1)
    else:
        puffs, cover = 0.5, 0.5 * scene.clouds
    towards = jnp.clip(dot(d, tuple(scene.sun)), 0, 1)
    glow = 0.25 * towards**8 + 6.0 * jnp.clip((towards - 0.9994) * 4000, 0, 1) * (1 - cover)
    colors = []
    for i in range(3):
        clear = scene.horizon[i] * (1 - height) + scene.sky[i] * height + glow * scene.sun_color[i]
        cloud = (0.75 * scene.horizon[i] + 0.12 * scene.sun_color[i]) * (0.75 + 0.5 * puffs)
        colors.append(clear * (1 - cover) + cloud * cover)
    return tuple(colors)


def shade(scene: Scene, o, d, t, which, width):
    """The light that comes back along rays from what they hit first, three arrays [R]; where they hit nothing, sky.

    width: metres [R] that a pixel covers at the hit, across the ray.
    """
    one = fetch(scene, which)
    hit = which >= 0
    t = jnp.where(hit, t, 1.0)
    normal, u, v = describe(one, o, d, t)
    point = along(o, d, t)
    length = jnp.sqrt(dot(d, d))
    view = scale(d, 1 / length)
    facing = jnp.maximum(-dot(normal, view), 0.05)
    material = one.material
    color, lit = albedo(material, u, v, width / jnp.sqrt(facing))

    # The light that casts shadows is the sun, or the first lamp.
    lamp = scene.lamps[0]
    to_lamp = add(tuple(lamp[:3]), scale(point, -1))
    far = jnp.sqrt(jnp.maximum(dot(to_lamp, to_lamp), 1e-4))
    by_lamp = scene.key_lamp > 0
    to_key = tuple(jnp.where(by_lamp, a / far, s) for a, s in zip(to_lamp, scene.sun, strict=True))
    key = [jnp.where(by_lamp, lamp[3 + i] / (0.3 + far * far), scene.sun_color[i]) for i in range(3)]
    lean = dot(normal, to_key)
    start = along(point, normal, 2e-3 + 2e-4 * t)
    possible = present(scene, glass=False) & towards_light(scene, start, hit & (lean > 0))
    blocked, _ = trace(scene, start, to_key, 1e-3, possible)
    shadow = (blocked < jnp.where(by_lamp, far * 0.93, jnp.inf)) & hit
    foliage = jnp.where(
        (material.pattern == PATTERNS.index("foliage")) & ~by_lamp, 0.35, 0.0
    )  # light comes through leaves
    key_light = jnp.maximum(lean, 0) * (1 - foliage) + foliage * 0.5
    # A room's walls send so much light back that a lamp's shadows are never black.
    in_shadow = jnp.where(by_lamp & (scene.room[0] > -1e3), 0.4 * key_light, 0.25 * foliage)
    key_light = jnp.where(shadow, in_shadow, key_light)
    half = unit(add(to_key, scale(view, -1)))
    shine = jnp.maximum(dot(normal, half), 0) ** (8 + 120 * material.gloss * material.gloss)
    shine = jnp.where(shadow | (lean <= 0), 0.0, shine) * material.gloss * (0.25 + 0.75 * material.gloss)

    fill = [0.0, 0.0, 0.0]
    for number in range(1, scene.lamps.shape[0]):
        other = scene.lamps[number]
        way = add(tuple(other[:3]), scale(point, -1))
        square = dot(way, way)
        falls = jnp.maximum(dot(normal, way) * lax.rsqrt(jnp.maximum(square, 1e-4)), 0) * 0.8 + 0.2
        fill = [f + other[3 + i] * falls / (0.5 + square) for i, f in enumerate(fill)]

    occlusion = ambient_occlusion(scene, point, normal)
    up = 0.5 + 0.5 * normal[1]
    mirrored = along(view, normal, -2 * dot(view, normal))
    fresnel = material.gloss * (0.04 + 0.5 * (1 - facing) ** 5) * 1.2
    around = reflected(scene, point, mirrored)
    glow = material.glow + lit * jnp.where(scene.sun_color[1] < 0.6, 2.5, 0.0)
    result = []
    for i in range(3):
        diffuse = scene.ambient[0, i] * up + scene.ambient[1, i] * (1 - up)
        light = key[i] * key_light + (fill[i] + diffuse) * occlusion
        result.append(color[i] * (light + glow) + key[i] * shine + around[i] * fresnel * occlusion)
    return fog(scene, d, t * length, hit, result)


def ambient_occlusion(scene: Scene, point, normal):
    """How much of the light from all around reaches a point: less in corners, at the foot of things and under them."""
    low, high = scene.room[:3], scene.room[3:]
    open_ = 1.0
    for i in range(3):
        for gap, away in ((point[i] - low[i], normal[i]), (high[i] - point[i], -normal[i])):
            open_ = open_ * (1 - 0.32 * jnp.exp(-jnp.abs(gap) * 2.2) * (1 - jnp.clip(away, 0, 1)))
    floor = jnp.where(scene.room[0] < -1e3, scene.ground_height, low[1])
    rise = jnp.maximum(point[1] - floor, 0)
    upright = 1 - jnp.abs(normal[1])
    open_ = open_ * (1 - 0.3 * upright * jnp.exp(-rise * 5))
    on_floor = jnp.where((rise < 0.2) & (normal[1] > 0.5), 1.0, 0.0)

    def nearest(number, least):
        x, z, a, b, c, s = scene.footprints[number]
        dx, dz = point[0] - x, point[2] - z
        aside = jnp.maximum(jnp.abs(c * dx - s * dz) - a, 0)
        ahead = jnp.maximum(jnp.abs(s * dx + c * dz) - b, 0)
        return jnp.minimum(least, aside * aside + ahead * ahead)

    least = lax.fori_loop(0, scene.footprints.shape[0], nearest, jnp.full_like(point[0], 1e6), unroll=4)
    darkest = jnp.exp(-6 * jnp.sqrt(least))
    return open_ * (1 - 0.5 * darkest * on_floor)


def reflected(scene: Scene, point, d):
    """A cheap stand-in for what polished surfaces mirror: the sky outdoors, light walls and the lamp indoors."""
    indoors = scene.room[0] > -1e3
    heaven = sky(scene, d, clouds=False)
    to_lamp = unit(add(tuple(scene.lamps[0, :3]), scale(point, -1)))
    flash = jnp.clip((dot(to_lamp, d) - 0.97) * 40, 0, 1) * jnp.where(scene.key_lamp > 0, 1.0, 0.0)
    below = jnp.clip(0.5 - d[1] * 4, 0, 1)
    result = []
    for i in range(3):
        inside = scene.ambient[0, i] * (0.7 + 0.3 * d[1]) + flash * 3
        outside = heaven[i] * (1 - below) + scene.ambient[1, i] * 0.6 * below
        result.append(jnp.where(indoors, inside, outside))
    return tuple(result)


def fog(scene: Scene, d, distance, hit, color):
    """The color through fog; where nothing was hit, the sky."""
    clear = jnp.exp(-distance * scene.fog)
    heaven = sky(scene, d)
    low = jnp.exp(-jnp.maximum(unit(d)[1], 0) * 12) * jnp.clip(scene.fog * 60, 0, 1)
    return tuple(
        jnp.where(hit, c * clear + f * (1 - clear), h * (1 - low) + f * low)
        for c, f, h in zip(color, scene.fog_color, heaven, strict=True)
    )
