"""Files in the fixed layout of a dataset: found by pattern, paired, named by an author's list. Only lists are opened.

Paths are strings relative to the root, with "/" between folders. Their order never depends on the file system.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dav2_jax.data.listing import left_out, no_folder
from dav2_jax.errors import Dav2Error

Listing = tuple[list[str], tuple[str, ...]]  # images, and lines for Source.about


def find(root: Path, *patterns: str) -> list[str]:
    """Sorted paths below root that match any of the patterns ("*" does not cross folders).

    Raises Dav2Error where nothing matches; it names the folder above or below root that would do, if there is one.
    """
    found = {path.replace(os.sep, "/") for pattern in patterns for path in _matches(root, pattern)}
    if found:
        return sorted(found)
    if not root.is_dir():
        raise no_folder(root)
    wanted = patterns[0] + (f" (nor {len(patterns) - 1} patterns like it)" if len(patterns) > 1 else "")
    near = [*root.resolve().parents[:5], *sorted(path for path in root.iterdir() if path.is_dir())]
    for folder in near:
        if any(next(_matches(folder, pattern), None) for pattern in patterns):
            raise Dav2Error(f"{root}: no {wanted} below it, but below {folder}: give that folder")
    raise Dav2Error(f"{root}: no {wanted} below it: is the dataset unpacked, and is this its folder?")


def pair(images: list[str], depths: list[str], depth_of: Callable[[str], str]) -> Listing:
    """The images whose depth is there, and a line for each kind of half pair.

    depth_of   path of an image -> path of its depth
    """
    there, wanted = set(depths), {depth_of(image) for image in images}
    whole = [image for image in images if depth_of(image) in there]
    halves = [image for image in images if depth_of(image) not in there]
    bare = [depth for depth in depths if depth not in wanted]
    about = left_out("images without depth", halves) + left_out("depth files without an image", bare)
    return whole, about


def some(items: list, about: Sequence[str], where: object) -> list:
    """The items, or Dav2Error where there is none, with what was left out."""
    if not items:
        raise Dav2Error(f"{where}: not one whole example: {'; '.join(about) or 'nothing there'}")
    return items


def read_list(path: Path) -> list[list[str]]:
    """The fields of each line of a list of files, empty lines left out. Raises Dav2Error if it cannot be read."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise Dav2Error(f"{path}: {error.strerror}: give the path of a list of files") from error
    except UnicodeDecodeError as error:
        raise Dav2Error(f"{path}: is no text: give a list with the files of one example a line") from error
    entries = [line.split() for line in lines if line.strip()]
    if not entries:
        raise Dav2Error(f"{path}: an empty list")
    return entries


def chosen(images: list[str], path: Path, image_of: Callable[[list[str]], str] = lambda row: row[0]) -> Listing:
    """Those of the images that a list names, in its order, and a line on those that it names in vain.

    image_of   fields of a line -> the image. It may begin with folders of the author's machine, or be relative to a
               folder below root, if that leaves no doubt
    """
    there, by_tail = set(images), None
    found, missing = [], []
    for row in read_list(path):
        name = image_of(row).strip("/")
        image = next((tail for tail in _tails(name) if tail in there), None)
        if image is None:
            by_tail = by_tail or _by_tail(images)
            image = by_tail.get(name)
        if image is None:
            missing.append(image_of(row))
        else:
            found.append(image)
    return found, left_out(f"entries of {path.name} without an image and depth on disk", missing)


def _by_tail(paths: list[str]) -> dict[str, str | None]:
    """End of a path -> the path, or None where several paths end so."""
    known: dict[str, str | None] = {}
    for path in paths:
        for tail in _tails(path):
            known[tail] = None if tail in known else path
    return known


def _tails(path: str) -> Iterator[str]:
    """The path, and what is left of it without its first folder, without its first two, ..."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def split_choice(split: str | Path, names: tuple[str, ...]) -> str | None:
    """The split, if it is one of the names; None, if it is the path of a list. Raises Dav2Error for anything else."""
    if isinstance(split, str) and split in names:
        return split
    if Path(split).is_file():
        return None
    raise Dav2Error(f"no split {str(split)!r}: use {', '.join(names)} or the path of a list of files")


def _matches(root: Path, pattern: str) -> Iterator[str]:
    return glob.iglob(pattern, root_dir=root)  # noqa: PTH207 (Path.glob takes twice as long)
