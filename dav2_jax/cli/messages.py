"""Messages of the library, which name parameters, as the command line's: `max_pixels` becomes `--max-pixels`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from dav2_jax.cli.parse import parameters

# Not a part of a longer word, of a path or of the options of a source (`own:mine.csv?scale=0.001`).
_BEFORE = r"(?<![\w./\\?&-])"
_AFTER = r"(?![\w/\\-]|\.\w)"
_VALUE = r"""'[^']*'|"[^"]*"|(?:[^\s,;:.()'"]|[:.](?=\w))+"""


def with_flags(message: str, function: Callable[..., int]) -> str:
    """The message with the flags of the command `function` in place of its parameters.

    `head=fresh` becomes `--head fresh`, and `overwrite=True`, of a switch, `--overwrite`. A parameter without a value
    (`max_pixels`) is recognized by its underscore: `size` may be a word like any other.
    """
    flags = {one.name: one for one in parameters(function) if not one.positional}
    if not flags:
        return message
    names = "|".join(sorted(flags, key=len, reverse=True))
    return re.sub(rf"{_BEFORE}({names})(?:=({_VALUE}))?{_AFTER}", lambda found: _flag(found, flags), message)


def _flag(found: re.Match, flags: dict) -> str:
    name, value = found.groups()
    one = flags[name]
    if value is None:
        return one.flag if "_" in name else name
    value = value[1:-1] if value[0] in "'\"" else value
    if one.switch:
        return {"True": one.flag, "False": one.flag.replace("--", "--no-")}.get(value, found[0])
    return f"{one.flag} {shlex.quote(value)}"
