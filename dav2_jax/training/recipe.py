"""A recipe: everything that defines a training run, in one flat table of fields that the command line can override.

The comments between the fields are the groups of `dav2 train --help`; the text below a field is its help.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import PRESETS, ModelConfig


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run. `dav2 train RECIPE` has a flag for each field."""

    # Network
    encoder: str = "small"
    """Encoder size: small, base, large, giant or nano; custom: that of the weights, from Hugging Face."""
    kind: Literal["relative", "metric"] = "relative"
    """relative: affine-invariant disparity. metric: depth in metres, up to max_depth."""
    max_depth: float | None = None
    """Largest depth of a metric model in metres: 20 for rooms, 80 for streets."""
    weights: str | None = None
    """Initial weights: a name or path as for dav2 predict, or a run to train further. none: random initialization."""
    head: Literal["keep", "fresh"] = "keep"
    """keep: start from the head of the weights. fresh: from their encoder alone, under a randomly initialized head."""

    # Data
    train: tuple[str, ...] = ()
    """Training sources: own:mine.csv, hypersim:/data/hypersim, records/, procedural, ... (dav2 data sources)."""
    mix: tuple[float, ...] = ()
    """Sampling share of each source (default: all sources concatenated)."""
    validate: tuple[str, ...] = ()
    """Validation sources (default: no validation)."""
    size: int = 518
    """Crop height in pixels, a multiple of 14."""
    width: int | None = None
    """Crop width (default: square)."""
    heights: tuple[int, ...] = ()
    """Multi-scale training: cycle these crop heights, one per step. Validation stays at the full size."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    strong: bool = False
    """Strong augmentation of Depth Anything V1: color jitter, gray, blur, CutMix."""
    label: Literal["depth", "sensor", "seen_through"] = "depth"
    """Simulated sensor labels, for sources that have them (procedural). sensor: as a depth camera measures.
    seen_through: the same, on thin, transparent and mirroring surfaces only."""
    workers: int | None = None
    """Loader processes; 0: in-process threads (default: one per core, up to 8)."""
    cache: bool = False
    """Keep decoded examples in memory, for small datasets; then one process reads."""
    on_error: Literal["raise", "skip"] = "raise"
    """Unreadable examples: stop the run, or skip and report them."""

    # Loss
    loss: Literal["silog", "relative", "fixed_scale", "aligned"] = "relative"
    """silog: scale-invariant log error, for metric models. relative: affine-invariant error and gradient matching.
    fixed_scale: regression on normalized disparity, for training from random weights. aligned: log-depth error after
    the affine alignment of zero-shot benchmarks, for the end of a training."""
    gradient_weight: float = 2.0
    """Weight of the gradient matching loss (paper: 2, best of 0.5 to 4)."""
    trim: float = 0.0
    """Fraction of each image's largest residuals that the relative loss drops; 0.1 for pseudo-labels."""
    feature_weight: float = 0.0
    """Weight of the DINOv2 feature-alignment loss."""
    features: str | None = None
    """Frozen encoder of the feature-alignment loss, such as dinov2-small (default: that of the weights)."""
    min_depth: float = 0.001
    """SiLog ignores depths outside [min_depth, max_depth] metres."""

    # Optimization
    steps: int = 10_000
    """Optimizer steps of the whole run."""
    batch_size: int = 8
    """Global batch size: examples per step, over all devices and hosts."""
    encoder_lr: float = 5e-6
    """Peak learning rate of the encoder."""
    head_factor: float = 10.0
    """Head learning-rate multiplier."""
    schedule: Literal["constant", "linear", "poly", "cosine"] = "poly"
    """Learning-rate schedule after the warm-up; poly: (1 - step / steps)^0.9."""
    warmup: int = 0
    """Steps of linear learning-rate warm-up, included in the steps."""
    b2: float = 0.999
    """Adam beta2; 0.99 for short runs from random weights."""
    matrices: Literal["adam", "muon"] = "adam"
    """Optimizer of the matrices in encoder blocks and head; muon: momentum orthogonalized by Newton-Schulz, rescaled to
    Adam's RMS. Everything else uses Adam."""
    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW), multiplied by the learning rate."""
    decay: Literal["all", "matrices"] = "all"
    """Decayed parameters: all, as in the official code, or those with two axes and more."""
    clip: float | None = None
    """Largest global gradient norm (default: no clipping)."""
    freeze: str | None = None
    """Frozen parameters: encoder, the number of first blocks, or positions, the position table (default: none)."""
    accumulate: int = 1
    """Gradient accumulation: parts that each batch is processed in, to save memory."""
    ema: float | None = None
    """Decay of an exponential moving average of the parameters, which is validated and exported (default: none)."""

    # Run
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute precision; parameters, losses and optimizer stay float32."""
    remat: Literal["none", "products", "blocks"] = "none"
    """Rematerialization, to save memory: recompute nothing, all but matrix products, or whole blocks."""
    fsdp: int = 1
    """Devices that shard one copy of the parameters."""
    seed: int = 0
    """Random seed of order, augmentation and initialization."""
    log_every: int = 20
    """Steps between reports."""
    validate_every: int = 1000
    """Steps between validations."""
    save_every: int = 1000
    """Steps between checkpoints."""
    validate_examples: int = 200
    """Validation examples per source, spread evenly."""

    @property
    def crop(self) -> tuple[int, int]:
        """(height, width) of the crops."""
        return self.size, self.width or self.size

    def model_config(self) -> ModelConfig:
        """The network by its size alone. Raises Dav2Error for an unknown one."""
        if self.encoder == "custom" and self.weights is not None:
            return PRESETS["small"].replace(encoder="custom", kind=self.kind, max_depth=self.max_depth)
        if self.encoder not in PRESETS:
            raise Dav2Error(f"encoder {self.encoder!r}: use one of {', '.join(PRESETS)}")
        return PRESETS[self.encoder].replace(kind=self.kind, max_depth=self.max_depth)

    def check(self) -> None:
        """Raises Dav2Error, naming the fields, for all settings that are out of range or do not fit together."""
        faults = [*_out_of_range(self), *_network_faults(self), *_data_faults(self), *_loss_faults(self)]
        faults += _optimization_faults(self)
        if faults:
            raise Dav2Error("; ".join(faults))
        self.model_config()


_LEAST = {
    "size": 14, "steps": 1, "batch_size": 1, "encoder_lr": 0, "head_factor": 0, "warmup": 0, "weight_decay": 0,
    "gradient_weight": 0, "feature_weight": 0, "accumulate": 1, "fsdp": 1, "seed": 0, "min_depth": 0, "log_every": 1,
    "validate_every": 1, "save_every": 1, "validate_examples": 1, "workers": 0, "width": 14,
}  # fmt: skip
_SHARES = ("flip", "trim", "b2", "ema")


def _out_of_range(recipe: Recipe) -> Iterator[str]:
    for name, least in _LEAST.items():
        value = getattr(recipe, name)
        if value is not None and value < least:
            yield f"{name}={value}: give {least} or more"
    for name in _SHARES:
        value = getattr(recipe, name)
        if value is not None and not 0 <= value <= 1:
            yield f"{name}={value}: give a share of 0 to 1"


def _network_faults(recipe: Recipe) -> Iterator[str]:
    if recipe.kind == "metric" and recipe.max_depth is None:
        yield "kind=metric needs max_depth, in metres: 20 for rooms, 80 for streets"
    if recipe.kind != "metric" and recipe.max_depth is not None:
        yield f"max_depth={recipe.max_depth:g} is for kind=metric"
    if recipe.max_depth is not None and not recipe.max_depth > recipe.min_depth:
        yield f"max_depth={recipe.max_depth:g}: give more than min_depth={recipe.min_depth:g}, in metres"
    if recipe.head == "fresh" and not recipe.weights:
        yield "head=fresh needs weights to take the encoder from: without, everything is fresh"


def _data_faults(recipe: Recipe) -> Iterator[str]:
    if not recipe.train:
        yield "no training source: give at least one, such as train=own:mine.csv or train=procedural"
    if recipe.mix and len(recipe.mix) != len(recipe.train):
        yield f"the mix has {len(recipe.mix)} shares for {len(recipe.train)} sources"
    for name in ("size", "width"):
        value = getattr(recipe, name)
        if value is not None and value % 14:
            yield f"{name}={value}: crops are a multiple of 14: give {max(14, round(value / 14) * 14)}"
    for height in recipe.heights:
        if height % 14 or not 14 <= height <= recipe.size or height * recipe.crop[1] % (14 * recipe.size):
            yield (
                f"heights={height}: give multiples of 14 up to size={recipe.size}, with which the width, "
                f"{recipe.crop[1]} at full size, is a multiple of 14 as well"
            )


def _loss_faults(recipe: Recipe) -> Iterator[str]:
    if recipe.loss == "silog" and recipe.kind != "metric":
        yield "loss=silog is for kind=metric"
    if recipe.loss != "silog" and recipe.kind != "relative":
        yield f"loss={recipe.loss} is for kind=relative: give loss=silog"
    if recipe.loss in ("fixed_scale", "aligned"):
        if recipe.strong:
            yield f"loss={recipe.loss} does not go with strong=True: mixed images have two scales"
        if recipe.trim:
            yield f"loss={recipe.loss} trims nothing: leave trim={recipe.trim:g} out"
    if recipe.feature_weight and not (recipe.features or recipe.weights):
        yield "feature_weight needs features or weights, for the encoder that is frozen"
    if recipe.features and not recipe.feature_weight:
        yield f"features={recipe.features} is for a feature_weight above 0"


def _optimization_faults(recipe: Recipe) -> Iterator[str]:
    if recipe.accumulate > 0 and recipe.batch_size % recipe.accumulate:
        yield f"batch_size={recipe.batch_size} does not divide into accumulate={recipe.accumulate} parts"
    if recipe.warmup >= max(1, recipe.steps):
        yield f"warmup={recipe.warmup}: the run has {recipe.steps} steps: give warmup={recipe.steps // 20}"
    if recipe.freeze not in (None, "encoder", "positions") and not str(recipe.freeze).isdecimal():
        yield f"freeze={recipe.freeze}: give encoder, positions, or a number of blocks"


def load(name: str) -> Recipe:
    """The recipe of this name in `configs/`, or in a Python file of yours, which is run.

    Raises Dav2Error when there is none, or the file does not define `recipe`.
    """
    path = Path(name)
    if path.suffix != ".py":
        if name not in names():
            raise Dav2Error(f"{name}: no such recipe: use one of {', '.join(names())}, or the path of a .py file")
        path = _folder() / f"{name}.py"
    if not path.is_file():
        raise Dav2Error(f"{path}: no such file: check the path")
    spec = importlib.util.spec_from_file_location(f"dav2_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Dav2Error(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(getattr(module, "recipe", None), Recipe):
        raise Dav2Error(f"{path}: defines no recipe: it needs a line `recipe = Recipe(...)`")
    return module.recipe


def names() -> list[str]:
    """The recipes in `configs/`."""
    return sorted(file.stem for file in _folder().glob("[!_]*.py"))


def fields() -> list[tuple[str, str, str]]:
    """(name, group, help) of all fields: the comments and the texts in the class."""
    lines, _ = inspect.getsourcelines(Recipe)
    found, group = [], ""
    body = ast.parse("".join(lines)).body[0].body
    groups = {number: line.strip(" #\n") for number, line in enumerate(lines, 1) if line.startswith("    # ")}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            group = groups.get(field.lineno - 1, group)
            found.append((field.target.id, group.lower(), " ".join(text.value.value.split())))
    return found


def to_json(recipe: Recipe) -> str:
    return json.dumps(dataclasses.asdict(recipe), indent=2) + "\n"


def from_json(text: str) -> Recipe:
    """The inverse of `to_json`."""
    values = json.loads(text)
    return Recipe(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _folder() -> Path:
    return Path(importlib.util.find_spec("dav2_jax.configs").origin).parent
