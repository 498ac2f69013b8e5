"""The things that scenes are furnished with, as tables of parts.

A thing has a width, a height and a depth in metres. Its parts are placed relative to these: x and z from -1 (left,
back) to 1 (right, front), y from 0 (foot) to 1, plus a fixed number of metres; half sizes likewise. So one table gives
a low wide sofa and a high narrow one whose cushions stay as thick as cushions are. The front is +z.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dav2_jax.scenes.cutouts import BARS, BLADES, DIAMONDS, DISC, GABLE, GRID, LEAVES, PANEL, PICKETS, WIRES
from dav2_jax.scenes.palette import family
from dav2_jax.scenes.shapes import BOX, CARD, CYLINDER, GLASS, MIRROR, ROUND, SPHERE, TORUS, frustum

PARTS = 16  # of a thing, at most


class Part(NamedTuple):
    kind: int
    at: tuple = (0, 0.5, 0)  # relative
    half: tuple = (1, 0.5, 1)  # relative
    plus: tuple = (0, 0, 0)  # metres
    more: tuple = (0, 0, 0)  # metres, added to half
    slot: int = 0  # which of the thing's materials
    form: tuple = (0,) * 6
    turn: tuple = (0, 0, 0)  # degrees about x, then z, then y
    optics: int = 0
    thin: int = 0
    glow: float = 0


class Thing(NamedTuple):
    low: tuple  # least width, height, depth
    high: tuple
    families: tuple  # of the slots, four
    parts: list
    top: float = 0.0  # height, relative, at which something else can stand; 0: nowhere


def box(at, half, plus=(0, 0, 0), more=(0, 0, 0), slot=0, **rest):
    return Part(BOX, at, half, plus, more, slot, **rest)


def ball(at, half, plus=(0, 0, 0), more=(0, 0, 0), slot=0, **rest):
    return Part(ROUND, at, half, plus, more, slot, SPHERE, **rest)


def tube(at, half, plus=(0, 0, 0), more=(0, 0, 0), slot=0, form=CYLINDER, **rest):
    return Part(ROUND, at, half, plus, more, slot, form, **rest)


def ring(at, radius, thickness, plus=(0, 0, 0), slot=0, **rest):
    """A torus; radius in metres, so that its frame scales alike."""
    return Part(TORUS, at, (0, 0, 0), plus, (radius,) * 3, slot, (thickness, 0, 0, 0, 0, 0), **rest)


def card(at, half, plus=(0, 0, 0), more=(0, 0, 0), slot=0, cut=(PANEL,), **rest):
    return Part(CARD, at, (half[0], half[1], 0), plus, (more[0], more[1], 0.01), slot, (*cut, *(0,) * (6 - len(cut))), **rest)  # fmt: skip


def legs(height, thick=0.025, inset=0.0, slot=1, **rest):
    """Four, square; `height` relative."""
    return [
        box((x, height / 2, z), (0, height / 2, 0), (-x * (thick + inset), 0, -z * (thick + inset)), (thick, 0, thick), slot, **rest)
        for x in (-1, 1) for z in (-1, 1)
    ]  # fmt: skip


def poles(xs, radius, slot=1, z=0.0, height=1.0, **rest):
    return [tube((x, height / 2, z), (0, height / 2, 0), (0, 0, 0), (radius, 0, radius), slot, **rest) for x in xs]


UPRIGHT = (90, 0, 0)  # a card laid flat; a tube along z
SIDE = (0, 0, 90)  # a card that looks along x
ACROSS = (0, 90, 0)  # a tube along x

THINGS: dict[str, Thing] = {
    "sofa": Thing((1.5, 0.7, 0.8), (2.5, 0.9, 1.0), ("fabric", "wood", "fabric", "fabric"), [
        box((0, 0.28, 0), (1, 0.2, 1)), box((0, 0.6, -1), (1, 0.4, 0), (0, 0, 0.11), (0, 0, 0.11)),
        *[box((x, 0.38, 0), (0, 0.36, 1), (-x * 0.1, 0, 0), (0.1, 0, 0)) for x in (-1, 1)],
        *[box((x, 0.5, 0.1), (0.42, 0.07, 0.85), slot=2) for x in (-0.44, 0.44)],
        box((-0.6, 0.72, -0.45), (0.18, 0.2, 0.1), slot=3, turn=(-18, 6, 0)), *legs(0.1)]),
    "bed": Thing((1.2, 0.8, 1.9), (1.9, 1.2, 2.1), ("wood", "fabric", "fabric", "wood"), [
        box((0, 0.2, 0), (1, 0.14, 1)), box((0, 0.42, 0.03), (0.96, 0.1, 0.95), slot=1),
        box((0, 0.46, 0.3), (0.99, 0.085, 0.7), slot=2), box((0, 0.5, -1), (1, 0.5, 0), more=(0, 0, 0.04)),
        *[box((x, 0.55, -0.74), (0.36, 0.06, 0.17), slot=1, turn=(-14, 0, 0)) for x in (-0.45, 0.45)], *legs(0.1, 0.04, slot=0)], 0.5),
    "wardrobe": Thing((0.9, 1.8, 0.5), (2.0, 2.3, 0.65), ("wood", "metal", "wood", "wood"), [
        box((0, 0.5, 0), (1, 0.5, 1)), box((0, 0.5, 1), (0.003, 0.46, 0), (0, 0, 0), (0, 0, 0.003), 2),
        *[box((x, 0.52, 1), (0.46, 0.44, 0), (0, 0, 0.006), (0, 0, 0.006), 2) for x in (-0.49, 0.49)],
        *[tube((x, 0.5, 1), (0, 0.05, 0), (0, 0, 0.035), (0.009, 0, 0.009), 1, thin=1) for x in (-0.08, 0.08)]]),
    "mirror wardrobe": Thing((1.0, 1.9, 0.5), (2.2, 2.3, 0.65), ("wood", "metal", "mirror", "wood"), [
        box((0, 0.5, 0), (1, 0.5, 1)), card((-0.5, 0.52, 1), (0.46, 0.44), (0, 0, 0.008), slot=2, optics=MIRROR),
        card((0.5, 0.52, 1), (0.46, 0.44), (0, 0, 0.008), slot=2, optics=MIRROR), box((0, 0.52, 1), (0.02, 0.46, 0), (0, 0, 0.01), (0, 0, 0.01), 1)]),
    "bookshelf": Thing((0.8, 1.2, 0.28), (1.6, 2.2, 0.36), ("wood", "books", "books", "toy"), [
        box((0, 0.5, -0.95), (1, 0.5, 0.04)), *[box((x, 0.5, 0), (0, 0.5, 1), more=(0.015, 0, 0)) for x in (-1, 1)],
        *[box((0, y, 0), (1, 0, 1), more=(0, 0.012, 0)) for y in (0.03, 0.34, 0.66, 0.985)],
        box((-0.2, 0.15, -0.1), (0.72, 0.105, 0.7), slot=1), box((0.2, 0.45, -0.1), (0.7, 0.1, 0.7), slot=2),
        box((-0.1, 0.77, -0.1), (0.82, 0.1, 0.7), slot=1), ball((-0.75, 0.43, 0.1), (0, 0, 0), more=(0.08, 0.08, 0.08), slot=3)]),
    "glass cabinet": Thing((0.7, 1.5, 0.35), (1.3, 2.0, 0.45), ("wood", "toy", "glass", "metal"), [
        box((0, 0.06, 0), (1, 0.06, 1)), box((0, 0.98, 0), (1, 0.02, 1)), box((0, 0.5, -0.96), (1, 0.48, 0.04)),
        *[box((x, 0.5, 0.95), (0, 0.46, 0), more=(0.02, 0, 0.02)) for x in (-1, 1)],
        *[box((0, y, 0), (0.97, 0, 0.9), more=(0, 0.008, 0)) for y in (0.4, 0.7)],
        card((0, 0.54, 1), (0.99, 0.44), slot=2, optics=GLASS), *[card((x, 0.54, 0), (0, 0.44), (0, 0, 0), (0.17, 0), 2, turn=(0, 0, 90), optics=GLASS) for x in (-1, 1)],
        ball((-0.4, 0.4, 0), (0, 0, 0), (0, 0.1, 0), (0.1, 0.1, 0.1), 1), tube((0.4, 0.4, 0), (0, 0, 0), (0, 0.12, 0), (0.06, 0.12, 0.06), 1),
        box((0.1, 0.7, 0), (0.3, 0, 0.4), (0, 0.09, 0), (0, 0.08, 0), 1), tube((-0.5, 0.12, 0), (0, 0, 0), (0, 0.13, 0), (0.1, 0.13, 0.1), 3, frustum(1, 0.6))]),
    "table": Thing((0.9, 0.7, 0.7), (1.8, 0.78, 1.0), ("wood", "wood", "wood", "wood"), [
        box((0, 0.97, 0), (1, 0.03, 1)), box((0, 0.9, 0), (0.9, 0.05, 0.85), slot=1), *legs(0.95, 0.035, 0.03)], 1.0),
    "metal table": Thing((0.8, 0.7, 0.7), (1.6, 0.76, 1.0), ("wood", "metal", "wood", "wood"), [
        box((0, 0.975, 0), (1, 0.025, 1)), *[tube((x, 0.48, z), (0, 0.48, 0), (-0.04 * x, 0, -0.04 * z), (0.014, 0, 0.014), 1, thin=1) for x in (-1, 1) for z in (-1, 1)]], 1.0),
    "glass table": Thing((0.8, 0.4, 0.6), (1.5, 0.74, 1.0), ("glass", "metal", "books", "wood"), [
        box((0, 0.98, 0), (1, 0, 1), more=(0, 0.006, 0), optics=GLASS), *legs(0.97, 0.02, 0.02), box((0, 0.25, 0), (0.85, 0, 0.8), more=(0, 0.01, 0), slot=3),
        box((0.2, 0.25, 0.1), (0.15, 0, 0.2), (0, 0.04, 0), (0, 0.03, 0), 2)], 1.0),
    "round table": Thing((0.7, 0.5, 0.7), (1.2, 0.75, 1.2), ("wood", "metal", "wood", "wood"), [
        tube((0, 0.97, 0), (1, 0.03, 1)), tube((0, 0.5, 0), (0, 0.46, 0), more=(0.04, 0, 0.04), slot=1), tube((0, 0.02, 0), (0.5, 0.02, 0.5), slot=1, form=frustum(1, 0.4))], 1.0),
    "chair": Thing((0.42, 0.8, 0.42), (0.5, 1.0, 0.5), ("wood", "wood", "fabric", "wood"), [
        box((0, 0.48, 0), (1, 0.02, 1)), box((0, 0.52, 0), (0.9, 0.025, 0.9), slot=2), *legs(0.47, 0.018, slot=0, thin=1),
        *[box((x, 0.73, -0.92), (0, 0.27, 0), (-x * 0.018, 0, 0), (0.018, 0, 0.015), thin=1) for x in (-1, 1)],
        *[box((0, y, -0.92), (0.95, 0.04, 0), more=(0, 0, 0.01)) for y in (0.7, 0.83, 0.95)]]),
    "armchair": Thing((0.7, 0.75, 0.7), (0.95, 1.0, 0.9), ("fabric", "wood", "fabric", "wood"), [
        box((0, 0.25, 0), (1, 0.2, 1)), box((0, 0.6, -0.8), (1, 0.4, 0.2), turn=(-8, 0, 0)), *[box((x, 0.38, 0), (0.16, 0.34, 1)) for x in (-0.85, 0.85)],
        box((0, 0.5, 0.1), (0.68, 0.07, 0.85), slot=2), *legs(0.08, 0.03)]),
    "desk": Thing((1.0, 0.72, 0.55), (1.6, 0.78, 0.75), ("wood", "metal", "screen", "wood"), [
        box((0, 0.975, 0), (1, 0.025, 1)), *[box((x, 0.48, 0), (0, 0.48, 0.95), more=(0.02, 0, 0)) for x in (-0.97, 0.97)], box((0.65, 0.6, 0), (0.3, 0.34, 0.9), slot=3),
        box((0, 1, -0.3), (0, 0, 0), (0, 0.32, 0), (0.3, 0.19, 0.015), 2), box((0, 1, -0.35), (0, 0, 0), (0, 0.08, 0), (0.03, 0.08, 0.02), 1),
        box((0, 1, -0.35), (0, 0, 0), (0, 0.008, 0), (0.12, 0.008, 0.08), 1), box((0, 1, 0.4), (0, 0, 0), (0, 0.012, 0), (0.22, 0.012, 0.07), 1)], 1.0),
    "television": Thing((1.2, 1.0, 0.4), (1.8, 1.3, 0.5), ("wood", "metal", "screen", "wood"), [
        box((0, 0.2, 0), (1, 0.2, 1)), box((0, 0.72, -0.3), (0.75, 0.27, 0), more=(0, 0, 0.02), slot=2), box((0, 0.42, -0.3), (0.2, 0.03, 0.3), slot=1),
        *[box((x, 0.2, 1), (0.31, 0.15, 0), (0, 0, 0.005), (0, 0, 0.006), 3) for x in (-0.66, 0, 0.66)]]),
    "chest": Thing((0.7, 0.7, 0.4), (1.3, 1.0, 0.5), ("wood", "metal", "wood", "wood"), [
        box((0, 0.5, 0), (1, 0.5, 1)), *[box((0, y, 1), (0.94, 0.13, 0), (0, 0, 0.006), (0, 0, 0.008), 2) for y in (0.2, 0.5, 0.8)],
        *[ball((x, y, 1), (0, 0, 0), (0, 0, 0.025), (0.018,) * 3, 1) for x in (-0.4, 0.4) for y in (0.2, 0.5, 0.8)]], 1.0),
    "floor lamp": Thing((0.35, 1.4, 0.35), (0.5, 1.8, 0.5), ("metal", "lamp", "metal", "metal"), [
        tube((0, 0.01, 0), (0.7, 0.01, 0.7)), tube((0, 0.45, 0), (0, 0.45, 0), more=(0.012, 0, 0.012), thin=1), tube((0, 0.9, 0), (0.9, 0.1, 0.9), slot=1, form=frustum(1, 0.6), glow=1.2)]),
    "plant": Thing((0.5, 0.9, 0.5), (0.9, 1.7, 0.9), ("paint", "bark", "leaf", "leaf"), [
        tube((0, 0.13, 0), (0.42, 0.13, 0.42), form=frustum(0.7, 1)), tube((0, 0.4, 0), (0, 0.2, 0), more=(0.015, 0, 0.015), slot=1, thin=1),
        *[card((0.2 * np.cos(a), 0.65, 0.2 * np.sin(a)), (0.9, 0.35), slot=2, cut=(LEAVES, 4, 5, 0.15, 1, a), turn=(10, 0, 60 * a), thin=1) for a in (0, 1, 2)]]),
    "radiator": Thing((0.6, 0.6, 0.12), (1.2, 0.8, 0.15), ("metal", "metal", "metal", "metal"), [
        box((0, 0.55, -0.3), (1, 0.42, 0.3)), card((0, 0.55, 1), (1, 0.44), cut=(BARS, 14, 0.55, 0.05)), *legs(0.15, 0.01)]),
    "screen": Thing((1.0, 1.5, 0.3), (2.4, 2.1, 0.3), ("wood", "metal", "wood", "wood"), [
        card((0, 0.5, 0), (1, 0.48), slot=1, cut=(GRID, 9, 10, 0.1), thin=1), *[box((x, 0.5, 0), (0, 0.5, 0), more=(0.025, 0, 0.025)) for x in (-1, 1)],
        *[box((0, y, 0), (1, 0, 0), more=(0, 0.02, 0.02)) for y in (0.02, 0.99)]]),
    "clothes horse": Thing((0.8, 0.9, 0.5), (1.2, 1.1, 0.6), ("metal", "metal", "fabric", "fabric"), [
        card((0, 0.95, 0), (1, 0), more=(0, 0.28), cut=(BARS, 9, 0.12, 0.02), turn=UPRIGHT, thin=1), *[tube((x, 0.48, 0), (0, 0.5, 0), more=(0.01, 0, 0.01), turn=(t, 0, 0), thin=1) for x in (-1, 1) for t in (-25, 25)],
        box((-0.4, 0.72, 0.3), (0.35, 0.24, 0), more=(0, 0, 0.006), slot=2), box((0.45, 0.78, -0.3), (0.3, 0.18, 0), more=(0, 0, 0.006), slot=3)]),
    "standing mirror": Thing((0.5, 1.5, 0.3), (0.9, 1.9, 0.4), ("wood", "metal", "mirror", "wood"), [
        box((0, 0.5, 0), (1, 0.48, 0), more=(0, 0, 0.02), turn=(-6, 0, 0)), card((0, 0.5, 0), (0.9, 0.455), (0, 0, 0.03), slot=2, optics=MIRROR, turn=(-6, 0, 0)),
        *[box((x, 0.02, 0), (0.05, 0.02, 1)) for x in (-0.8, 0.8)]]),
    "boxes": Thing((0.5, 0.6, 0.45), (0.9, 1.2, 0.7), ("card", "card", "toy", "card"), [
        box((0, 0.25, 0), (1, 0.25, 1)), box((-0.1, 0.68, 0.1), (0.7, 0.18, 0.75), slot=1, turn=(0, 0, 20)), box((0.1, 0.93, 0), (0.4, 0.07, 0.4), slot=2, turn=(0, 0, 50))]),
    "toys": Thing((0.6, 0.35, 0.6), (1.0, 0.6, 1.0), ("toy", "toy", "paint", "paint"), [
        ball((-0.5, 0.4, 0.3), (0, 0.4, 0), more=(0.2, 0, 0.2)), tube((0.5, 0.5, -0.3), (0.3, 0.5, 0.3), slot=1, form=frustum(1, 0)), ring((0.4, 0, 0.7), 0.16, 0.32, (0, 0.052, 0), 2),
        box((-0.4, 0.3, -0.6), (0.25, 0.3, 0.2), slot=3, turn=(0, 0, 30))]),
    "person": Thing((0.45, 1.55, 0.3), (0.55, 1.9, 0.35), ("fabric", "fabric", "skin", "rubber"), [
        ball((0, 0.93, 0), (0, 0.075, 0), more=(0.085, 0, 0.1), slot=2), tube((0, 0.68, 0), (0.7, 0.17, 0.75), form=frustum(0.8, 1)), ball((0, 0.83, 0), (0.78, 0.05, 0.7)),
        *[tube((x, 0.26, 0), (0.28, 0.26, 0.4), slot=1, form=frustum(0.6, 1)) for x in (-0.38, 0.38)], *[tube((x, 0.64, 0), (0.16, 0.2, 0.25), slot=0, turn=(0, x * 6, 0), form=frustum(0.7, 1)) for x in (-0.95, 0.95)],
        *[box((x, 0.02, 0.3), (0.3, 0.02, 0.8), slot=3) for x in (-0.38, 0.38)], ball((0, 0.96, -0.1), (0, 0.06, 0), more=(0.09, 0, 0.1), slot=3)]),
    # On tables.
    "vase": Thing((0.12, 0.2, 0.12), (0.22, 0.4, 0.22), ("paint", "leaf", "leaf", "toy"), [
        ball((0, 0.3, 0), (1, 0.3, 1)), tube((0, 0.6, 0), (0.5, 0.14, 0.5), form=frustum(0.7, 1)), card((0, 1.1, 0), (1.2, 0.45), slot=1, cut=(LEAVES, 3, 4, 0.2, 1, 0.3), thin=1),
        card((0, 1.1, 0), (1.2, 0.45), slot=1, cut=(LEAVES, 3, 4, 0.2, 1, 0.6), turn=(0, 0, 80), thin=1)]),
    "bottle": Thing((0.08, 0.24, 0.08), (0.13, 0.36, 0.13), ("glass", "paint", "glass", "glass"), [
        tube((0, 0.35, 0), (1, 0.35, 1), optics=GLASS), tube((0, 0.77, 0), (1, 0.08, 1), form=frustum(1, 0.36), optics=GLASS), tube((0, 0.9, 0), (0.36, 0.08, 0.36), optics=GLASS), tube((0, 0.97, 0), (0.4, 0.03, 0.4), slot=1)]),
    "glass bowl": Thing((0.2, 0.15, 0.2), (0.34, 0.25, 0.34), ("glass", "toy", "glass", "glass"), [
        ball((0, 0.5, 0), (1, 0.5, 1), optics=GLASS), ball((0.1, 0.25, 0), (0.3, 0.2, 0.3), slot=1)]),
    "bowl of fruit": Thing((0.25, 0.12, 0.25), (0.35, 0.18, 0.35), ("paint", "paint", "paint", "paint"), [
        tube((0, 0.4, 0), (1, 0.4, 1), form=frustum(0.55, 1)), *[ball((0.4 * np.cos(a), 0.85, 0.4 * np.sin(a)), (0.34, 0.34, 0.34), slot=1 + i) for i, a in enumerate((0, 2.1, 4.2))]]),
    "books": Thing((0.2, 0.06, 0.16), (0.3, 0.16, 0.24), ("paint", "fabric", "toy", "wood"), [
        box((0, 0.16, 0), (1, 0.16, 1)), box((0.05, 0.48, 0), (0.9, 0.15, 0.9), slot=1, turn=(0, 0, 12)), box((0, 0.8, 0), (0.8, 0.17, 0.8), slot=2, turn=(0, 0, -15))]),
    "table lamp": Thing((0.25, 0.35, 0.25), (0.38, 0.55, 0.38), ("paint", "lamp", "metal", "metal"), [
        tube((0, 0.25, 0), (0.35, 0.25, 0.35), form=frustum(1, 0.5)), tube((0, 0.75, 0), (1, 0.25, 1), slot=1, form=frustum(1, 0.6), glow=1.2)]),
    "chrome ball": Thing((0.15, 0.15, 0.15), (0.4, 0.4, 0.4), ("mirror", "metal", "metal", "metal"), [
        ball((0, 0.5, 0), (1, 0.5, 1), (0, 0.01, 0), optics=MIRROR), tube((0, 0, 0), (0.6, 0, 0.6), more=(0, 0.012, 0), slot=1)]),
    "mug": Thing((0.08, 0.09, 0.08), (0.11, 0.13, 0.11), ("paint", "paint", "paint", "paint"), [
        tube((0, 0.5, 0), (1, 0.5, 1)), ring((1.1, 0.5, 0), 0.035, 0.2, turn=UPRIGHT)]),
    "torus": Thing((0.3, 0.08, 0.3), (0.3, 0.08, 0.3), ("toy", "paint", "paint", "paint"), [ring((0, 0.5, 0), 0.115, 0.35)]),
    "solids": Thing((0.3, 0.15, 0.25), (0.5, 0.3, 0.35), ("toy", "paint", "toy", "paint"), [
        tube((-0.5, 0.5, 0), (0.35, 0.5, 0.4), form=frustum(1, 0)), ball((0.45, 0.35, 0.3), (0, 0.35, 0), more=(0.06, 0, 0.06), slot=1), box((0.4, 0.4, -0.6), (0.28, 0.4, 0.3), slot=2, turn=(0, 0, 25))]),
    "basket": Thing((0.25, 0.15, 0.2), (0.4, 0.25, 0.3), ("metal", "fabric", "toy", "metal"), [
        *[card((0, 0.5, z), (1, 0.5), cut=(GRID, 10, 5, 0.22), thin=1) for z in (-1, 1)], *[card((x, 0.5, 0), (0, 0.5), (0, 0, 0), (0.13, 0), cut=(GRID, 8, 5, 0.22), turn=(0, 0, 90), thin=1) for x in (-1, 1)],
        ball((0, 0.4, 0), (0.7, 0.4, 0.7), slot=1)]),
    # On walls; z = -1 is the wall.
    "picture": Thing((0.4, 0.4, 0.04), (1.2, 0.9, 0.05), ("wood", "picture", "wood", "wood"), [
        box((0, 0.5, 0), (1, 0.5, 1)), card((0, 0.5, 1), (0.88, 0.42), (0, 0, 0.004), slot=1)]),
    "wall mirror": Thing((0.5, 0.8, 0.04), (1.6, 1.2, 0.05), ("wood", "metal", "mirror", "wood"), [
        box((0, 0.5, 0), (1, 0.5, 1)), card((0, 0.5, 1), (0.93, 0.94 / 2), (0, 0, 0.004), slot=2, optics=MIRROR)]),
    "round mirror": Thing((0.6, 0.8, 0.05), (0.9, 0.8, 0.05), ("wood", "metal", "mirror", "wood"), [
        tube((0, 0.5, 0), (1, 0, 0), (0, 0, 0), (0, 0.02, 0.4), turn=UPRIGHT), card((0, 0.5, 1), (0.94, 0), (0, 0, 0.004), (0, 0.376), slot=2, cut=(DISC,), optics=MIRROR)]),
    "shelf": Thing((0.6, 0.35, 0.22), (1.2, 0.4, 0.28), ("wood", "books", "toy", "paint"), [
        box((0, 0.04, 0), (1, 0.04, 1)), box((-0.3, 0.45, -0.2), (0.5, 0.36, 0.6), slot=1), ball((0.5, 0.3, 0), (0, 0.22, 0), more=(0.08, 0, 0.08), slot=2), tube((0.8, 0.35, 0), (0, 0.27, 0), more=(0.05, 0, 0.05), slot=3)]),
    "clock": Thing((0.33, 0.34, 0.05), (0.35, 0.34, 0.05), ("ceiling", "screen", "metal", "metal"), [
        tube((0, 0.5, 0), (1, 0, 0), (0, 0, 0), (0, 0.025, 0.17), turn=UPRIGHT), box((0, 0.6, 1), (0.04, 0.13, 0), (0, 0, 0.01), (0, 0, 0.004), 1), box((0.2, 0.5, 1), (0.22, 0.03, 0), (0, 0, 0.01), (0, 0, 0.004), 1)]),
    "door": Thing((0.8, 2.0, 0.08), (0.95, 2.1, 0.1), ("wood", "metal", "wood", "wood"), [
        box((0, 0.5, -0.6), (0.94, 0.49, 0.3)), *[box((x, 0.51, 0), (0, 0.51, 1), more=(0.05, 0, 0), slot=2) for x in (-1, 1)], box((0, 1, 0), (1, 0, 1), (0, 0.04, 0), (0.1, 0.05, 0), slot=2),
        *[box((0, y, -0.2), (0.62, 0.17, 0.1), slot=3) for y in (0.27, 0.73)], tube((0.78, 0.48, 0), (0, 0, 0), (0, 0, 0.02), (0.012, 0.06, 0.012), 1, turn=ACROSS)]),
    "pendant": Thing((0.3, 0.7, 0.3), (0.6, 1.0, 0.6), ("lamp", "metal", "metal", "metal"), [
        tube((0, 0.13, 0), (1, 0.13, 1), form=frustum(1, 0.3), glow=1.2), tube((0, 0.62, 0), (0, 0.38, 0), more=(0.006, 0, 0.006), slot=1, thin=1), tube((0, 0.99, 0), (0, 0.02, 0), more=(0.05, 0, 0.05), slot=1)]),
    "ceiling lamp": Thing((0.3, 0.1, 0.3), (0.5, 0.14, 0.5), ("lamp", "metal", "metal", "metal"), [
        ball((0, 1, 0), (1, 0.9, 1), glow=1.5), tube((0, 0.98, 0), (0.6, 0.04, 0.6), slot=1)]),
    "rug": Thing((1.2, 0.01, 0.9), (2.6, 0.015, 1.8), ("fabric", "fabric", "fabric", "fabric"), [
        box((0, 0.5, 0), (1, 0.5, 1)), box((0, 0.6, 0), (0.88, 0.5, 0.84), slot=1)]),
    # Outdoors.
    "building": Thing((8, 7, 8), (16, 26, 12), ("facade", "masonry", "glass", "wood"), [
        box((0, 0.5, 0), (1, 0.5, 1)), box((0, 1, 0), (1, 0, 1), (0, 0.15, 0), (0.25, 0.25, 0.25), 1), box((0, 0, 1), (1, 0, 0), (0, 0.35, 0.03), (0.02, 0.35, 0.05), 1),
        box((0, 0, 1), (1, 0, 0), (0, 3.4, 0.06), (0.02, 0.18, 0.1), 1), box((0.6, 0, 1), (0, 0, 0), (0, 1.2, 0.05), (0.7, 1.2, 0.08), 3), box((0.1, 1, -0.2), (0.25, 0, 0.3), (0, 1.2, 0), (0, 1.0, 0), 1),
        tube((-0.5, 1, 0.2), (0, 0, 0), (0, 1.9, 0), (0.03, 1.8, 0.03), 1, thin=1)]),
    "shop": Thing((8, 6, 8), (14, 16, 12), ("facade", "paint", "glass", "screen"), [
        box((0, 0.5, -0.03), (1, 0.5, 0.97)), box((0, 0, 1), (1, 0, 0), (0, 3.5, 0.1), (0, 0.4, 0.2), 1), box((0, 0, 1), (1, 0, 0), (0, 0.2, 0.1), (0, 0.2, 0.2), 1),
        card((-0.3, 0, 1), (0.6, 0), (0, 1.75, 0.25), (0, 1.35), 2, optics=GLASS), box((0.68, 0, 1), (0, 0, 0), (0, 1.3, 0.05), (0.6, 1.3, 0.15), 3),
        *[box((x, 0, 1), (0, 0, 0), (0, 1.7, 0.2), (0.06, 1.4, 0.1), 1) for x in (-0.92, -0.5, -0.1, 0.32, 0.97)], box((-0.3, 0, 1), (0.64, 0, 0), (0, 3.0, 0.8), (0, 0.03, 0.7), 1, turn=(18, 0, 0)),
        box((0, 1, 0), (1, 0, 1), (0, 0.15, 0), (0.2, 0.2, 0.2), 1)]),
    "office": Thing((9, 12, 9), (16, 30, 12), ("mirror", "metal", "masonry", "metal"), [
        box((0, 0.5, 0), (1, 0.5, 1), optics=MIRROR), card((0, 0.5, 1), (1, 0.5), (0, 0, 0.06), slot=1, cut=(GRID, 8, 9, 0.09)), *[card((x, 0.5, 0), (0, 0.5), (x * 0.06, 0, 0), (5.2, 0), 1, cut=(GRID, 7, 9, 0.09), turn=(0, 0, 90)) for x in (-1, 1)],
        box((0, 0, 0), (1, 0, 1), (0, 1.4, 0), (0.2, 1.4, 0.2), 2), box((0, 1, 0), (1, 0, 1), (0, 0.2, 0), (0.15, 0.3, 0.15), 1)]),
    "house": Thing((7.6, 3.2, 6), (8.6, 5.5, 9), ("masonry", "roof", "glass", "wood"), [
        box((0, 0.5, 0), (1, 0.5, 1)), *[box((x * 0.53, 1.0, 0), (0.68, 0, 1.08), (0, 1.05, 0), (0, 0.09, 0), 1, turn=(0, -x * 33, 0)) for x in (-1, 1)],
        *[card((0, 1, z), (1, 0), (0, 1.27, 0), (0, 1.27), cut=(GABLE,)) for z in (-0.98, 0.98)],
        box((0.5, 1, -0.3), (0, 0, 0), (0, 1.4, 0), (0.3, 1.2, 0.3)), box((0.05, 0, 1), (0, 0, 0), (0, 1.05, 0.03), (0.5, 1.05, 0.06), 3),
        *[box((x, 0, 1), (0, 0, 0), (0, 1.6, 0.02), (0.75, 0.65, 0.05), 3) for x in (-0.55, 0.6)], *[box((x, 0, 1), (0, 0, 0), (0, 1.6, 0.09), (0.66, 0.56, 0.02), 2, optics=GLASS) for x in (-0.55, 0.6)],
        *[box((x, 0, 1), (0, 0, 0), (0, 1.6, 0.1), (0.02, 0.56, 0.03), 3) for x in (-0.55, 0.6)]]),
    "tree": Thing((3, 4.5, 3), (6, 9, 6), ("leaf", "bark", "leaf", "leaf"), [
        tube((0, 0.22, 0), (0, 0.24, 0), more=(0.16, 0, 0.16), slot=1, form=frustum(1, 0.7)), ball((0, 0.68, 0), (0.72, 0.27, 0.72)), ball((-0.4, 0.56, 0.2), (0.55, 0.19, 0.55)), ball((0.42, 0.6, -0.1), (0.55, 0.2, 0.55)),
        ball((0.05, 0.58, 0.45), (0.5, 0.18, 0.5)), ball((0, 0.84, -0.1), (0.5, 0.15, 0.5)), *[card((0, 0.66, 0), (1.08, 0.36), cut=(LEAVES, 13, 11, 0.25, 0, a), turn=(0, 0, t)) for a, t in ((0.2, 20), (0.7, 110), (0.5, 65))]]),
    "conifer": Thing((2.2, 4, 2.2), (4, 10, 4), ("leaf", "bark", "leaf", "leaf"), [
        tube((0, 0.08, 0), (0, 0.1, 0), more=(0.14, 0, 0.14), slot=1), *[tube((0, y, 0), (r, h, r), form=frustum(1, 0.05)) for y, r, h in ((0.3, 1, 0.18), (0.52, 0.78, 0.17), (0.72, 0.56, 0.15), (0.88, 0.36, 0.13))]]),
    "bare tree": Thing((3, 4, 3), (5, 7, 5), ("bark", "bark", "bark", "bark"), [
        tube((0, 0.25, 0), (0, 0.27, 0), more=(0.12, 0, 0.12), form=frustum(1, 0.6)), tube((0, 0.7, 0), (0, 0.26, 0), more=(0.05, 0, 0.05), form=frustum(1, 0.3), turn=(4, 5, 0)),
        *[tube((0.38 * np.cos(a), y, 0.38 * np.sin(a)), (0, 0.2, 0), more=(0.025, 0, 0.025), form=frustum(1, 0.4), turn=(0, -48, -np.degrees(a)), thin=1) for a, y in ((0.3, 0.6), (1.7, 0.66), (2.9, 0.58), (4.0, 0.7), (5.3, 0.62))],
        *[tube((0.3 * np.cos(a), y, 0.3 * np.sin(a)), (0, 0.14, 0), more=(0.014, 0, 0.014), form=frustum(1, 0.4), turn=(0, -30, -np.degrees(a)), thin=1) for a, y in ((1.0, 0.85), (3.3, 0.88), (5.0, 0.84))]]),
    "bush": Thing((0.9, 0.7, 0.9), (2.0, 1.5, 1.8), ("leaf", "leaf", "leaf", "leaf"), [
        ball((0, 0.45, 0), (0.8, 0.5, 0.8)), ball((-0.5, 0.35, 0.2), (0.5, 0.38, 0.55)), ball((0.5, 0.4, 0), (0.5, 0.4, 0.5)), card((0, 0.55, 0), (1.05, 0.55), cut=(LEAVES, 9, 6, 0.3, 0, 0.4)), card((0, 0.55, 0), (1.05, 0.55), cut=(LEAVES, 9, 6, 0.3, 0, 0.8), turn=(0, 0, 85))]),
    "street lamp": Thing((0.3, 5, 1.8), (0.4, 7.5, 2.4), ("metal", "lamp", "metal", "metal"), [
        tube((0, 0.5, -1), (0, 0.5, 0), more=(0.06, 0, 0.06), form=frustum(1, 0.6), thin=1), tube((0, 1, -0.2), (0, 0, 0), (0, 0.05, 0), (0.035, 0.9, 0.035), turn=(83, 0, 0), thin=1),
        box((0, 1, 0.65), (0, 0, 0), (0, 0.15, 0), (0.12, 0.06, 0.35)), box((0, 1, 0.65), (0, 0, 0), (0, 0.08, 0), (0.1, 0.02, 0.3), 1, glow=2.5), tube((0, 0.03, -1), (0, 0.03, 0), more=(0.12, 0, 0.12))]),
    "pole": Thing((1.6, 7, 0.3), (2.0, 8.5, 0.3), ("bark", "metal", "ceiling", "bark"), [
        tube((0, 0.5, 0), (0, 0.5, 0), more=(0.11, 0, 0.11), form=frustum(1, 0.75)), box((0, 0.94, 0), (1, 0, 0), more=(0, 0.06, 0.05)), *[tube((x, 0.94, 0), (0, 0, 0), (0, 0.14, 0), (0.035, 0.08, 0.035), 2) for x in (-0.9, -0.45, 0.45, 0.9)],
        tube((0.0, 0.72, 0), (0, 0, 0), (0.32, 0, 0), (0.18, 0.35, 0.18), 1)]),
    "car": Thing((1.65, 1.4, 3.8), (1.85, 1.6, 4.7), ("paint", "rubber", "glass", "lamp"), [
        box((0, 0.38, 0), (1, 0.2, 1)), box((0, 0.57, 0.02), (0.97, 0.05, 0.97)), box((0, 0.97, -0.14), (0.78, 0.025, 0.4)), box((0, 0.78, -0.1), (0.84, 0.17, 0.52), slot=2, optics=GLASS),
        *[box((0, 0.68, z), (0.7, 0.13, 0.05), slot=1) for z in (-0.05, -0.45)], *[tube((x, 0, z), (0, 0, 0), (-x * 0.1, 0.32, 0), (0.32, 0.11, 0.32), 1, turn=ACROSS) for x in (-1, 1) for z in (-0.62, 0.64)],
        *[box((x, 0.46, 1), (0.17, 0.045, 0), more=(0, 0, 0.015), slot=3) for x in (-0.75, 0.75)], box((0, 0.28, 0), (0.99, 0.05, 1), more=(0, 0, 0.05), slot=1), *[box((x, 0.79, -0.14), (0.02, 0.17, 0.02), slot=0) for x in (-0.83, 0.83)]]),
    "van": Thing((1.9, 2.1, 4.8), (2.1, 2.6, 6.0), ("paint", "rubber", "glass", "lamp"), [
        box((0, 0.55, -0.15), (1, 0.4, 0.85)), box((0, 0.36, 0.85), (0.98, 0.2, 0.15)), box((0, 0.72, 0.71), (0.9, 0.16, 0.1), (0, 0, 0.02), slot=2, turn=(-22, 0, 0), optics=GLASS),
        *[tube((x, 0, z), (0, 0, 0), (-x * 0.1, 0.36, 0), (0.36, 0.12, 0.36), 1, turn=ACROSS) for x in (-1, 1) for z in (-0.62, 0.64)], *[box((x, 0.36, 1), (0.15, 0.04, 0), more=(0, 0, 0.015), slot=3) for x in (-0.75, 0.75)], box((0, 0.2, 0), (0.99, 0.06, 1), slot=1)]),
    "bench": Thing((1.4, 0.8, 0.5), (2.0, 0.95, 0.6), ("wood", "metal", "wood", "wood"), [
        *[box((0, 0.5, z), (1, 0.02, 0.2)) for z in (-0.5, 0, 0.5)], *[box((0, y, -0.9), (1, 0.07, 0), more=(0, 0, 0.012), turn=(-10, 0, 0)) for y in (0.7, 0.92)],
        *[box((x, 0.24, 0), (0, 0.25, 0.8), more=(0.025, 0, 0), slot=1) for x in (-0.85, 0.85)], *[box((x, 0.72, -0.95), (0, 0.26, 0), more=(0.02, 0, 0.02), slot=1) for x in (-0.85, 0.85)]]),
    "chain link": Thing((2.5, 1.2, 0.1), (4, 2.0, 0.1), ("metal", "metal", "metal", "metal"), [
        card((0, 0.5, 0), (1, 0.48), cut=(DIAMONDS, 18, 10, 0.13), thin=1), *poles((-1, 0, 1), 0.028, thin=1)]),
    "picket fence": Thing((2.5, 0.8, 0.1), (4, 1.3, 0.1), ("wood", "wood", "wood", "wood"), [
        card((0, 0.5, 0), (1, 0.48), cut=(PICKETS, 22, 0.6), thin=1), *[box((x, 0.45, 0), (0, 0.45, 0), (0, 0, -0.04), (0.05, 0, 0.05)) for x in (-1, 1)]]),
    "railing": Thing((2, 0.9, 0.1), (4, 1.2, 0.1), ("metal", "metal", "metal", "metal"), [
        card((0, 0.5, 0), (1, 0.5), cut=(BARS, 24, 0.18, 0.03), thin=1), tube((0, 1, 0), (0, 0, 0), (0, 0.02, 0), (0.03, 0, 0.03), turn=ACROSS), box((0, 1, 0), (1, 0, 0), more=(0, 0.02, 0.03)), *poles((-1, 1), 0.03)]),
    "glass railing": Thing((2, 1.0, 0.1), (3.5, 1.2, 0.1), ("glass", "metal", "metal", "metal"), [
        card((0, 0.5, 0), (0.98, 0.45), optics=GLASS), box((0, 1, 0), (1, 0, 0), more=(0, 0.025, 0.03), slot=1), *poles((-1, 0, 1), 0.03), box((0, 0.03, 0), (1, 0, 0), more=(0, 0.02, 0.03), slot=1)]),
    "grid fence": Thing((2.5, 1.2, 0.1), (4, 2.2, 0.1), ("metal", "metal", "metal", "metal"), [
        card((0, 0.5, 0), (1, 0.48), cut=(GRID, 28, 9, 0.1), thin=1), *poles((-1, 1), 0.035)]),
    "wires": Thing((10, 7, 0.1), (10, 7, 0.1), ("rubber", "rubber", "rubber", "rubber"), [
        card((0, 0.9, 0), (1, 0), (0, 0, 0), (0, 0.6), cut=(WIRES, 2, 0.5, 0.035), thin=1), card((0, 0.94, 0), (1, 0), (0, 0, 0.7), (0, 0.5), cut=(WIRES, 1, 0.9, 0.04), thin=1)]),
    "hedge": Thing((2, 0.8, 0.6), (5, 1.5, 0.9), ("leaf", "leaf", "leaf", "leaf"), [
        box((0, 0.48, 0), (1, 0.48, 1)), card((0, 1.0, 0), (1, 0), more=(0, 0.09), cut=(LEAVES, 24, 2, 0.2, 1, 0.3))]),
    "bin": Thing((0.4, 0.8, 0.4), (0.6, 1.1, 0.6), ("paint", "metal", "paint", "paint"), [tube((0, 0.45, 0), (1, 0.45, 1), form=frustum(0.8, 1)), ball((0, 0.9, 0), (1.02, 0.12, 1.02), slot=1)]),
    "traffic cone": Thing((0.4, 0.6, 0.4), (0.5, 0.8, 0.5), ("toy", "rubber", "toy", "toy"), [box((0, 0.02, 0), (1, 0.02, 1), slot=1), tube((0, 0.52, 0), (0.72, 0.48, 0.72), form=frustum(1, 0.1))]),
    "bollard": Thing((0.16, 0.8, 0.16), (0.24, 1.0, 0.24), ("metal", "paint", "metal", "metal"), [tube((0, 0.48, 0), (1, 0.48, 1)), ball((0, 0.95, 0), (1, 0.08, 1), slot=1), ring((0, 0.8, 0), 0.11, 0.2, slot=1)]),
    "sign": Thing((0.6, 2.3, 0.1), (0.8, 2.8, 0.1), ("paint", "metal", "toy", "metal"), [
        tube((0, 0.5, 0), (0, 0.5, 0), more=(0.03, 0, 0.03), slot=1, thin=1), tube((0, 0.88, 0), (1, 0, 1), (0, 0, 0.05), (0, 0.012, 0.28), turn=UPRIGHT), card((0, 0.88, 0), (0.6, 0), (0, 0, 0.07), (0, 0.07), 2)]),
    "traffic mirror": Thing((0.8, 2.2, 0.2), (1.2, 2.8, 0.2), ("mirror", "toy", "metal", "metal"), [
        tube((0, 0.5, -1), (0, 0.5, 0), more=(0.035, 0, 0.035), slot=2, thin=1), tube((0, 0.85, 0), (1.1, 0, 0), (0, 0, -0.04), (0, 0.03, 0.55), slot=1, turn=UPRIGHT), ball((0, 0.85, 0), (0.98, 0, 0), (0, 0, 0), (0, 0.1, 0.5), turn=UPRIGHT, optics=MIRROR)]),
    "bus shelter": Thing((3, 2.4, 1.3), (4.5, 2.7, 1.6), ("metal", "glass", "picture", "wood"), [
        box((0, 0.98, 0), (1.05, 0.025, 1.1)), card((0, 0.5, -0.95), (0.98, 0.44), slot=1, optics=GLASS), *[card((x, 0.5, 0), (0, 0.44), (0, 0, 0), (0.62, 0), 1, turn=(0, 0, 90), optics=GLASS) for x in (-1, 1)],
        *poles((-1, 0, 1), 0.035, 0, -0.95, 0.98), *poles((-1, 1), 0.035, 0, 0.9, 0.98), box((0, 0.18, -0.6), (0.7, 0.015, 0.2), slot=3), *poles((-0.6, 0.6), 0.03, 0, -0.6, 0.17), box((1, 0.5, 0.3), (0, 0.32, 0.3), more=(0.05, 0, 0), slot=2)]),
    "greenhouse": Thing((2.5, 2.0, 2.5), (4, 2.6, 5), ("glass", "metal", "leaf", "masonry"), [
        box((0, 0.5, 0), (1, 0.5, 1), optics=GLASS), card((0, 0.5, 1), (1, 0.5), (0, 0, 0.02), slot=1, cut=(GRID, 4, 3, 0.06)), *[card((x, 0.5, 0), (0, 0.5), (x * 0.02, 0, 0), (1.5, 0), 1, cut=(GRID, 5, 3, 0.06), turn=(0, 0, 90)) for x in (-1, 1)],
        box((0, 1, 0), (1.03, 0.02, 1.03), slot=1), ball((0.3, 0.25, 0.2), (0.4, 0.25, 0.4), slot=2), ball((-0.4, 0.35, -0.3), (0.35, 0.35, 0.35), slot=2), box((0, 0.06, 0), (1.01, 0.06, 1.01), slot=3)]),
    "gazing ball": Thing((0.5, 1.2, 0.5), (0.9, 1.6, 0.9), ("mirror", "masonry", "masonry", "metal"), [
        tube((0, 0.25, 0), (0.45, 0.25, 0.45), slot=1, form=frustum(1, 0.7)), ball((0, 0.5, 0), (1, 0, 1), (0, 0.33, 0), (0, 0.35, 0), optics=MIRROR)]),
    "pond": Thing((2, 0.1, 1.5), (4.5, 0.12, 3.5), ("mirror", "masonry", "masonry", "masonry"), [
        tube((0, 0.5, 0), (1, 0.2, 1), optics=MIRROR), tube((0, 0.3, 0), (1, 0.3, 1), more=(0.2, 0, 0.2), slot=1)]),
    "grass": Thing((0.8, 0.25, 0.8), (1.6, 0.6, 1.4), ("leaf", "leaf", "leaf", "leaf"), [
        *[card((0, 0.5, z), (1, 0.5), cut=(BLADES, 16, 0.5, 0, 0, s), turn=(0, 0, t), thin=1) for z, s, t in ((-0.6, 0.1, 5), (0, 0.4, -9), (0.6, 0.8, 4))]]),
    "rock": Thing((0.5, 0.3, 0.5), (1.6, 0.9, 1.3), ("masonry", "masonry", "masonry", "masonry"), [ball((0, 0.3, 0), (1, 0.6, 0.9), turn=(8, 10, 0)), ball((0.7, 0.2, 0.5), (0.5, 0.35, 0.5))]),
    "billboard": Thing((2.5, 2.5, 0.2), (5, 4.5, 0.3), ("metal", "picture", "metal", "metal"), [box((0, 0.7, 0), (1, 0.3, 0.4)), card((0, 0.7, 1), (0.96, 0.28), slot=1), *poles((-0.7, 0.7), 0.06, 0)]),
    "sculpture": Thing((1.2, 1.2, 1.2), (2.4, 2.2, 2.4), ("toy", "paint", "mirror", "masonry"), [
        box((0, 0.1, 0), (0.8, 0.1, 0.8), slot=3), ring((0, 0.2, 0), 0.5, 0.28, (0, 0.6, 0), 1, turn=UPRIGHT), ball((0.9, 0, 0.9), (0, 0, 0), (0, 0.3, 0), (0.3,) * 3, 0), tube((-0.9, 0, 0.7), (0, 0, 0), (0, 0.45, 0), (0.3, 0.45, 0.3), 0, frustum(1, 0))]),
    "playground": Thing((2.5, 2.0, 1.5), (3.5, 2.4, 2.0), ("paint", "metal", "toy", "wood"), [
        tube((0, 1, 0), (0, 1, 0), more=(0.04, 0, 0.04), turn=ACROSS, slot=1), *[tube((x, 0.5, 0), (0, 0.54, 0), more=(0.035, 0, 0.035), turn=(t, 0, 0), slot=0) for x in (-0.95, 0.95) for t in (-20, 20)],
        *[tube((x, 0.62, 0), (0, 0.36, 0), more=(0.007, 0, 0.007), slot=1, thin=1) for x in (-0.6, -0.3, 0.3, 0.6)], *[box((x, 0.25, 0), (0.17, 0.012, 0.12), slot=2) for x in (-0.45, 0.45)]]),
}  # fmt: skip

NAMES = tuple(THINGS)


def number(name: str) -> int:
    return NAMES.index(name)


def numbers(*names: str) -> np.ndarray:
    return np.array([NAMES.index(name) for name in names], np.int32)


def _rotation(turn) -> np.ndarray:
    x, z, y = np.radians(turn)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    return about_y @ about_z @ about_x


def _table(field) -> np.ndarray:
    """[things, PARTS, ...] float32 of one value a part; zeros where a thing has fewer."""
    rows = [[np.ravel(field(part)) for part in thing.parts] for thing in THINGS.values()]
    table = np.zeros((len(THINGS), PARTS, rows[0][0].size), np.float32)
    for place, row in enumerate(rows):
        if len(row) > PARTS:
            raise ValueError(f"{NAMES[place]} has {len(row)} parts, more than {PARTS}")
        table[place, : len(row)] = row
    return table


KIND, FORM = _table(lambda p: p.kind)[..., 0], _table(lambda p: p.form)
AT, PLUS, HALF, MORE = (_table(lambda p, n=n: getattr(p, n)) for n in ("at", "plus", "half", "more"))
TURN = _table(lambda p: _rotation(p.turn)).reshape(len(THINGS), PARTS, 3, 3)
SLOT, OPTICS, THIN, GLOW = (_table(lambda p, n=n: getattr(p, n))[..., 0] for n in ("slot", "optics", "thin", "glow"))
LOW = np.array([thing.low for thing in THINGS.values()], np.float32)
HIGH = np.array([thing.high for thing in THINGS.values()], np.float32)
TOP = np.array([thing.top for thing in THINGS.values()], np.float32)
SLOTS = np.array([[family(name) for name in thing.families] for thing in THINGS.values()], np.int32)
