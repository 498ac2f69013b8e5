"""A recipe: everything that fixes a training run, in one flat table of fields that the command line can override."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Literal

from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import PRESETS, ModelConfig


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run. `dav2 train RECIPE --field value` changes a field."""

    # The network
    encoder: str = "small"
    """Size: small, base, large, giant or nano; custom: that of the weights, from Hugging Face."""
    kind: Literal["relative", "metric"] = "relative"
    """relative: affine-invariant disparity. metric: depth in metres, up to max_depth."""
    max_depth: float | None = None
    """Metres, of a metric model: 20 for rooms, 80 for streets."""
    weights: str | None = None
    """Where training starts: a name or path as for dav2 predict. none: from random numbers."""
    head: Literal["keep", "fresh"] = "keep"
    """fresh: take the encoder of the weights only, as the official metric training does."""

    # Data
    train: tuple[str, ...] = ()
    """Sources, as dav2 data names them: procedural, hypersim:/data/hypersim, own:mine.csv, records/ ..."""
    mix: tuple[float, ...] = ()
    """A share for each source. Empty: one long list of all of them, as in the paper."""
    validate: tuple[str, ...] = ()
    """Sources to validate on. Empty: no validation."""
    size: int = 518
    """Side of the square crops, in pixels, a multiple of 14."""
    width: int | None = None
    """Of the crops, which then are size x width, such as 252 x 336, and not square."""
    heights: tuple[int, ...] = ()
    """Crops are shrunk to these heights in turn, one a step, for a network that knows many sizes. Validation is at the
    full size."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    strong: bool = False
    """V1's strong changes of the images: color, gray, blur, CutMix."""
    label: Literal["depth", "sensor", "seen_through"] = "depth"
    """To see what real labels cost, where the source knows it (procedural). sensor: train on what a depth camera would
    have measured. seen_through: on that only where it looks through glass and thin things and into mirrors."""
    workers: int | None = None
    """Processes that read. None: one a core, or none where scenes are made on the device."""
    cache: bool = False
    """Keep what was read in memory, for sets that fit there; then one process reads."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do with an example that cannot be read."""

    # Loss
    loss: Literal["silog", "relative", "fixed_scale", "aligned"] = "relative"
    """silog: of metric models. relative: affine-invariant error and gradient matching, of disparity. fixed_scale: the
    same without the invariance, to begin with where there are no weights to start from. aligned: with it, and the error
    of log depth after the fit of zero-shot benchmarks, to end with."""
    gradient_weight: float = 2.0
    """Of gradient matching in the relative loss (the paper chose 2 among 0.5 to 4)."""
    trim: float = 0.0
    """Share of the largest residuals of an image that do not count; 0.1 for pseudo-labels."""
    feature_weight: float = 0.0
    """Of L_feat: features of the encoder shall stay near to those of a frozen one (V1, and V2's students; neither
    paper gives its weight)."""
    features: str | None = None
    """Whose encoder is the frozen one: a name or path, such as dinov2-small. None: that of --weights."""
    min_depth: float = 0.001
    """Metres below which silog does not look; above it is max_depth."""

    # Optimization
    steps: int = 10_000
    batch_size: int = 8
    """Examples a step, on all devices of all hosts together."""
    encoder_lr: float = 5e-6
    """Learning rate of the encoder."""
    head_factor: float = 10.0
    """The head learns so many times faster."""
    schedule: Literal["constant", "linear", "poly", "cosine"] = "poly"
    warmup: int = 0
    """Steps in which the learning rate rises to its full value."""
    b2: float = 0.999
    """Of Adam: how slowly it forgets the squares of gradients; 0.99 for short runs from random numbers."""
    matrices: Literal["adam", "muon"] = "adam"
    """How the matrices of the encoder's blocks and of the head learn: muon steps as far in all their directions."""
    weight_decay: float = 0.01
    decay: Literal["all", "matrices"] = "all"
    """What decays: all parameters as in the official code, or those with two axes and more."""
    clip: float | None = None
    """Largest norm of the gradient."""
    freeze: str | None = None
    """What stays as it is: encoder, a number of first blocks, or positions, the position table."""
    accumulate: int = 1
    """Parts into which a batch is cut, one after another, to save memory."""
    ema: float | None = None
    """Decay of a running mean of the parameters, which is then what is validated and kept."""

    # The run
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters are float32."""
    remat: Literal["none", "products", "blocks"] = "none"
    """What the backward pass computes again, to save memory: nothing, all but products, or whole blocks."""
    fsdp: int = 1
    """Devices that share one copy of the parameters."""
    seed: int = 0
    log_every: int = 20
    validate_every: int = 1000
    save_every: int = 1000
    validate_examples: int = 200
    """Examples of each source to validate on, spread evenly."""

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
        """Raises Dav2Error, naming the field, for settings that cannot be or do not fit together."""
        least = {
            "size": 14, "steps": 1, "batch_size": 1, "encoder_lr": 0, "head_factor": 0, "warmup": 0,
            "weight_decay": 0, "gradient_weight": 0, "feature_weight": 0, "accumulate": 1, "fsdp": 1, "seed": 0,
            "min_depth": 0, "log_every": 1, "validate_every": 1, "save_every": 1, "validate_examples": 1,
        }  # fmt: skip
        for name, value in least.items():
            if getattr(self, name) < value:
                raise Dav2Error(f"{_flag(name)} {getattr(self, name)}: give at least {value}")
        for name in ("flip", "trim", "b2", "ema"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise Dav2Error(f"{_flag(name)} {value}: give a share of 0 to 1")
        of_one_scale = self.loss in ("fixed_scale", "aligned")
        wrong = {
            "no --train: give at least one source, such as procedural": not self.train,
            f"--size {self.size}: crops are a multiple of 14": self.size % 14,
            f"--width {self.width}: crops are a multiple of 14": self.width is not None
            and (self.width < 14 or self.width % 14),
            f"--mix: {len(self.mix)} shares for {len(self.train)} sources": self.mix
            and len(self.mix) != len(self.train),
            "--loss silog is for --kind metric": self.loss == "silog" and self.kind != "metric",
            f"--loss {self.loss} is for --kind relative": self.loss != "silog" and self.kind != "relative",
            f"--loss {self.loss} has no --strong: mixed images have two scales": of_one_scale and self.strong,
            f"--loss {self.loss} trims nothing": of_one_scale and self.trim,
            "--feature-weight needs --features or --weights, for the encoder that is frozen": self.feature_weight
            and not (self.features or self.weights),
            "--features is for a --feature-weight above 0": self.features and not self.feature_weight,
            "--kind metric needs --max-depth, in metres": (self.kind == "metric") != (self.max_depth is not None),
            "--head fresh needs --weights: without, everything is fresh": self.head == "fresh" and not self.weights,
            f"--batch-size {self.batch_size} does not divide into --accumulate {self.accumulate} parts": (
                self.batch_size % self.accumulate
            ),
            f"--warmup {self.warmup}: the run has {self.steps} steps: give a smaller --warmup": self.warmup
            >= self.steps,
            f"--workers {self.workers}: give 0 or more": self.workers is not None and self.workers < 0,
        }
        for text, is_wrong in wrong.items():
            if is_wrong:
                raise Dav2Error(text)
        for height in self.heights:
            if height % 14 or not 14 <= height <= self.size or height * self.crop[1] % (14 * self.size):
                raise Dav2Error(
                    f"--heights {height}: give multiples of 14 up to --size {self.size}, with which the width, "
                    f"{self.crop[1]} at full size, is a multiple of 14 as well"
                )
        if self.freeze not in (None, "encoder", "positions") and not str(self.freeze).isdecimal():
            raise Dav2Error(f"--freeze {self.freeze}: give encoder, positions, or a number of blocks")
        self.model_config()


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


def to_json(recipe: Recipe) -> str:
    return json.dumps(dataclasses.asdict(recipe), indent=2) + "\n"


def from_json(text: str) -> Recipe:
    """The inverse of `to_json`."""
    values = json.loads(text)
    return Recipe(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _folder() -> Path:
    return Path(importlib.util.find_spec("dav2_jax.configs").origin).parent


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
