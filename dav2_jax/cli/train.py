"""`dav2 train`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from dav2_jax.cli.parse import arg
from dav2_jax.errors import Dav2Error, did_you_mean
from dav2_jax.training import recipe as recipes
from dav2_jax.training.recipe import Recipe

USAGE = "usage: dav2 train RECIPE --out RUN [--FIELD VALUE ...]"
DOC = """Train or fine-tune on one device or a pod, and go on after a stop.

$ dav2 train own_metric --train 'own:mine.csv?scale=0.001' --out runs/mine
$ dav2 train own_data --train own:mine.csv --out runs/a
$ dav2 train metric_hypersim --train hypersim:/data/hypersim --out runs/h
$ dav2 train my_recipe.py --batch-size 32 --out runs/b

RECIPE is one of
{recipes}
or a Python file with a line recipe = Recipe(...). Every field of it is a flag;
dav2 train RECIPE --help shows that recipe's values.

Ctrl-C or SIGTERM save and stop; the same command goes on. A finished run is
trained further by a new one: --weights runs/mine --out runs/longer. Afterwards:
$ dav2 predict photo.jpg --model runs/mine
$ dav2 convert runs/mine mine.pth --to official

Exit code 143 if it was stopped before its end."""


def with_recipe(arguments: list[str]) -> tuple[Callable[..., int], list[str]]:
    """The command, whose defaults are those of the recipe that comes first, and the arguments after the recipe."""
    named = bool(arguments) and not arguments[0].startswith("-")
    wants_help = bool({"-h", "--help"} & set(arguments))
    if not named and not wants_help:
        raise Dav2Error(f"which recipe? dav2 train RECIPE --out RUN, with one of {', '.join(recipes.names())} or a .py")
    defaults = recipes.load(arguments[0]) if named else Recipe()

    def train(
        settings: Recipe = defaults,
        *,
        out: Annotated[
            Path,
            arg(
                metavar="RUN",
                help="Folder of the run: checkpoints, best.ckpt, last.ckpt, metrics.jsonl, pictures. A run that was "
                "stopped there is resumed.",
            ),
        ],
        devices: Annotated[int | None, arg(metavar="COUNT", help="Number of devices to use (default: all).")] = None,
        profile: Annotated[bool, arg(help="Trace a few steps into RUN/profile, for TensorBoard.")] = False,
        distributed: Annotated[
            bool,
            arg(help="One of several processes with the same command line, as TPU pods, Slurm and others start them."),
        ] = False,
        coordinator: Annotated[
            str | None, arg(metavar="HOST:PORT", help="Address of process 0 (default: from the cluster).")
        ] = None,
        processes: Annotated[
            int | None, arg(metavar="COUNT", help="Number of processes (default: from the cluster).")
        ] = None,
        process: Annotated[
            int | None, arg(metavar="NUMBER", help="Number of this process, from 0 (default: from the cluster).")
        ] = None,
    ) -> int:
        return _train(settings, out, devices, profile, distributed, coordinator, processes, process)

    train.__doc__ = DOC
    if wants_help:
        print(_help(train, defaults, arguments[0] if named else None))
        return lambda: 0, []
    _refuse_unknown(arguments[named:], [*inspect.signature(train).parameters, *Recipe.__dataclass_fields__])
    return train, arguments[named:]


def _help(train: Callable[..., int], defaults: Recipe, name: str | None) -> str:
    """The help of all flags, in groups: those of the command, and the fields of the recipe with its values."""
    lines = [
        USAGE,
        "",
        DOC.format(recipes=textwrap.fill(", ".join(recipes.names()), 78, initial_indent="  ", subsequent_indent="  ")),
    ]
    of_command = []
    for flag, hint in typing.get_type_hints(train, include_extras=True).items():
        if flag in ("settings", "return"):
            continue
        about = next(one for one in hint.__metadata__ if hasattr(one, "help"))
        of_command.append((flag, about.metavar or "", about.help))
    groups = {"command": of_command}
    for field, group, text in recipes.fields():
        value, hint = getattr(defaults, field), typing.get_type_hints(Recipe)[field]
        if value is not None and value != ():
            text = f"{re.sub(' ?[(]default: .*[)]', '', text)} (default: {_text(value)})"
        groups.setdefault(group, []).append((field, _metavar(hint), text))
    for group, flags in groups.items():
        about = f"{group}, as in {name}" if name and group != "command" else group
        lines += ["", f"{about}:"]
        lines += [_entry(*flag) for flag in flags]
    return "\n".join(lines)


def _entry(field: str, metavar: str, text: str) -> str:
    flag = f"  --{field.replace('_', '-')} {metavar}".rstrip()
    body = textwrap.fill(text, 80, initial_indent=" " * 22, subsequent_indent=" " * 22)
    return flag.ljust(22) + body.lstrip() if len(flag) < 21 else f"{flag}\n{body}"


def _metavar(hint) -> str:
    """ "{a,b}" of Literal["a", "b"], "N ..." of tuple[int, ...], "" of a switch."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        return "{" + ",".join(typing.get_args(hint)) + "}"
    if typing.get_origin(hint) is tuple:
        return f"{_metavar(typing.get_args(hint)[0])} ..."
    return {int: "N", float: "X", str: "NAME", bool: ""}[hint]


def _text(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (
        " ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _refuse_unknown(arguments: list[str], known: list[str]) -> None:
    """Raises Dav2Error for a flag that is none, with the nearest one."""
    flags = ["--" + name.replace("_", "-") for name in (*known, "help")]
    for flag in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        plain = flag.replace("_", "-")
        if plain not in flags and "--" + plain.removeprefix("--no-") not in flags:
            raise Dav2Error(f"{flag} is no field of a recipe{did_you_mean(plain, flags)}: dav2 train --help lists them")


def train() -> int:
    """Train or fine-tune on one device or a pod, and go on after a stop."""
    raise AssertionError("made by with_recipe")


def _train(
    settings: Recipe, out: Path, devices, profile: bool, distributed: bool, coordinator, processes, process
) -> int:
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

    from dav2_jax.bench.chips import peak_flops
    from dav2_jax.training.loop import train as run

    found = jax.devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise Dav2Error(f"--devices {devices}: there are {len(found)}")
    outcome = run(settings, out, devices=found[:devices], profile=profile, peak_flops=peak_flops(found[0].device_kind))
    if sharding.is_first():
        how = "stopped; the same command goes on" if outcome.stopped else "done"
        where = f" (on {outcome.hardware})" if outcome.hardware else ""
        print(f"{out}: step {outcome.step} of {settings.steps}, {how}{where}")
    return 143 if outcome.stopped else 0
