"""`dav2 train`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from dav2_jax.cli.parse import arg
from dav2_jax.errors import Dav2Error, did_you_mean
from dav2_jax.training import recipe as recipes
from dav2_jax.training.recipe import Recipe


def with_recipe(arguments: list[str]) -> tuple[Callable[..., int], list[str]]:
    """The command, whose defaults are those of the recipe that comes first, and the arguments after the recipe."""
    named = bool(arguments) and not arguments[0].startswith("-")
    if not named and not {"-h", "--help"} & set(arguments):
        raise Dav2Error(f"which recipe? dav2 train RECIPE --out RUN, with one of {', '.join(recipes.names())} or a .py")
    defaults = recipes.load(arguments[0]) if named else Recipe()

    def train(
        settings: Recipe = defaults,
        *,
        out: Annotated[
            Path,
            arg(
                metavar="RUN",
                help="Folder of the run: checkpoints, best.ckpt and last.ckpt, metrics.jsonl, pictures. A run that was "
                "stopped there goes on.",
            ),
        ],
        devices: Annotated[
            int | None,
            arg(metavar="COUNT", help="Use so many of the devices.", help_behavior_hint="(default: all)"),
        ] = None,
        distributed: Annotated[
            bool, arg(help="One of several processes with the same command line: TPU pods, Slurm and others tell who.")
        ] = False,
        coordinator: Annotated[
            str | None,
            arg(
                metavar="HOST:PORT",
                help="With --distributed: where process 0 is found.",
                help_behavior_hint="(default: told by the cluster)",
            ),
        ] = None,
        processes: Annotated[
            int | None, arg(metavar="COUNT", help="With --coordinator.", help_behavior_hint="(default: likewise)")
        ] = None,
        process: Annotated[
            int | None, arg(metavar="NUMBER", help="With --coordinator.", help_behavior_hint="(default: likewise)")
        ] = None,
    ) -> int:
        return _train(settings, out, devices, distributed, coordinator, processes, process)

    train.__doc__ = DOC
    _refuse_unknown(arguments[named:], [*inspect.signature(train).parameters, *Recipe.__dataclass_fields__])
    return train, arguments[named:]


def _refuse_unknown(arguments: list[str], known: list[str]) -> None:
    """Raises Dav2Error for a flag that is none, with the nearest one."""
    flags = ["--" + name.replace("_", "-") for name in (*known, "help")]
    for flag in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        plain = flag.replace("_", "-")
        if plain not in flags and "--" + plain.removeprefix("--no-") not in flags:
            raise Dav2Error(f"{flag} is no field of a recipe{did_you_mean(plain, flags)}: dav2 train --help lists them")


DOC = """Train or fine-tune on one device or a pod, and go on after a stop.

$ dav2 train own_data --train own:mine.csv --out runs/mine
$ dav2 train metric_hypersim --train hypersim:/data/hypersim --out runs/h
$ dav2 train my_recipe.py --batch-size 32 --out runs/a

RECIPE is a name (own_data, metric_hypersim, ...) or a Python file with a line
recipe = Recipe(...); every field of it is a flag.

Ctrl-C or SIGTERM save and stop; the same command goes on. Afterwards:
$ dav2 predict photo.jpg --model runs/mine
$ dav2 convert runs/mine mine.pth --to official

Exit code 143 if it was stopped before its end."""


def train() -> int:
    """Train or fine-tune on one device or a pod, and go on after a stop."""
    raise AssertionError("made by with_recipe")


def _train(settings: Recipe, out: Path, devices, distributed: bool, coordinator, processes, process) -> int:
    if settings.weights == "none":
        settings = dataclasses.replace(settings, weights=None)
    settings.check()
    from dav2_jax import sharding
    from dav2_jax.files import cache_folder
    from dav2_jax.inference.programs import keep_programs

    keep_programs(cache_folder() / "programs")
    if distributed or not (coordinator is processes is process is None):
        sharding.initialize(coordinator, processes, process)
    import jax

    from dav2_jax.training.loop import train as run

    found = jax.devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise Dav2Error(f"--devices {devices}: there are {len(found)}")
    outcome = run(settings, out, devices=found[:devices])
    if sharding.is_first():
        how = "stopped; the same command goes on" if outcome.stopped else "done"
        print(f"{out}: step {outcome.step} of {settings.steps}, {how}")
    return 143 if outcome.stopped else 0
