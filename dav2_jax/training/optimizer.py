"""AdamW for fine-tuning: two learning rates, a schedule, frozen parameters, Muon for matrices, EMA.

The defaults are the official metric fine-tuning (`metric_depth/train.py` and `dist_train.sh` of Depth Anything V2).
Its rates, 5e-6 and ten times that for the head, are also those of the paper's relative training (section 7.1).
"""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial
from operator import not_
from typing import Any, Literal, get_args

import jax
import optax
import optax.contrib

from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import ModelConfig
from dav2_jax.sharding import parameter_name

Schedule = Literal["poly", "linear", "cosine", "constant"]

# In every checkpoint, and not used by the network: PyTorch's AdamW passes over what has no gradient, decay included.
# Nor is the encoder that `training.features` keeps frozen ever trained.
IDLE = r"pretrained\.mask_token|depth_head\.scratch\.refinenet4\.resConfUnit1\..*|frozen\..*"
# Muon parameters: kernels of blocks and head; patch embedding, position table and output layer stay with Adam.
MATRICES = r"(pretrained\.blocks|depth_head)\..*\.kernel"
TRANSPOSED = r"resize_layers\.[01]\."  # transposed convolutions whose stride is the kernel's size: no overlap
ADAM_RMS = 0.2  # RMS of a Muon update, matched to Adam's, so that both share rates and decay (arXiv:2502.16982)
BEFORE_BLOCKS = r"pretrained\.(patch_embed\..*|cls_token|pos_embed)"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """steps: of the whole run, warm-up included. Raises Dav2Error for values out of range."""

    steps: int
    encoder_lr: float = 5e-6  # train.py --lr; paper 7.1
    head_factor: float = 10.0  # the head's rate over the encoder's; train.py; paper 7.1
    schedule: Schedule = "poly"  # poly: train.py; linear: Depth Anything V1, section 4
    warmup: int = 0  # steps; train.py has none
    b1: float = 0.9  # train.py
    b2: float = 0.999  # train.py
    eps: float = 1e-8  # PyTorch's default
    weight_decay: float = 0.01  # train.py; times the rate, as PyTorch and optax have it
    decay: Literal["all", "matrices"] = "all"  # all: also biases, norms and the position table, as train.py
    matrices: Literal["adam", "muon"] = "adam"  # of the kernels of blocks and head
    clip: float | None = None  # largest global norm of the gradient; train.py does not clip
    freeze: Literal["encoder", "positions"] | int = 0  # number: that many first blocks and what precedes them
    ema: float | None = None  # decay of the moving average of the parameters; train.py has none

    def __post_init__(self):
        checks = {
            "steps": self.steps > 0,
            "encoder_lr": self.encoder_lr >= 0,
            "head_factor": self.head_factor >= 0,
            "schedule": self.schedule in get_args(Schedule),
            "warmup": 0 <= self.warmup < self.steps,
            "b1": 0 <= self.b1 < 1,
            "b2": 0 <= self.b2 < 1,
            "eps": self.eps > 0,
            "weight_decay": self.weight_decay >= 0,
            "matrices": self.matrices in ("adam", "muon"),
            "decay": self.decay in ("all", "matrices"),
            "clip": self.clip is None or self.clip > 0,
            "freeze": self.freeze in ("encoder", "positions") or (isinstance(self.freeze, int) and self.freeze >= 0),
            "ema": self.ema is None or 0 < self.ema < 1,
        }
        if wrong := [f"{name} {getattr(self, name)!r}" for name, good in checks.items() if not good]:
            allowed = "rates and decay at least 0, warmup below steps, b1, b2 and ema below 1, clip above 0"
            raise Dav2Error(f"the optimizer cannot have {', '.join(wrong)}: {allowed}")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What the training step needs. Trees of parameters have None where a parameter is not trained.

    transform: gradient of the trained parameters -> update to add to them
    schedule:  step -> learning rate of the encoder
    frozen:    regular expression of the dotted names that are not trained
    ema:       decay of the moving average of the parameters; None: no average
    """

    transform: optax.GradientTransformation
    schedule: optax.Schedule
    frozen: str
    ema: float | None

    def split(self, params) -> tuple[Any, Any]:
        """(trained, frozen): both of the structure of `params`, and each with None where the other has the array."""
        frozen = _matching(params, self.frozen)
        trained = jax.tree.map(lambda leaf, still: None if still else leaf, params, frozen)
        return trained, jax.tree.map(lambda leaf, still: leaf if still else None, params, frozen)


def join(trained, frozen):
    """The inverse of `Optimizer.split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda leaf: leaf is None)


def make_optimizer(config: OptimizerConfig, model: ModelConfig) -> Optimizer:
    """The chain: clip, Adam (or Muon), weight decay, the head's multiplier, the learning rate.

    The EMA starts as the parameters, so it needs no bias correction. Raises Dav2Error when more blocks are to be
    frozen than the encoder has.
    """
    schedule = make_schedule(config)
    return Optimizer(
        transform=optax.chain(
            optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip),
            _scale(config),
            optax.add_decayed_weights(
                config.weight_decay,
                lambda params: _matching(params, ".*" if config.decay == "all" else r".*\.kernel"),
            ),
            optax.masked(optax.scale(config.head_factor), lambda params: _matching(params, r"depth_head\..*")),
            optax.scale_by_learning_rate(schedule),
        ),
        schedule=schedule,
        frozen=_frozen(config.freeze, model),
        ema=config.ema,
    )


def _scale(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam; or for matrices Muon: momentum orthogonalized by Newton-Schulz, rescaled to Adam's RMS."""
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    if config.matrices == "adam":
        return adam
    axes = partial(jax.tree.map_with_path, _as_matrix)
    muon = optax.chain(
        optax.contrib.scale_by_muon(weight_dimension_numbers=axes),
        optax.stateless(lambda updates, _: jax.tree.map_with_path(_match_adam_rms, updates)),
    )
    is_matrix = partial(jax.tree.map_with_path, lambda path, leaf: _as_matrix(path, leaf) is not None)
    return optax.chain(optax.masked(muon, is_matrix), optax.masked(adam, lambda p: jax.tree.map(not_, is_matrix(p))))


def _match_adam_rms(path, update):
    inputs = math.prod(update.shape[axis] for axis in _as_matrix(path, update).reduction_axis)
    return ADAM_RMS * math.sqrt(max(inputs, update.size // inputs)) * update


def _as_matrix(path, leaf):
    """The axes of a kernel that are inputs and outputs of its matrix; None for parameters that Adam updates."""
    name = parameter_name(path)
    if not re.fullmatch(MATRICES, name) or leaf.shape[-1] == 1:
        return None
    if re.search(TRANSPOSED, name):
        return optax.contrib.MuonDimensionNumbers((2,), (0, 1, 3))
    return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))


def make_schedule(config: OptimizerConfig) -> optax.Schedule:
    """step -> learning rate of the encoder; after the warm-up, s of n steps are done.

    poly      (1 - (s - 1) / n)^0.9, and 1 for s = 0: train.py sets the rate after its step, for the next one
    linear    1 - s / n
    cosine    (1 + cos(pi s / n)) / 2
    constant  1

    Step s of w steps of warm-up has (s + 1) / (w + 1).
    """
    lr, n = config.encoder_lr, config.steps - config.warmup
    after = {
        "poly": optax.polynomial_schedule(lr, 0.0, power=0.9, transition_steps=n, transition_begin=1),
        "linear": optax.linear_schedule(lr, 0.0, n),
        "cosine": optax.cosine_decay_schedule(lr, n),
        "constant": optax.constant_schedule(lr),
    }[config.schedule]
    if not config.warmup:
        return after
    return optax.join_schedules(
        [optax.linear_schedule(lr / (config.warmup + 1), lr, config.warmup), after], [config.warmup]
    )


def _frozen(freeze: Literal["encoder", "positions"] | int, model: ModelConfig) -> str:
    if freeze == "encoder":
        return rf"{IDLE}|pretrained\..*"
    if freeze == "positions":
        return rf"{IDLE}|pretrained\.pos_embed"
    if freeze > model.depth:
        raise Dav2Error(f"freeze {freeze}: the {model.encoder} encoder has {model.depth} blocks")
    blocks = "|".join(map(str, range(freeze)))
    return rf"{IDLE}|{BEFORE_BLOCKS}|pretrained\.blocks\.({blocks})\..*" if freeze else IDLE


def _matching(params, pattern: str):
    """A tree of bool: whether the whole name of a parameter matches."""
    return jax.tree.map_with_path(lambda path, _: re.fullmatch(pattern, parameter_name(path)) is not None, params)
