"""Command lines through argparse: the signature of a function is its command line, and a mistake is one line.

Parameters before `*` are positional arguments, those after it flags. Types are str, Path, int, float, bool (a switch),
Literal, unions and tuples of these; a parameter that is a dataclass (the recipe of `dav2 train`) gives a flag for each
of its fields.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from dav2_jax.errors import Dav2Error, did_you_mean
from dav2_jax.inference.formats import FORMATS


@dataclasses.dataclass(frozen=True)
class arg:
    """What the help says about a parameter: its text, a name for its value, and its default where `=` does not say."""

    help: str = ""
    metavar: str | None = None
    help_behavior_hint: str | None = None
    fields: Sequence[tuple[str, str, str]] = ()  # of a dataclass: name, group and text of each field


class Parameter(NamedTuple):
    """One parameter of a command: `hint` is its type without Annotated; `field` is True for those of a dataclass."""

    name: str
    hint: Any
    about: arg
    default: Any
    positional: bool = False
    field: bool = False
    group: str = "flags"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def label(self) -> str:
        """How help and errors call it: by its flag, or by the name of its value."""
        return self.metavar if self.positional else self.flag

    @property
    def metavar(self) -> str:
        return self.about.metavar or metavar(self.hint)

    @property
    def switch(self) -> bool:
        return self.hint is bool


def parameters(function: Callable[..., int]) -> list[Parameter]:
    """All parameters of a command, a dataclass by its fields."""
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint, about = hints[name], arg()
        if typing.get_origin(hint) is typing.Annotated:
            hint, about = hint.__origin__, hint.__metadata__[0]
        if dataclasses.is_dataclass(hint):
            of_fields, said = typing.get_type_hints(hint), {name: (group, text) for name, group, text in about.fields}
            for field in dataclasses.fields(hint):
                group, text = said.get(field.name, ("flags", ""))
                default = getattr(parameter.default, field.name)
                found.append(Parameter(field.name, of_fields[field.name], arg(text), default, field=True, group=group))
            continue
        positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        found.append(Parameter(name, hint, about, parameter.default, positional))
    return found


def parse(command: str, function: Callable[..., int], arguments: list[str]) -> Callable[[], int]:
    """The call of `function`, a command, that a command line asks for. Raises Dav2Error, which names `--help`."""
    try:
        return _parse(command, function, arguments)
    except argparse.ArgumentError as error:
        value = {one.flag: one.metavar for one in parameters(function)}.get(error.argument_name)
        problem = f"{error.argument_name}: {error.message}" + (f" ({value})" if value else "")
    except Dav2Error as error:
        problem = str(error)
    raise Dav2Error(f"{problem}: see dav2 {command} --help") from None


def wants_help(arguments: list[str]) -> bool:
    return bool({"-h", "--help"} & set(arguments[: _end_of_flags(arguments)]))


def _parse(command: str, function: Callable[..., int], arguments: list[str]) -> Callable[[], int]:
    known = parameters(function)
    positional = [one for one in known if one.positional]
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    for one in known:
        if not one.positional:
            parser.add_argument(one.flag, dest=one.name, **_keywords(one))
    end = _end_of_flags(arguments)
    given, rest = parser.parse_known_args([_with_hyphens(word) for word in arguments[:end]])
    for word in rest:  # argparse leaves what is no flag of the command and no value of one
        if word.startswith("-") and word != "-" and not _is_number(word):
            name = word.partition("=")[0]
            raise Dav2Error(f"there is no {name}{did_you_mean(name, [one.flag for one in known])}")
    values = vars(given) | _positional_values(positional, rest + arguments[end + 1 :])
    if missing := [one.label for one in known if one.required and one.name not in values]:
        raise Dav2Error(f"missing from dav2 {command}: {' '.join(missing)}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return partial(function, **dict(_arguments(function, values)))


def _arguments(function: Callable[..., int], values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Values by the parameters of the function: those of a dataclass's fields replace the ones of its default."""
    for name, parameter in inspect.signature(function).parameters.items():
        if dataclasses.is_dataclass(parameter.default):
            fields = {field.name for field in dataclasses.fields(parameter.default)} & values.keys()
            yield name, dataclasses.replace(parameter.default, **{field: values[field] for field in fields})
        elif name in values:
            yield name, values[name]


def _positional_values(known: list[Parameter], words: list[str]) -> dict[str, Any]:
    """Words in the order of the parameters; a tuple, which is the last one, takes all that are left."""
    values: dict[str, Any] = {}
    for one in known:
        if typing.get_origin(one.hint) is tuple:
            values[one.name] = tuple(_value(one.label, typing.get_args(one.hint)[0], word) for word in words)
            words = []
        elif words:
            values[one.name] = _value(one.label, one.hint, words.pop(0))
    if words:
        raise Dav2Error(f"{words[0]!r} is one argument too many")
    return values


def _keywords(one: Parameter) -> dict[str, Any]:
    """Of `add_argument`: how many values the flag takes, and how each of them is read."""
    if one.switch:
        return {"action": argparse.BooleanOptionalAction if one.field else "store_true"}
    hint, count = one.hint, None
    if typing.get_origin(plain := _without_none(hint)) is tuple:
        hint, *others = typing.get_args(plain)
        count = "*" if others[-1] is ... else 1 + len(others)
    elif not one.field:
        hint = plain
    return {"nargs": count, "type": partial(_value, one.flag, hint)}


def _value(label: str, hint: Any, word: str) -> Any:
    """What a word stands for: "none" is None for an optional field. Raises Dav2Error, with what would do."""
    for option in _options(hint):
        if option is types.NoneType:
            if word == "none":
                return None
        elif typing.get_origin(option) is Literal:
            for choice in typing.get_args(option):
                if str(choice) == word:
                    return choice
        else:
            try:
                return option(word)
            except ValueError:
                pass
    raise Dav2Error(f"{label} {word!r}: {_wanted(hint, word)}")


def _wanted(hint: Any, word: str) -> str:
    kinds, choices = [], []
    for option in _options(hint):
        if typing.get_origin(option) is Literal:
            choices += map(str, typing.get_args(option))
        elif option is not types.NoneType:
            kinds.append({int: "a whole number", float: "a number"}.get(option, f"a {option.__name__}"))
    if kinds:
        return f"give {' or '.join(kinds + choices)}"
    return f"use {' or '.join(filter(None, (', '.join(choices[:-1]), choices[-1])))}{did_you_mean(word, choices)}"


def metavar(hint: Any) -> str:
    """ "{a,b}" of Literal["a", "b"], "N [N ...]" of tuple[int, ...], "" of a switch."""
    hint = _without_none(hint)
    if typing.get_origin(hint) is Literal:
        return "{" + ",".join(map(str, typing.get_args(hint))) + "}"
    if typing.get_origin(hint) is tuple:
        of, last = typing.get_args(hint)[0], typing.get_args(hint)[-1]
        return f"{metavar(of)} [{metavar(of)} ...]" if last is ... else " ".join(map(metavar, typing.get_args(hint)))
    return {int: "N", float: "X", bool: ""}.get(hint, "NAME")


def _options(hint: Any) -> tuple:
    """Of a union its members, None before all others; of any other type itself."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return (hint,)
    return tuple(sorted(typing.get_args(hint), key=lambda one: one is not types.NoneType))


def _without_none(hint: Any) -> Any:
    options = tuple(one for one in _options(hint) if one is not types.NoneType)
    return typing.Union[options]  # noqa: UP007 (of a tuple)


def photos_first(command: Callable[..., int], arguments: list[str]) -> list[str]:
    """`--format npy photo.jpg` as `photo.jpg --format npy`, because argparse would take the photo for a format.

    A flag takes one value, a switch none, and --format all names of formats that follow, at least one value, so that a
    misspelt one is reported. What is left are photos.
    """
    switches = [one.flag for one in parameters(command) if one.switch]
    end = _end_of_flags(arguments)
    photos, others = [], []
    flag, taken = "", 0  # the flag before, and how many values it has
    for argument in arguments[:end]:
        if argument.startswith("-"):
            flag, equals, value = _with_hyphens(argument).partition("=")
            taken = len(equals)
            if taken and flag == "--format":  # argparse takes what stands behind = for all of its values
                others += [flag, value]
                continue
        elif flag and flag not in switches and (taken == 0 or (flag == "--format" and argument in FORMATS)):
            taken += 1
        else:
            flag = ""
            photos.append(argument)
            continue
        others.append(argument)
    return photos + others + arguments[end:]


def _end_of_flags(arguments: list[str]) -> int:
    """Where `--` is: what follows it is positional, whatever it begins with."""
    return arguments.index("--") if "--" in arguments else len(arguments)


def _with_hyphens(word: str) -> str:
    """`--max_pixels=9_000` as `--max-pixels=9_000`."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
