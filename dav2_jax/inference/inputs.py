"""Photos to work on: files, folders, patterns and lists of paths become photos with the places of their outputs.

The naming rule. The output tree mirrors the input tree below the deepest folder that all arguments share, and an output
is named after the whole file name of its photo, extension included, plus the suffix of its format: `photos/a/x.jpg`,
given as `photos/`, goes to `a/x.jpg.color.png`. So x.jpg and x.png never meet, and where an output goes depends on what
was asked for, never on which other files lie in the folders: when photos are added, earlier outputs still match.

The folder of an argument is: a folder itself, the folder of a file, the part of a pattern before its first wildcard,
and for a line of a list the folder against which it was found (or its own, where it lies outside of that). An http(s)
address counts as the file /host/folders/name.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from dav2_jax.image import kinds
from dav2_jax.image.fetch import is_url
from dav2_jax.image.read import photo_extensions
from dav2_jax.inference.formats import FORMATS


class Input(NamedTuple):
    path: Path | str  # the photo, as it was given; a string is an address
    relative: Path  # below the output folder; an output is this plus the suffix of its format


def find_inputs(inputs: Sequence[str], *, left_out: Counter[str] | None = None) -> tuple[list[Input], list[str]]:
    """All photos that the arguments name, each once, in the order given and sorted within folders and patterns.

    inputs  files (any extension); folders (searched recursively, links followed; extensions that Pillow can open);
            patterns with * ? [] and ** for any depth; .txt lists with one path a line, relative to the list's folder or
            else to the working directory, where blank lines and lines that start with # do not count; http(s)
            addresses, which are not fetched here. Hidden files, hidden folders and our own outputs (x.jpg.color.png)
            are passed over in folders and patterns.
    left_out  gets the number of other files in folders and patterns by their extension: ".heic", ".cr2", ".md", ...

    Returns the photos, and one line for each argument (or line of a list) that gives none: "path: what: what to do".
    """
    paths: list[Path | str] = []
    roots: set[Path] = set()
    problems: list[str] = []
    left_out = Counter() if left_out is None else left_out
    for text in inputs:
        path = Path(text)
        if is_url(text):
            photos, folders = [text], [_absolute(text).parent]
        elif path.is_dir():
            photos, folders = _in_folder(path, problems, left_out), [path]
        elif _is_pattern(text) and not path.exists():
            photos, folders = _in_pattern(text, problems, left_out)
        elif path.suffix.lower() == ".txt":
            photos, folders = _in_list(path, problems)
        elif path.exists():
            photos, folders = [path], [path.parent]
        else:
            problems.append(f"{text}: no such file or folder: check the path")
            photos, folders = [], [path.parent]
        paths += photos
        roots.update(map(_absolute, folders))

    unique: dict[Path, Path | str] = {}
    for path in paths:
        unique.setdefault(_absolute(path), path)
    shared = _shared_folder(roots)
    return [Input(path, _below(absolute, shared)) for absolute, path in unique.items()], problems


def _in_folder(folder: Path, problems: list[str], left_out: Counter[str]) -> list[Path]:
    photos, others, entered = [], Counter(), set()
    walk = os.walk(
        folder,
        followlinks=True,
        onerror=lambda error: problems.append(
            f"{error.filename}: {error.strerror}: check the permissions of the folder"
        ),
    )
    for parent, folders, names in walk:
        real = os.path.realpath(parent)
        folders[:] = [] if real in entered else [name for name in folders if not name.startswith(".")]  # links can loop
        names = [] if real in entered else names
        entered.add(real)
        photos += [Path(parent, name) for name in names if _is_photo(name)]
        others.update(Path(name).suffix.lower() for name in names if _is_left_out(name))
    if not photos:
        held = f", but {count_by_extension(others)}" if others else ""
        problems.append(f"{folder}: the folder holds no photo that Pillow can open{held}: check the path")
    left_out.update(others)
    return sorted(photos, key=lambda path: path.parts)


def _in_pattern(pattern: str, problems: list[str], left_out: Counter[str]) -> tuple[list[Path], list[Path]]:
    matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    files = sorted((path for path in matches if path.is_file()), key=lambda path: path.parts)
    photos = [path for path in files if _is_photo(path.name)]
    others = Counter(path.suffix.lower() for path in files if _is_left_out(path.name))
    if not photos:
        held = f", but {count_by_extension(others)}" if others else ""
        problems.append(
            f"{pattern}: the pattern matches no photo{held}: check it, and quote it so that the shell leaves it alone"
        )
    left_out.update(others)
    return photos, [Path(*takewhile(lambda part: not _is_pattern(part), Path(pattern).parts))]


def _in_list(path: Path, problems: list[str]) -> tuple[list[Path], list[Path]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        problems.append(f"{path}: is no text in UTF-8: give a list with one path a line")
        return [], [path.parent]
    except OSError as error:
        problems.append(f"{path}: the list cannot be read ({error.strerror}): check the path")
        return [], [path.parent]
    photos, roots = [], []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        if is_url(line):
            photos.append(line)
            roots.append(_absolute(line).parent)
            continue
        base = next((base for base in (path.parent, Path()) if (base / line).is_file()), None)
        if base is None:
            problems.append(f"{path}:{number}: {line}: no such file: a list names one photo a line")
            continue
        photo = base / line
        photos.append(photo)
        roots.append(base if _is_below(photo, base) else photo.parent)
    if not photos:
        problems.append(f"{path}: the list names no photo that exists: write one path a line")
    return photos, roots


def count_by_extension(extensions: Counter[str]) -> str:
    """Files that are no photos here, such as "3 .heic (pip install 'dav2-jax[heic]'), 1 .cr2, 1 .md"."""
    kind_first = sorted(extensions.items(), key=lambda item: (kinds.kind_of_extension(item[0]) is None, -item[1], item))
    hints = {"heic": " (pip install 'dav2-jax[heic]')", "video": " (dav2 video)"}
    return ", ".join(
        f"{count} {extension or 'without extension'}{hints.get(kinds.kind_of_extension(extension), '')}"
        for extension, count in kind_first
    )


def _is_photo(name: str) -> bool:
    """Whether a folder gives this file: an extension that Pillow opens, not hidden, not one of our own pictures."""
    return Path(name).suffix.lower() in photo_extensions() and not name.startswith(".") and not _is_ours(name)


def _is_left_out(name: str) -> bool:
    return not (_is_photo(name) or name.startswith(".") or _is_ours(name))


def _is_ours(name: str) -> bool:
    """Whether this is an output for a photo of this folder: x.jpg.color.png, x.jpg.npy, x.jpg.png16.png.json."""
    suffixes = [format.suffix for format in FORMATS.values()]
    name = name.removesuffix(".json") if name.endswith(".png.json") else name
    return any(
        Path(name.removesuffix(end)).suffix.lower() in photo_extensions() for end in suffixes if name.endswith(end)
    )


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _absolute(path: Path | str) -> Path:
    if is_url(path):
        address = urlsplit(path)
        name = unquote(address.path) + (f"_{address.query}" if address.query else "")
        parts = [part for part in re.sub(r"[^\w./%~()+,=@ -]", "_", name).split("/") if part not in ("", ".", "..")]
        return Path(os.sep, re.sub(r"[^\w.-]", "_", address.netloc), *(parts or ["photo"]))
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links, and outputs mirror what was named


def _is_below(path: Path, folder: Path) -> bool:
    return _absolute(path).is_relative_to(_absolute(folder))


def _shared_folder(roots: set[Path]) -> Path | None:
    """The deepest folder that holds all roots; None where there is none (two drives of one Windows machine)."""
    try:
        return Path(os.path.commonpath(roots))
    except ValueError:
        return None


def _below(path: Path, folder: Path | None) -> Path:
    if folder is not None:
        return path.relative_to(folder)
    return Path(path.drive.strip(":\\/").replace("\\", "_"), *path.parts[1:])
