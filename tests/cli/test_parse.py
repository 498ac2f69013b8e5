"""What a signature makes of a command line: types, switches, fields of a dataclass, and what is said of mistakes."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import pytest

from dav2_jax.cli.help import render
from dav2_jax.cli.parse import arg, parse
from dav2_jax.errors import Dav2Error


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = 10
    clip: float | None = 1.0
    flip: bool = True
    sizes: tuple[int, ...] = (28,)


def command(
    settings: Annotated[
        Settings, arg(fields=[("steps", "run", "Steps."), ("clip", "loss", "Largest norm.")])
    ] = Settings(),
    *,
    out: Annotated[Path, arg(help="Where to write. A long text, which is wrapped below its own beginning.")],
    bits: Literal[8, 10] = 8,
    tiles: int | Literal["auto"] | None = None,
    span: Annotated[tuple[float, float] | None, arg(metavar="LOW HIGH")] = None,
    force: bool = False,
) -> int:
    """Does a thing.

    $ dav2 do --out x

    A paragraph
    of two lines.
    """
    return settings, out, bits, tiles, span, force


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("--out o", (Settings(), Path("o"), 8, None, None, False)),
        ("--out=o --bits 10 --tiles auto --span -1 2e3 --force", (Settings(), Path("o"), 10, "auto", (-1, 2000), True)),
        ("--tiles 3 --out o --out p", (Settings(), Path("p"), 8, 3, None, False)),
        ("--out o --steps 3 --clip none --no-flip", (Settings(3, None, False), Path("o"), 8, None, None, False)),
        ("--out o --sizes 1 2", (Settings(sizes=(1, 2)), Path("o"), 8, None, None, False)),
        ("--out o --flip --sizes", (Settings(sizes=()), Path("o"), 8, None, None, False)),
    ],
)
def test_values(line, values):
    assert parse("do", command, line.split())() == values


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "missing from dav2 do: --out"),
        ("--out", "--out: expected one argument (NAME)"),
        ("--out o --span 1", "--span: expected 2 arguments (LOW HIGH)"),
        ("--out o --bits 9", "--bits '9': use 8 or 10"),
        ("--out o --tiles many", "--tiles 'many': give a whole number or auto"),
        ("--out o --clip much", "--clip 'much': give a number"),
        ("--out o --forse=1", "there is no --forse (did you mean --force?)"),
        ("--out o -- --force", "'--force' is one argument too many"),
    ],
)
def test_mistakes(line, message):
    with pytest.raises(Dav2Error) as error:
        parse("do", command, line.split())
    assert str(error.value) == f"{message}: see dav2 do --help"


def test_help():
    assert render("do THIS", command) == (
        """\
usage: dav2 do THIS --out NAME [--FLAG VALUE ...]

Does a thing.

$ dav2 do --out x

A paragraph of two lines.

run:
  --steps N           Steps. (default: 10)

loss:
  --clip X            Largest norm. (default: 1.0)

flags:
  --[no-]flip         (default: True)
  --sizes N [N ...]   (default: 28)
  --out NAME          Where to write. A long text, which is wrapped below its
                      own beginning. (required)
  --bits {8,10}       (default: 8)
  --tiles NAME
  --span LOW HIGH
  --force"""
    )
