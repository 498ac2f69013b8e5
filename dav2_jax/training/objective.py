"""From a recipe: the loss, the augmentation on the device, the optimizer's settings, and the step made of them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dav2_jax.data import strong
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.flops import model_flops
from dav2_jax.training import features, sizes
from dav2_jax.training.losses import aligned_loss, cutmix_loss, fixed_scale_loss, relative_loss, silog
from dav2_jax.training.optimizer import Optimizer, OptimizerConfig
from dav2_jax.training.recipe import Recipe
from dav2_jax.training.step import Batch, Loss, TrainState, make_step

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_loss(recipe: Recipe) -> Loss:
    """(prediction [B, H, W], batch) -> (loss, its parts); the batch is what `make_augment` gave.

    silog: over valid pixels between min_depth and max_depth, as the official training does.
    relative: on disparity, with CutMix in each of the two regions.
    fixed_scale: on normalized disparity, for the first part of training from random weights.
    aligned: on log depth, after the affine alignment of zero-shot benchmarks.
    With a feature_weight, the prediction is what `features.apply` gives.
    """
    loss = _depth_loss(recipe)
    return features.aligned(loss, recipe.feature_weight) if recipe.feature_weight else loss


def _depth_loss(recipe: Recipe) -> Loss:
    if recipe.loss == "silog":

        def metric(prediction, batch):
            depth = batch["depth"]
            in_range = batch["valid"] & (depth >= recipe.min_depth) & (depth <= recipe.max_depth)
            return silog(prediction, depth, in_range), {}

        return metric
    if recipe.loss in ("fixed_scale", "aligned"):
        chosen = fixed_scale_loss if recipe.loss == "fixed_scale" else aligned_loss
        return lambda prediction, batch: chosen(
            prediction, batch["disparity"], batch["valid"], gm_weight=recipe.gradient_weight
        )
    options = {"gm_weight": recipe.gradient_weight, "trim": recipe.trim}

    def relative(prediction, batch):
        if "inside" not in batch:
            return relative_loss(prediction, batch["disparity"], batch["valid"], **options)
        inside, (theirs, theirs_valid) = batch["inside"], batch["partner"]
        valid = jnp.where(inside, theirs_valid, batch["valid"])
        return cutmix_loss(prediction, theirs, batch["disparity"], inside, valid, **options)

    return relative


def make_augment(recipe: Recipe) -> Callable[[Batch], Batch]:
    """batch of the loader -> batch: normalized images, after the strong augmentation where the recipe has it.

    Each example draws from its own seed.
    """

    def augment(batch: Batch) -> Batch:
        if not recipe.strong:
            return batch | {"image": strong.network_input(batch["image"])}
        images = strong.photometric(batch["image"], batch["seed"])
        if recipe.loss == "silog":  # a metric loss cannot give each region a scale of its own, so no scenes are mixed
            return batch | {"image": strong.network_input(images)}
        mixed = strong.cutmix(images, batch["seed"])
        partner = strong.of_partner(batch["disparity"]), strong.of_partner(batch["valid"])
        return batch | {"image": strong.network_input(mixed.images), "inside": mixed.mask, "partner": partner}

    return augment


def step_flops(recipe: Recipe, config: ModelConfig, number: int = 1) -> int:
    """FLOPs of the network in step `number`: three forward passes of the batch, and one of a frozen encoder."""
    size = sizes.of_step(recipe, number)
    flops = 3 * model_flops(config, *size)
    if recipe.feature_weight:
        flops += model_flops(config.replace(kind="encoder", max_depth=None), *size)
    return flops * recipe.batch_size


def training_step(recipe: Recipe, config: ModelConfig, optimizer: Optimizer, mesh: jax.sharding.Mesh) -> Step:
    """step(state, batch of the loader) -> (state, metrics), jitted: see `step.make_step`."""
    return make_step(
        make_loss(recipe), config, optimizer, mesh, dtype=jnp.dtype(recipe.dtype), remat=recipe.remat,
        accumulation=recipe.accumulate, augment=make_augment(recipe),
        frozen_encoder=recipe.feature_weight > 0,
    )  # fmt: skip


def optimization(recipe: Recipe) -> OptimizerConfig:
    """The fields of a recipe that are the optimizer's. Raises Dav2Error for values out of range."""
    freeze = recipe.freeze if recipe.freeze in ("encoder", "positions") else int(recipe.freeze or 0)
    same = ("steps", "encoder_lr", "head_factor", "schedule", "warmup", "b2")
    same += ("matrices", "weight_decay", "decay", "clip", "ema")
    return OptimizerConfig(freeze=freeze, **{name: getattr(recipe, name) for name in same})
