"""`dav2_jax.load`: a name or a path becomes a `Model`."""

from __future__ import annotations

import os
from typing import Literal

from dav2_jax.convert.recognize import Overrides
from dav2_jax.errors import InvalidValueError
from dav2_jax.inference.predictor import Model
from dav2_jax.model.config import Kind, Taps
from dav2_jax.weights.hub import UNTRAINED, print_license
from dav2_jax.weights.load import load_weights


def load(
    model: str | os.PathLike = "small",
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    kind: Kind | None = None,
    max_depth: float | None = None,
    taps: Taps | None = None,
    entry: str | None = None,
    prefix: str | None = None,
) -> Model:
    """A `Model` from a released name, or from any checkpoint that `dav2 convert` reads.

    model: as in `weights.load.load_weights`: a name of `dav2 models`, a path, "nano", "untrained-small", ...
    dtype: of the computation, "float32" (the official numbers) or "bfloat16" (speed); parameters stay float32
    kind, max_depth, taps: for files whose name does not say them, as in `dav2 convert`
    entry, prefix: of a training checkpoint with several sets of weights or networks: the dict to take ("model_ema"),
                   and how the names of its tensors begin ("student")
    Raises Dav2Error for an unknown name, no network, and whatever is wrong with a file.
    """
    if str(getattr(dtype, "__name__", dtype)) not in ("float32", "bfloat16"):
        raise InvalidValueError(f"dtype={dtype!r}: computation is in float32 or bfloat16")
    weights = load_weights(model, Overrides(kind, max_depth, taps, entry, prefix))
    if not os.fspath(model).startswith(UNTRAINED):
        print_license(os.fspath(model), weights.license)
    return Model(weights, dtype=dtype)
