"""Command lines through tyro, with errors of one line, help of 80 columns, and photos in any place."""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import re
import textwrap
from collections.abc import Callable
from functools import partial, wraps

import tyro

from dav2_jax.errors import Dav2Error, did_you_mean
from dav2_jax.inference.formats import FORMATS

_MISFITS = (  # what tyro says of a value that does not fit, and what would; None: it says that too
    (r"no type matching (?P<kinds>.+) could be instantiated from \[(?P<values>.*)\]\. .*", None),
    (r"invalid literal for int\(\) with base 10: (?P<values>.*)", "INT"),
    (r"could not convert string to float: (?P<values>.*)", "FLOAT"),
    (r"Could not find valid parse for arguments: \[(?P<values>.*)\]", "other values"),
)
_KINDS = {"FLOAT FLOAT": "two numbers", "INT": "a whole number", "FLOAT": "a number", "|": " or ", "{": "", "}": ""}


def photos_first(verb: Callable[..., int], arguments: list[str]) -> list[str]:
    """`--format npy photo.jpg` as `photo.jpg --format npy`, because tyro would take the photo for a format.

    A flag takes one value, one that is True or False none, and --format all names of formats that follow, at least one
    value, so that a misspelt one is told. What is left are photos.
    """
    switches = [_flag(name) for name, one in inspect.signature(verb).parameters.items() if one.default is False]
    photos, others = [], []
    flag, taken = "", 0  # the flag before, and how many values it has
    for argument in arguments:
        if argument.startswith("-"):
            flag, equals, _ = argument.replace("_", "-").partition("=")
            taken = len(equals)
        elif flag and flag not in switches and (taken == 0 or (flag == "--format" and argument in FORMATS)):
            taken += 1
        else:
            flag = ""
            photos.append(argument)
            continue
        others.append(argument)
    return photos + others


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
                flags = [_flag(name) for name in inspect.signature(function).parameters]
                raise Dav2Error(f"{_plain(_sentence(box.getvalue()), flags)}: see dav2 {verb} --help") from None
    print(_fit(shown.getvalue()))
    return None


def _sentence(box: str) -> str:
    """The first paragraph in a box of tyro's, below its title, without the help of the arguments that it names."""
    help_of_arguments = re.compile("[│ ] {9}")
    lines = [line.strip("│ ") for line in box.splitlines()[1:] if not help_of_arguments.match(line)]
    lines = itertools.dropwhile(lambda line: not line.strip("─-"), lines)  # a rule, where the title is not in the frame
    lines = itertools.takewhile(lambda line: line.strip("─-"), lines)
    return " ".join(" ".join(lines).split()).rstrip(".") or "wrong command line"


def _plain(sentence: str, flags: list[str]) -> str:
    """A sentence of tyro's for people: the nearest flag for one that is none, and no types of Python."""
    if unknown := re.fullmatch(r"Unrecognized options: ([^,]+)(,.*)?", sentence):
        word = unknown[1]
        if not word.startswith("-"):
            return f"{word!r} is one argument too many"
        return f"there is no {word.partition('=')[0]}{did_you_mean(word.partition('=')[0], flags)}"
    if not (wrong := re.fullmatch(r"Error parsing (--\S+): (.*)", sentence)):
        return sentence
    flag, reason = wrong.groups()
    for pattern, kind in _MISFITS:
        if misfit := re.fullmatch(pattern, reason):
            values, kinds = misfit["values"], kind or misfit["kinds"]
            for name, plain in _KINDS.items():
                kinds = kinds.replace(name, plain)
            return f"{flag} {values}: give {kinds}"
    return f"{flag}: {reason}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _fit(text: str) -> str:
    """Help of tyro's, which wraps the lines of its boxes only, and leaves two lines free below the first one."""
    framed = (" ", "│", "╭", "╰")
    lines = [line if line.startswith(framed) else textwrap.fill(line, 80) for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
