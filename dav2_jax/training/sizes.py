"""The sizes at which the network sees the crops of a run: one size, or several in turn.

A network trained at one size knows one distance between patches; one trained at several is good between them too, and
sees more images for the same arithmetic, since a step on crops of half the height costs a quarter.
"""

from __future__ import annotations

import functools

import jax

from dav2_jax.data import strong
from dav2_jax.image.resize import center_index
from dav2_jax.training.recipe import Recipe
from dav2_jax.training.step import Batch

MAPS = ("depth", "disparity", "valid")


def of_step(recipe: Recipe, number: int) -> tuple[int, int]:
    """(height, width) of the images of this step, counted from 1."""
    height, width = recipe.crop
    if recipe.heights:
        wanted = recipe.heights[(number - 1) % len(recipe.heights)]
        height, width = wanted, width * wanted // height
    return height, width


@functools.partial(jax.jit, static_argnames="size")
def shrunk(batch: Batch, size: tuple[int, int]) -> Batch:
    """The loader's batch at this size: images averaged down, float32 of 0..1; of maps the pixel under each center."""
    out = dict(batch)
    images = strong.unit(batch["image"])
    out["image"] = jax.image.resize(images, (len(images), *size, 3), "cubic", antialias=True)
    for name in MAPS:
        if name in batch:
            rows, columns = map(center_index, batch[name].shape[1:], size)
            out[name] = batch[name][:, rows[:, None], columns]
    return out
