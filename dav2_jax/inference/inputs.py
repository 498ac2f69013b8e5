"""Photos to work on: files, folders, patterns and lists of paths become photos with the places of their outputs.

The naming rule. The output tree mirrors the input tree below the deepest folder that all arguments share, and an output
is named after the whole file name of its photo, extension included, plus the suffix of its format: `photos/a/x.jpg`,
given as `photos/`, goes to `a/x.jpg.color.png`. So x.jpg and x.png never meet, and where an output goes depends on what
was asked for, never on which other files lie in the folders: when photos are added, earlier outputs still match.

The folder of an argument is: a folder itself, the folder of a file, the part of a pattern before its first wildcard,
and for a line of a list the folder against which it was found (or its own, where it lies outside of that).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from dav2_jax.image.read import photo_extensions
from dav2_jax.inference.formats import FORMATS


class Input(NamedTuple):
    path: Path  # the photo, as it was given
    relative: Path  # below the output folder; an output is this plus the suffix of its format


def find_inputs(inputs: Sequence[str]) -> tuple[list[Input], list[str]]:
    """All photos that the arguments name, each once, in the order given and sorted within folders and patterns.

    inputs  files (any extension); folders (searched recursively, links followed; extensions that Pillow can open);
            patterns with * ? [] and ** for any depth; .txt lists with one path a line, relative to the list's folder or
            else to the working directory, where blank lines and lines that start with # do not count. Hidden files,
            hidden folders and our own pictures (x.jpg.color.png) are passed over in folders and patterns.

    Returns the photos, and one line for each argument (or line of a list) that gives none: "path: what: what to do".
    """
    found: list[Path] = []
    roots: set[Path] = set()
    problems: list[str] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            photos, folders = _in_folder(path, problems), [path]
        elif _is_pattern(text) and not path.exists():
            photos, folders = _in_pattern(text, problems)
        elif path.suffix.lower() == ".txt":
            photos, folders = _in_list(path, problems)
        elif path.exists():
            photos, folders = [path], [path.parent]
        else:
            problems.append(f"{text}: no such file or folder: check the path")
            photos, folders = [], [path.parent]
        found += photos
        roots.update(map(_absolute, folders))

    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(_absolute(path), path)
    shared = _shared_folder(roots)
    return [Input(path, _below(absolute, shared)) for absolute, path in unique.items()], problems


def _in_folder(folder: Path, problems: list[str]) -> list[Path]:
    photos, entered = [], set()
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
    if not photos:
        problems.append(f"{folder}: the folder holds no photo that Pillow can open: check the path")
    return sorted(photos, key=lambda path: path.parts)


def _in_pattern(pattern: str, problems: list[str]) -> tuple[list[Path], list[Path]]:
    matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    photos = sorted((path for path in matches if _is_photo(path.name) and path.is_file()), key=lambda path: path.parts)
    if not photos:
        problems.append(
            f"{pattern}: the pattern matches no photo: check it, and quote it so that the shell leaves it alone"
        )
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


def _is_photo(name: str) -> bool:
    """Whether a folder gives this file: an extension that Pillow opens, not hidden, not one of our own pictures."""
    pictures = [format.suffix for format in FORMATS.values() if format.suffix.endswith(".png")]
    ours = any(
        Path(name.removesuffix(end)).suffix.lower() in photo_extensions() for end in pictures if name.endswith(end)
    )
    return Path(name).suffix.lower() in photo_extensions() and not name.startswith(".") and not ours


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _absolute(path: Path) -> Path:
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
