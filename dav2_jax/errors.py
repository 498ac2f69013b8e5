"""The one exception a user is meant to read: what was wrong, where, and what to do, in one line."""

import difflib
import importlib
import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any

# Packages that an installation may lack, by the name of their import, and the extra that brings them.
EXTRAS = {"OpenEXR": "exr", "av": "video", "pillow_heif": "heic"} | dict.fromkeys(
    ("optax", "grain", "array_record", "tensorflow_datasets", "google", "h5py", "tensorboardX"), "train"
)


class Dav2Error(Exception):
    """Bad input, not a bug. The command line prints its text and no traceback (unless `--debug`).

    A text names parameters, with their values as `head=fresh`; the command line puts its flags in their place.
    """


class InvalidValueError(Dav2Error, ValueError):
    """A parameter has a value that it cannot have."""


class NotFoundError(Dav2Error, FileNotFoundError):
    """There is no such file, folder or model."""


class ExistsError(Dav2Error, FileExistsError):
    """What would be written exists already."""


def first_line(error: BaseException, limit: int = 300) -> str:
    """What a library's exception says in its first line; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """ " (did you mean this or that?)" with the nearest of the known names; "" where none is near.

    A name that has the word among its parts is nearest: --lr is --encoder-lr, and not --trim.
    """
    known, bare = list(known), word.lstrip("-")
    part_of = [name for name in known if bare in re.split("[-_]+", name)]
    near = list(dict.fromkeys(part_of + difflib.get_close_matches(word, known, most)))[:most]
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def import_optional(name: str) -> ModuleType:
    """A package of EXTRAS. Raises Dav2Error, with the extra that brings it, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise Dav2Error(missing_package(name)) from error


def missing_package(name: str) -> str:
    return f"this needs {name}: pip install 'dav2-jax[{EXTRAS[name]}]'"


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises Dav2Error, with the choices and the nearest one, unless the parameter `name` has one of them."""
    choices = list(choices)
    if value not in choices:
        near = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise Dav2Error(f"{name} is {value!r}: use {' or '.join(map(repr, choices))}{near}")


def check_whole(name: str, value: Any, least: float = 1) -> None:
    """Raises Dav2Error unless the parameter `name` is a whole number, at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise Dav2Error(f"{name} is {value!r}: give a whole number")
    if value < least:
        raise Dav2Error(f"{name} is {value}: give at least {least}")
