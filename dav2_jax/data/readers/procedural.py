"""Endless synthetic scenes with exact depth, drawn by JAX on the device: rooms, streets and gardens.

    batch = procedural.render(seed=0, indices=jnp.arange(8))       # arrays on the device; use it inside your own jit
    source = procedural.source(count=10_000, seed=0)                     # the same as examples in NumPy, one at a time

A scene depends on (seed, index, style) alone, not on the batch, the number of devices or the process. Depth is that of
the surface one meets first, also where it is glass or a mirror; `tag` says where that is so, and `sensor_depth` is what
a real device would have labeled instead. The parts are in `scenes/`: shapes and their intersections, textures,
light, the catalog of things, the layouts, the camera and the sensor.
"""

from __future__ import annotations

from functools import partial
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.scenes.generate import scene
from dav2_jax.scenes.palette import STYLES, Style
from dav2_jax.scenes.photographic import develop
from dav2_jax.scenes.render import intrinsics, render_scene
from dav2_jax.scenes.sensor import measure

TOGETHER = 16  # scenes that an accelerator draws at once; a CPU draws one after the other, which is as fast there


class Batch(TypedDict):
    image: jax.Array  # uint8 [B, H, W, 3]
    depth: jax.Array  # float32 [B, H, W], metres along the optical axis; inf is sky
    disparity: jax.Array  # float32 [B, H, W], 1 / depth; 0 is sky
    valid: jax.Array  # bool [B, H, W]: everywhere, as everything is known here
    tag: jax.Array  # uint8 [B, H, W], places in example.TAGS
    sensor_depth: jax.Array  # float32 [B, H, W], metres; 0 where a depth camera would have seen nothing
    intrinsics: jax.Array  # float32 [B, 4]: fx, fy, cx, cy in pixels; the center of the first pixel is (0, 0)
    kind: jax.Array  # int32 [B], a place in generate.KINDS


def render(
    seed: int | jax.Array,
    indices: jax.Array,
    *,
    height: int = 252,
    width: int = 252,
    style: Style = "clean",
    photographic: bool = True,
) -> Batch:
    """Draws the scenes `indices`, int [B], of the list `seed`; compiled once for each B, size, style and effects.

    style         "clean" (even light, bright colors, plain textures) or "worn" (another domain: dirt, fog, clutter)
    photographic  exposure, white balance, vignette, blur and noise of a camera

    To split a batch over devices: `sharding.over_batch(partial(procedural.render, ...), mesh)(seed, indices)`.
    Raises Dav2Error for an unknown style or a size that is not positive.
    """
    if style not in STYLES:
        raise Dav2Error(f"there is no style {style!r}: use one of {', '.join(STYLES)}")
    if height < 1 or width < 1:
        raise Dav2Error(f"{width} x {height} pixels cannot be drawn: both must be positive")
    return _render(jnp.asarray(seed), jnp.asarray(indices), height, width, style, bool(photographic))


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _render(seed, indices, height, width, style, photographic):
    one = partial(_one, jax.random.key(seed), height, width, style, photographic)
    # One program for a scene whatever the batch is, so that its last bits do not depend on the batch either.
    return jax.lax.map(one, indices, batch_size=None if jax.default_backend() == "cpu" else TOGETHER)


def _one(key, height: int, width: int, style: Style, photographic: bool, index) -> Batch:
    layout, effects, device = jax.random.split(jax.random.fold_in(key, index), 3)
    made, camera, kind = scene(layout, style)
    picture = render_scene(made, camera, height, width)
    sky = jnp.isinf(picture.depth)
    return Batch(
        image=develop(effects, picture.color, style, photographic),
        depth=picture.depth,
        disparity=jnp.where(sky, 0.0, 1 / picture.depth),
        valid=jnp.ones((height, width), bool),
        tag=picture.tag,
        sensor_depth=measure(device, picture, kind == 0),
        intrinsics=intrinsics(camera, height, width),
        kind=kind.astype(jnp.int32),
    )


def source(
    *,
    count: int = 10_000,
    seed: int = 0,
    height: int = 252,
    width: int = 252,
    style: Style = "clean",
    photographic: bool = True,
) -> Source:
    """The first `count` scenes of the list `seed` as examples; arguments as for `render`."""
    if count < 0:
        raise Dav2Error(f"{count} scenes cannot be drawn: give a number from 0 up")
    if not -(2**31) <= seed < 2**31:
        raise Dav2Error(f"seed {seed}: must fit 32 bits")
    if style not in STYLES:
        raise Dav2Error(f"there is no style {style!r}: use one of {', '.join(STYLES)}")
    if height < 1 or width < 1:
        raise Dav2Error(f"{width} x {height} pixels cannot be drawn: both must be positive")
    read = partial(_read, seed=seed, height=height, width=width, style=style, photographic=photographic)
    about = ("drawn, not photographed: exact also on glass and mirrors",)
    return Source("procedural", range(count), read, "metres", about, on_device=True)


def _read(index: int, seed: int, height: int, width: int, style: Style, photographic: bool) -> Example:
    batch = render(seed, np.array([index]), height=height, width=width, style=style, photographic=photographic)
    one = {name: np.asarray(values[0]) for name, values in batch.items()}
    return labeled(
        f"{style}/{seed}/{index}", one["image"], one["depth"], one["valid"], one["intrinsics"],
        tag=one["tag"], sensor_depth=one["sensor_depth"],
    )  # fmt: skip
