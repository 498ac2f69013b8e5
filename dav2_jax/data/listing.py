"""The files of a dataset: listed fast, in an order that no file system decides, and what is said of those left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from dav2_jax.errors import Dav2Error


def files(root: Path, wanted: Callable[[str], bool] | tuple[str, ...]) -> list[str]:
    """Paths below `root`, with slashes, of the files whose name ends with one of these endings (in any case), or for
    whose name the function is true.

    Sorted by their parts, so that the files of a folder stay together. No file is opened. Hidden files and folders are
    passed over, links to folders are followed, and each folder is entered once. Raises Dav2Error where the root is no
    folder, or a folder below cannot be read.
    """
    if not root.is_dir():
        raise no_folder(root)
    if isinstance(wanted, tuple):
        endings = wanted
        wanted = lambda name: name.lower().endswith(endings)  # noqa: E731
    found: list[str] = []
    entered = {os.path.realpath(root)}
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in _entries(root, folder):
            if entry.name.startswith("."):
                continue
            path = f"{folder}{entry.name}"
            if not _is_folder(entry):
                if wanted(entry.name):
                    found.append(path)
            elif not entry.is_symlink():
                folders.append(path + "/")
            elif (real := os.path.realpath(entry.path)) not in entered:  # links can loop
                entered.add(real)
                folders.append(path + "/")
    return sorted(found, key=lambda path: path.split("/"))


def no_folder(root: Path) -> Dav2Error:
    """What is wrong with the root of a dataset that is no folder."""
    what = "is a file" if root.exists() else "no such folder"
    return Dav2Error(f"{root}: {what}: give the folder that holds the dataset")


def folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones; none where `root` is no folder."""
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in _entries(root, "") if _is_folder(entry) and not entry.name.startswith("."))


def stem(path: str) -> str:
    """The path without the ending of its name: `a.b/x.tar.gz` -> `a.b/x.tar`."""
    return os.path.splitext(path)[0]  # noqa: PTH122  a Path takes ten times as long, and datasets have millions


def ending(path: str) -> str:
    """The ending of the path's name, with its dot, in lower case: `a.b/x.JPG` -> `.jpg`."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122


def ids(names: Sequence[str]) -> list[str]:
    """An id for each path: without its ending and what leads out of a folder; where two would be the same, with ending
    or at last a number (`a/x`, `a/x.png`, `a/x.png#2`), so that each is unique.
    """
    names = ["/".join(part for part in name.split("/") if part not in ("", ".", "..")) for name in names]
    stems = Counter(map(stem, names))
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        id = short if stems[short := stem(name)] == 1 else name
        seen[id] += 1
        unique.append(id if seen[id] == 1 else f"{id}#{seen[id]}")
    return unique


def left_out(what: str, paths: Sequence[str | Path]) -> tuple[str, ...]:
    """For `Source.about`: how many were left out, and the first of them; nothing where none was."""
    return (f"{len(paths):,} {what} left out, the first is {paths[0]}",) if paths else ()


def nothing(root: Path, layout: str, missing: Sequence[str] = ()) -> Dav2Error:
    """The error for a folder that gives no example; `layout` says what was looked for, `missing` is from `left_out`."""
    return Dav2Error("; ".join([f"{root}: nothing to read: looked for {layout}", *missing]))


def _entries(root: Path, folder: str) -> list[os.DirEntry]:
    path = root / folder if folder else root
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        raise Dav2Error(f"{path}: {error.strerror}: check the permissions of the folder") from error


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
