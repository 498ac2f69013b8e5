"""Command lines through tyro, with errors of one line, help of 80 columns, and formats in any order."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import textwrap
from collections.abc import Callable
from functools import partial, wraps

import tyro

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.formats import FORMATS


def photos_before_formats(arguments: list[str]) -> list[str]:
    """`--format npy photo.jpg` as `photo.jpg --format npy`, because tyro would take the photo for a format.

    The list of formats ends at the first value that names none; from there on they are photos, which join those at the
    front. The value right after --format always counts as a format, so that a misspelt one is told.
    """
    photos, others = [], []
    formats = None  # of the --format that is being read; None outside of one
    for argument in arguments:
        if argument.startswith("-"):
            formats = 1 if argument.startswith("--format=") else 0 if argument == "--format" else None
        elif formats is not None:
            if formats == 0 or (formats > 0 and argument in FORMATS):
                formats += 1
            else:
                formats = -1
                photos.append(argument)
                continue
        others.append(argument)
    front = next((place for place, argument in enumerate(others) if argument.startswith("-")), len(others))
    return others[:front] + photos + others[front:]


def parse(verb: str, function: Callable[..., int], arguments: list[str]) -> Callable[[], int] | None:
    """The call of `function`, a verb, that a command line asks for; None when it asked for help, which is then shown.

    What tyro would print is caught: its help, to fit it in 80 columns, and its errors, which are boxes of many lines,
    to raise the first sentence as Dav2Error.
    """

    @wraps(function)
    def later(*args, **options):
        return partial(function, *args, **options)

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(io.StringIO()) as box:
        try:
            return tyro.cli(later, prog=f"dav2 {verb}", args=arguments, config=config)
        except SystemExit as stop:
            if stop.code:
                raise Dav2Error(f"{_sentence(box.getvalue())}: see dav2 {verb} --help") from None
    print(_fit(shown.getvalue()))
    return None


def _sentence(box: str) -> str:
    """The first paragraph in a box of tyro's, below its title, without the help of the arguments that it names."""
    help_of_arguments = re.compile("[│ ] {9}")
    lines = [line.strip("│ ") for line in box.splitlines()[1:] if not help_of_arguments.match(line)]
    lines = itertools.dropwhile(lambda line: not line.strip("─-"), lines)  # a rule, where the title is not in the frame
    lines = itertools.takewhile(lambda line: line.strip("─-"), lines)
    return " ".join(" ".join(lines).split()).rstrip(".") or "wrong command line"


def _fit(text: str) -> str:
    """Help of tyro's, which wraps the lines of its boxes only, and leaves two lines free below the first one."""
    framed = (" ", "│", "╭", "╰")
    lines = [line if line.startswith(framed) else textwrap.fill(line, 80) for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
