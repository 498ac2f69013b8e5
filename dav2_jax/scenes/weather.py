"""Light and air outdoors."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dav2_jax.scenes import palette
from dav2_jax.scenes.dice import Dice
from dav2_jax.scenes.shapes import Scene


def open_air(dice: Dice, style, shapes, lights, burning, feet) -> Scene:
    """A scene under the sky: noon, a low sun, overcast, or night where lamps burn.

    lights: [L, 6], places and no light yet; burning: bool [L], lamps that exist; feet: Scene.footprints.
    """
    uniform, chosen = dice.uniform, dice.chosen

    weather = dice.pick(np.arange(4), 1, [0.55, 0.25, 0.15, 0.05] if style == "clean" else [0.2, 0.3, 0.35, 0.15])[0]
    night = (weather == 3) & jnp.any(burning)
    rise = jnp.where(weather == 0, uniform(0.6, 1.2), jnp.where(weather == 1, uniform(0.15, 0.4), 0.9))
    heading = uniform(0, 2 * np.pi)
    sun = jnp.stack([jnp.sin(heading) * jnp.cos(rise), jnp.sin(rise), jnp.cos(heading) * jnp.cos(rise)])
    table = jnp.float32(
        [  # sun, zenith, horizon, light from above and from below
            [[2.0, 1.9, 1.7], [0.18, 0.42, 0.95], [0.7, 0.85, 1.0], [0.36, 0.42, 0.52], [0.18, 0.16, 0.13]],
            [[2.1, 1.25, 0.6], [0.25, 0.35, 0.6], [1.1, 0.72, 0.45], [0.3, 0.28, 0.32], [0.17, 0.12, 0.08]],
            [[0.3, 0.3, 0.3], [0.6, 0.63, 0.68], [0.8, 0.82, 0.84], [0.75, 0.76, 0.78], [0.25, 0.24, 0.22]],
            [[0.04, 0.05, 0.08], [0.012, 0.016, 0.035], [0.06, 0.055, 0.06], [0.05, 0.055, 0.07], [0.03, 0.025, 0.02]],
        ]
    )
    sun_color, zenith, horizon, above, below = table[jnp.where(night, 3, jnp.minimum(weather, 2))]
    hazy = chosen(0.25 if style == "clean" else 0.5)
    fog = jnp.where(hazy, jnp.exp(uniform(-5.5, -4.0)), 0.0015)
    power = jnp.where(night & burning, uniform(9, 16), 0.0)
    lights = lights.at[:, 3:].set(power[:, None] * jnp.float32([1.0, 0.75, 0.45]))
    return Scene(
        shapes=shapes,
        ground=palette.draw(style, jnp.int32(palette.family("ground")), uniform(0.0, 1.0, (8,))),
        ground_height=jnp.float32(0),
        room=jnp.float32([-1e4, -1e4, -1e4, 1e4, 1e4, 1e4]),
        sun=sun,
        sun_color=sun_color,
        sky=zenith,
        horizon=horizon,
        clouds=jnp.where(weather == 2, 1.0, uniform(0, 0.8)),
        lamps=lights,
        key_lamp=jnp.where(night & burning[0], 1.0, 0.0),
        ambient=jnp.stack([above, below]),
        fog=fog,
        fog_color=horizon * uniform(0.8, 1.0),
        footprints=feet,
        seed=uniform(0, 1),
    )
