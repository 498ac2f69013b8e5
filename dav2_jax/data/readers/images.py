"""Photos without depth: a folder of any shape, .tar shards (as webdataset has them), or a text file with paths.

    a folder    every photo below it, at any depth, and every photo in every .tar below it
    a .tar      every photo in it; the shards are read in place, by position, and never unpacked
    a .txt      one path a line, relative to the folder of the .txt; blank lines and comments (# ...) do not count

A photo is what Pillow can open, told by the ending of its name; other files, hidden ones, and the pictures that
`dav2 predict` writes (x.jpg.color.png) are passed over. The names in a .tar are names only: `../x.jpg` leads nowhere.
Compressed shards (.tar.gz) have no random access and are not looked for.

The id is the path below the root without its ending, for a member with that of its .tar before it; see `listing.ids`
for photos that would share one (x.jpg and x.png; a name that a .tar has twice).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from dav2_jax.data import listing, tar_index
from dav2_jax.data.example import Example
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import photo_extensions, read_image

# Of `inference.formats.FORMATS`, which data may not import; a test compares the two.
PICTURES = (".color.png", ".gray.png", ".png16.png", ".side-by-side.png")


class InTar(NamedTuple):
    """A photo in a shard."""

    id: str
    tar: str  # below the root
    member: tar_index.Member


def source(root: Path) -> Source:
    """Photos without labels; `root` is a folder, a .tar or a .txt.

    Raises Dav2Error where nothing is found, or a shard or the list cannot be read.
    """
    about: tuple[str, ...] = ()
    if root.suffix.lower() == ".txt" and root.is_file():
        paths, about = _listed(root)
        root = root.parent
    elif root.suffix.lower() == ".tar" and root.is_file():
        paths, root = [root.name], root.parent
    else:
        paths = listing.files(root, lambda name: is_photo(name) or name.lower().endswith(".tar"))
    names: list[tuple[str, str | InTar]] = []
    for path in paths:
        if path.lower().endswith(".tar"):
            for member in tar_index.members(root / path):
                if is_photo(member.name.rpartition("/")[2]):
                    names.append((f"{listing.stem(path)}/{member.name}", InTar("", path, member)))
        else:
            names.append((path, path))
    if not names:
        raise listing.nothing(root, "photos that Pillow can open, or .tar files with such", about)
    ids = listing.ids([name for name, _ in names])
    items = [
        item._replace(id=id) if isinstance(item, InTar) else (id, item)
        for id, (_, item) in zip(ids, names, strict=True)
    ]
    return Source("images", items, partial(_read, root), unit="none", about=about)


def is_photo(name: str) -> bool:
    """Whether a file of this name counts: an ending that Pillow opens, not hidden, not one of our own pictures."""
    ending = listing.ending(name)
    if ending not in photo_extensions() or name.startswith("."):
        return False
    return not any(
        name.endswith(end) and listing.ending(name.removesuffix(end)) in photo_extensions() for end in PICTURES
    )


def _listed(path: Path) -> tuple[list[str], tuple[str, ...]]:
    try:
        lines = map(str.strip, path.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise Dav2Error(f"{path}: is no text in UTF-8: give a list with one path a line") from error
    paths = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    missing = [line for line in paths if not (path.parent / line).is_file()]
    gone = set(missing)
    return [line for line in paths if line not in gone], listing.left_out("listed files that are not there", missing)


def _read(root: Path, item: tuple[str, str] | InTar) -> Example:
    if not isinstance(item, InTar):
        id, path = item
        return Example(id=id, image=read_image(root / path)[0])
    return Example(id=item.id, image=read_from_tar(root / item.tar, item.member))


def read_from_tar(tar: Path, member: tar_index.Member):
    """uint8 [H, W, 3] of a photo in a .tar; whatever fails names both."""
    data = tar_index.read(tar, *member)
    try:
        return read_image(data)[0]
    except Dav2Error as error:
        raise Dav2Error(f"{tar}: {member.name}: {error}") from error
