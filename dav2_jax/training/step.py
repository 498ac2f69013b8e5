"""One training step: the same function for one device and for 256."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dav2_jax import sharding
from dav2_jax.errors import Dav2Error
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.depth_anything import Params
from dav2_jax.model.remat import Remat
from dav2_jax.training import features, fresh
from dav2_jax.training.optimizer import Optimizer, join

Batch = dict[str, jax.Array]
Loss = Callable[[Any, Batch], tuple[jax.Array, dict[str, jax.Array]]]


class TrainState(NamedTuple):
    """Training state (a pytree, checkpointed as is).

    params:    float32; with a frozen encoder, where there is one (`training.features`)
    opt_state: optax's, for the trained parameters alone
    ema:       the average of the trained parameters, None where one is frozen; None without EMA
    step:      int32 [], number of steps done
    """

    params: Params
    opt_state: optax.OptState
    ema: Params | None
    step: jax.Array


def abstract_state(config: ModelConfig, optimizer: Optimizer, *, frozen_encoder: bool = False) -> TrainState:
    """The state as `jax.ShapeDtypeStruct`s; allocates nothing. `sharding.state_sharding` says where it lies."""
    return jax.eval_shape(functools.partial(_fresh, optimizer), _abstract_params(config, frozen_encoder))


def init_state(
    config: ModelConfig,
    optimizer: Optimizer,
    mesh: jax.sharding.Mesh,
    key: jax.Array,
    params: Params | None = None,
    *,
    frozen_encoder: bool = False,
) -> TrainState:
    """The state before the first step. Each device makes or gets its own part, and none ever holds the whole.

    params: arrays to begin with, of NumPy best, copied and as float32: all, {"pretrained": ...} for an encoder with a
            fresh head, or None. What is missing is drawn from `key`, the same on every mesh
    frozen_encoder: keep one beside the network: that of `features.beside`, or else the one training begins with
    Raises Dav2Error for parameters of another network, and where there is no encoder to freeze.
    """
    abstract = _abstract_params(config, frozen_encoder)
    shardings = sharding.state_sharding(mesh, abstract)
    begin = _checked(params or {}, {part: abstract[part] for part in params or {} if part in abstract}, config)
    if frozen_encoder and features.FROZEN not in begin:
        if "pretrained" not in begin:
            raise Dav2Error("there is no encoder to keep frozen: give weights to begin with")
        begin = features.beside(begin, begin["pretrained"])
    if missing := abstract.keys() - begin.keys():
        begin = fresh.draw(config, key, missing) | begin

    def place(array, where):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, where, lambda index: array[index].astype(np.float32))

    whole = sharding.state_sharding(mesh, abstract_state(config, optimizer, frozen_encoder=frozen_encoder))
    return jax.jit(functools.partial(_fresh, optimizer), out_shardings=whole)(jax.tree.map(place, begin, shardings))


def averaged(state: TrainState) -> Params:
    """The parameters to validate and to ship, of the network alone: the average where there is one."""
    return features.without(state.params if state.ema is None else join(state.ema, state.params))


def make_step(
    loss: Loss,
    config: ModelConfig,
    optimizer: Optimizer,
    mesh: jax.sharding.Mesh,
    *,
    dtype=jnp.float32,
    remat: Remat = "none",
    accumulation: int = 1,
    augment: Callable[[Batch], Batch] | None = None,
    frozen_encoder: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """step(state, batch) -> (state, metrics), jitted; the state passed in is used up.

    loss:         (prediction, batch) -> (float32 [], more metrics); of the whole batch, whatever its division
    dtype:        of the network's computation; parameters, loss and optimizer stay float32
    remat:        `model.remat.recomputed`
    accumulation: parts that the batch goes through the network in, for a batch that does not fit. The loss sees all
                  predictions at once and the gradient is that of the whole batch, for any loss; each part goes forward
                  twice
    augment:      batch -> batch, before all else; examples carry seeds of their own
    frozen_encoder: the state has one, and the loss gets what `features.apply` gives in place of the depth

    batch["image"] is [B, H, W, 3], normalized; other entries are [B, ...], for loss and augment. B is a multiple of
    devices x accumulation, else Dav2Error. metrics: loss, grad_norm (before clipping), lr (the encoder's), finite, and
    those of the loss, on every device. Where loss or gradient is not finite, `finite` is False and the state stays as
    it was, its step too.

    Each device runs the network on its share by itself. Parameters whole on every device (fsdp = 1): gradients are
    added up once. Split (fsdp > 1): kernels are gathered in `dtype`, for each part of the batch, and each device gets
    the gradient of what it holds (`sharding.collect`).
    """
    shardings = sharding.state_sharding(mesh, abstract_state(config, optimizer, frozen_encoder=frozen_encoder))
    forward = features.apply if frozen_encoder else depth_anything.apply

    def share(params: Params, images: jax.Array):
        return forward(config, sharding.collect(params, shardings.params, dtype), images, dtype=dtype, remat=remat)

    network = sharding.over_batch(functools.partial(_in_parts, share, accumulation), mesh, shardings.params)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        _check_batch(batch, mesh.size, accumulation)
        if augment is not None:
            batch = augment(batch)
        trained, frozen = optimizer.split(state.params)

        def objective(trained):
            return loss(network(join(trained, frozen), batch["image"]), batch)

        (value, more), gradient = jax.value_and_grad(objective, has_aux=True)(trained)
        gradient = jax.lax.with_sharding_constraint(gradient, sharding.state_sharding(mesh, gradient))
        norm = optax.tree.norm(gradient)
        updates, opt_state = optimizer.transform.update(gradient, state.opt_state, trained)
        trained, ema = optax.apply_updates(trained, updates), state.ema
        if ema is not None:
            ema = optax.incremental_update(trained, ema, 1 - optimizer.ema)
        new = TrainState(join(trained, frozen), opt_state, ema, state.step + 1)

        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        metrics = {"loss": value, "grad_norm": norm, "lr": optimizer.schedule(state.step), "finite": finite}
        return new, more | metrics

    whole = sharding.replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )


def _abstract_params(config: ModelConfig, frozen_encoder: bool) -> Params:
    params = depth_anything.abstract_params(config)
    return features.beside(params, params["pretrained"]) if frozen_encoder else params


def _fresh(optimizer: Optimizer, params: Params) -> TrainState:
    params = jax.tree.map(jnp.copy, params)  # the step uses its state up: no array may be in it twice, or the caller's
    trained, _ = optimizer.split(params)
    ema = None if optimizer.ema is None else jax.tree.map(jnp.copy, trained)
    return TrainState(params, optimizer.transform.init(trained), ema, jnp.zeros((), jnp.int32))


def _in_parts(network: Callable, parts: int, params: Params, images: jax.Array):
    """network(params, images), part by part; for the gradient, only the images of a part are kept."""
    if parts == 1:
        return network(params, images)
    split = images.reshape(parts, -1, *images.shape[1:])
    predictions = jax.lax.map(jax.checkpoint(functools.partial(network, params)), split)
    return jax.tree.map(lambda p: p.reshape(-1, *p.shape[2:]), predictions)


def _check_batch(batch: Batch, devices: int, parts: int) -> None:
    sizes = {name: array.shape[0] for name, array in batch.items()}
    if len(set(sizes.values())) != 1 or sizes["image"] % (devices * parts):
        counts = f"{devices} devices x {parts} parts"
        raise Dav2Error(f"a batch of {sizes}: all must be the same multiple of {counts}")


def _checked(params: Params, abstract: Params, config: ModelConfig) -> Params:
    same = jax.tree.structure(params) == jax.tree.structure(abstract)
    if not same or not all(jax.tree.leaves(jax.tree.map(lambda a, b: a.shape == b.shape, params, abstract))):
        raise Dav2Error(f"these parameters are not those of a {config.encoder} {config.kind} model")
    return params
