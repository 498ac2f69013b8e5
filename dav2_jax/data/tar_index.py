"""Random access to the files in a .tar: their offsets are read once, from the headers; nothing is unpacked.

Reads the formats that tar programs write today: ustar, GNU (long names) and pax (long names and sizes). Sources: POSIX
pax (IEEE Std 1003.1, "pax Interchange Format") and the GNU tar manual, "Basic Tar Format". Python's `tarfile` takes a
damaged header for the end of the file, without a word, and does not see that a member is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dav2_jax.errors import Dav2Error

_BLOCK = 512
_MAX_NAME = 1 << 20  # bytes of a long name, or of a pax header
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    name: str  # as stored, without a leading ./ ; only a name, never a place to write to
    offset: int  # of the first byte in the .tar
    size: int  # bytes


def members(path: Path) -> Iterator[Member]:
    """The regular files in a .tar, in their order there; of two of the same name, both.

    Raises Dav2Error, in one line that starts with the path, where the file is compressed (no random access), cut off or
    damaged; whatever it claims, no more is read than its headers.
    """
    with path.open("rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        start = file.read(6)
        for magic, program in _COMPRESSED.items():
            if start.startswith(magic):
                raise Dav2Error(f"{path}: is compressed with {program}, so single files cannot be reached: unpack it")
        offset, long_name, long_size = 0, None, None
        while offset < total:
            file.seek(offset)
            header = file.read(_BLOCK)
            if len(header) == _BLOCK and not any(header):
                return  # the end mark
            name, size, kind = _parse(path, header, offset)
            if kind not in b"Lxg" and long_size is not None:
                size = long_size
            data = offset + _BLOCK
            if data + size > total:
                raise Dav2Error(f"{path}: is cut off: {name!r} should end at byte {data + size:,} of {total:,}")
            if kind in b"Lx":
                if size > _MAX_NAME:
                    raise Dav2Error(f"{path}: damaged: a name of {size:,} bytes at byte {offset:,}")
                text = file.read(size)
                if kind == b"L":
                    long_name = text.partition(b"\0")[0].decode("utf-8", "replace")
                else:
                    records = _pax(path, text, offset)
                    long_name = records.get("path", long_name)
                    long_size = _number(path, records["size"].encode(), offset, 10) if "size" in records else long_size
            elif kind in b"0\0" + b"7":
                yield Member((long_name or name).removeprefix("./"), data, size)
            if kind not in b"LKxg":
                long_name = long_size = None
            offset = data + -(-size // _BLOCK) * _BLOCK


def read(path: Path, name: str, offset: int, size: int) -> bytes:
    """The bytes of a member. Raises Dav2Error where the .tar has become shorter, and FileNotFoundError."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < offset + size:
            raise Dav2Error(f"{path}: has changed: {name} is no longer whole in it")
        file.seek(offset)
        return file.read(size)


def _parse(path: Path, header: bytes, offset: int) -> tuple[str, int, bytes]:
    """Name, size in bytes and kind of the entry. Links and folders have no data, whatever size they state."""
    if len(header) < _BLOCK:
        raise Dav2Error(f"{path}: is cut off at byte {offset + len(header):,}, within a header")
    if _number(path, header[148:156], offset) != sum(header) - sum(header[148:156]) + 8 * 32:
        what = "is no .tar file" if offset == 0 else f"damaged: no header at byte {offset:,}"
        raise Dav2Error(f"{path}: {what} (the checksum does not match)")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    kind = header[156:157]
    if kind == b"S":
        raise Dav2Error(f"{path}: holds a sparse file at byte {offset:,}, which is not read: write it without --sparse")
    size = 0 if kind in b"123456" else _number(path, header[124:136], offset)
    return name.decode("utf-8", "replace"), size, kind


def _number(path: Path, field: bytes, offset: int, base: int = 8) -> int:
    """Octal text, or with the highest bit set a binary number (GNU, for files beyond 8 GiB)."""
    try:
        value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.strip(b"\0 ") or b"0", base)
    except ValueError:
        value = -1
    if value < 0:
        raise Dav2Error(f"{path}: {'is no .tar file' if offset == 0 else f'damaged: no header at byte {offset:,}'}")
    return value


def _pax(path: Path, text: bytes, offset: int) -> dict[str, str]:
    """Records `length key=value newline`, where the length counts the whole record."""
    records, start = {}, 0
    while start < len(text) and text[start]:
        digits, space, _ = text[start : start + 20].partition(b" ")
        end = start + int(digits) if space and digits.isdigit() else 0
        key, equals, value = text[start + len(digits) + 1 : end].partition(b"=")
        if not (start < end <= len(text) and equals and value.endswith(b"\n")):
            raise Dav2Error(f"{path}: damaged: no pax header at byte {offset:,}")
        records[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "replace")
        start = end
    return records
