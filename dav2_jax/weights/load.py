"""A name or a path becomes `Weights`: of a release, a training run, a checkpoint folder, a file of PyTorch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from dav2_jax.convert.read import read, refuse_contradiction
from dav2_jax.convert.recognize import Overrides, resolve_config
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error, InvalidValueError, NotFoundError, did_you_mean
from dav2_jax.model.config import PRESETS
from dav2_jax.weights import checkpoint, hub
from dav2_jax.weights.hub import EMBEDDED, RELEASES, UNRELEASED, UNTRAINED


def load_weights(name: str | os.PathLike, overrides: Overrides = Overrides()) -> Weights:  # noqa: B008 (immutable)
    """The weights of this name or path.

    name: a name of `dav2 models`, downloaded and converted once; a `.pth`, `.safetensors` or Hugging Face folder of a
          depth model or a DINOv2 encoder; a checkpoint folder; the folder of a training run; "nano", which comes with
          the package; or "untrained-small", -base, -large, -giant, -nano: random weights
    overrides: kind, max depth and taps, for files that do not say them; entry and prefix, for those of several networks
    Raises Dav2Error for an unknown name, no network, and whatever is wrong with a file.
    """
    if not isinstance(name, str | os.PathLike):
        raise Dav2Error(f"a {type(name).__name__} is no model: give a released name or a path")
    overrides.check()
    if os.fspath(name).startswith(UNTRAINED):
        _refuse_choice(name, overrides)
        return _untrained(os.fspath(name), overrides)
    path = resolve(name)
    if not checkpoint.is_checkpoint(path):
        return read(path, overrides)
    _refuse_choice(name, overrides)
    weights = checkpoint.load(path)
    refuse_contradiction(path, weights.config, overrides)
    return weights


def _refuse_choice(name: str | os.PathLike, overrides: Overrides) -> None:
    """Raises Dav2Error where one of several networks is asked for and there is one alone."""
    for parameter in ("entry", "prefix"):
        if (value := getattr(overrides, parameter)) is not None:
            raise InvalidValueError(f"{os.fspath(name)}: holds one network alone: leave out {parameter}={value!r}")


def resolve(name: str | os.PathLike) -> Path:
    """A path as it is; a released name as the folder of its converted weights, downloaded and converted if need be.

    Of the folder of a training run, its best weights, or the last where it never validated.
    """
    name = os.fspath(name)
    if not checkpoint.is_checkpoint(Path(name)):  # a name goes before any other folder that is called so
        if name == EMBEDDED:
            return Path(__file__).parents[1] / "assets" / f"{EMBEDDED}.ckpt"
        if name in RELEASES:
            return hub.fetch(name)
    if name and (Path(name) / "recipe.json").is_file():
        return _of_run(Path(name))
    if name and Path(name).exists():
        return Path(name)
    if known := hub.known_name(name):
        return resolve(known)
    if name in UNRELEASED:
        raise Dav2Error(f"{name}: {UNRELEASED[name]}")
    if os.sep in name or Path(name).suffix:
        raise NotFoundError(f"{name}: no such file or folder")
    names = [*RELEASES, EMBEDDED, *(UNTRAINED + size for size in PRESETS)]
    near = did_you_mean(name.lower(), names, most=3)
    raise NotFoundError(f"{name!r}: neither a file nor a released model{near}: `dav2 models` lists all names")


def _of_run(run: Path) -> Path:
    for path in (run / "best.ckpt", run / "last.ckpt"):
        if checkpoint.is_checkpoint(path):
            return path
    raise Dav2Error(
        f"{run}: this training run has no weights yet: go on with it, or stop it with Ctrl-C, which keeps them"
    )


def _untrained(name: str, overrides: Overrides) -> Weights:
    import jax

    from dav2_jax.model.depth_anything import init

    config = PRESETS.get(name.removeprefix(UNTRAINED))
    if config is None:
        raise Dav2Error(f"{name}: the untrained models are {', '.join(UNTRAINED + size for size in PRESETS)}")
    config = resolve_config(name, config, Overrides("relative", None, "v2"), overrides)
    print(f"{name}: RANDOM WEIGHTS, never trained: the output shows that the program runs, not depth", file=sys.stderr)
    params = jax.tree.map(np.asarray, init(config, jax.random.key(0)))
    return Weights(config, params, "none (random weights)", {"source": name, "by": "random numbers"})
