"""The help of a command in 80 columns: from the docstring and the parameters of its function."""

from __future__ import annotations

import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable

from dav2_jax.cli.parse import Parameter, parameters

WIDTH = 80
_INDENT = 22  # of what is said about a parameter


def render(command: str, function: Callable[..., int]) -> str:
    """Usage, the docstring, and one entry for each argument and flag."""
    known = parameters(function)
    arguments, flags = ([one for one in known if one.positional is kind] for kind in (True, False))
    groups = dict.fromkeys(one.group for one in flags)
    usage = [f"usage: dav2 {command}", *(one.metavar for one in arguments)]
    usage += [f"{one.flag} {one.metavar}" for one in flags if one.required]
    usage += ["[--FLAG VALUE ...]"] if any(not one.required for one in flags) else []
    parts = [" ".join(usage), paragraphs(inspect.getdoc(function) or "")]
    sections = [("arguments", arguments), *((name, [one for one in flags if one.group == name]) for name in groups)]
    for title, members in sections:
        if members:
            parts.append("\n".join([f"{title}:", *(entry(_head(one), _about(one)) for one in members)]))
    return "\n\n".join(parts)


def entry(head: str, about: str) -> str:
    """`  --flag VALUE` and what is said about it, beside or below."""
    body = "\n".join(_filled(about, _INDENT))
    if len(head) > _INDENT - 4:
        return f"  {head}\n{body}".rstrip()
    return (f"  {head}".ljust(_INDENT) + body[_INDENT:]).rstrip()


def paragraphs(text: str) -> str:
    """A docstring: filled, but for lines that begin with a space or are commands (`$ dav2 ...`)."""
    return "\n".join(_filled(text, 0))


def _filled(text: str, indent: int) -> Iterable[str]:
    """Lines that follow each other are filled together; one that begins with a space alone, below its first letter."""
    space = " " * indent
    for verbatim, lines in itertools.groupby(text.splitlines(), lambda line: line[:1] in ("", " ", "$")):
        for line in lines if verbatim else [" ".join(lines)]:
            own = space + " " * (len(line) - len(line.lstrip()))
            yield (
                textwrap.fill(line.strip(), WIDTH, initial_indent=own, subsequent_indent=own, break_on_hyphens=False)
                if not line.startswith("$")
                else line
            )


def _head(one: Parameter) -> str:
    if one.positional:
        return one.metavar
    if one.switch:
        return f"--[no-]{one.flag[2:]}" if one.field else one.flag
    return f"{one.flag} {one.metavar}"


def _about(one: Parameter) -> str:
    default = one.about.help_behavior_hint or _default(one)
    return f"{one.about.help} {default}".strip()


def _default(one: Parameter) -> str:
    if one.required:
        return "" if one.positional else "(required)"
    if one.default is None or one.default is False or one.default == ():
        return ""
    words = one.default if isinstance(one.default, tuple) else [one.default]
    return f"(default: {' '.join(map(str, words))})"
