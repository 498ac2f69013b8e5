"""The one exception a user is meant to read: what was wrong, where, and what to do, in one line."""

import difflib
import re
from collections.abc import Iterable


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
