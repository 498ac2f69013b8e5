"""Folders of ArrayRecord shards, as `prepare.py` makes them: read by random access, and checked.

    manifest.json                                  what is in it: counts, checksums, source, version; written last
    NAME-SPLIT.array_record-00000-of-00012         records of about the same number of examples each
    dataset_info.json, features.json               the same for TFDS: tfds.builder_from_directory(folder)

Reading needs neither TensorFlow nor TFDS, and imports no JAX: worker processes of a loader start fast and stay small.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dav2_jax.data import record_codec
from dav2_jax.data.example import Example
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error

MANIFEST = "manifest.json"
FORMAT = 1  # of manifest and records; raised when older ones can no longer be read

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def source(folder: Path, *, split: str = "train") -> Source:
    """The examples of a prepared folder, bit for bit as they were given, in their order, with their unit.

    Can be pickled, forked and read from any thread: each process opens a shard when it first needs it. An example that
    is damaged raises Dav2Error with its shard and its number there. Raises Dav2Error where the folder, or this split of
    it, is not prepared to the end.
    """
    manifest = read_manifest(folder)
    if split not in manifest["splits"]:
        raise Dav2Error(f"{folder}: has no split {split!r}: it has {', '.join(manifest['splits'])}")
    about = manifest["splits"][split]
    shards = about["shards"]
    names = shard_names(manifest["name"], split, len(shards))
    files = tuple((str(folder / name), shard["sha256"]) for name, shard in zip(names, shards, strict=True))
    for file, _ in files:
        if not Path(file).exists():
            raise Dav2Error(f"{file}: is missing: copy it again, or prepare again to write what is missing")
    ends = tuple(itertools.accumulate(shard["examples"] for shard in shards))
    missing = sum(len(shard["errors"]) for shard in shards)
    notes = (f"{missing:,} of {about['count']:,} could not be read when it was prepared",) if missing else ()
    read = functools.partial(_read, files, (0, *ends))
    return Source(about["source"], range(ends[-1]), read, about["unit"], notes)


def check(folder: Path, *, split: str | None = None, progress: bool = False) -> tuple[str, ...]:
    """One line for each shard that is missing or not what was written, by its SHA-256; none where all is well.

    split  only this one; None checks all. Raises Dav2Error where the folder is not prepared to the end.
    """
    manifest = read_manifest(folder)
    splits = {name: about for name, about in manifest["splits"].items() if split in (None, name)}
    if not splits:
        raise Dav2Error(f"{folder}: has no split {split!r}: it has {', '.join(manifest['splits'])}")
    size = sum(shard["bytes"] for about in splits.values() for shard in about["shards"])
    faults = []
    with tqdm(total=size, unit="B", unit_scale=True, disable=not progress, dynamic_ncols=True) as bar:
        for name, about in splits.items():
            for file, shard in zip(
                shard_names(manifest["name"], name, len(about["shards"])), about["shards"], strict=True
            ):
                fault = _fault(folder / file, shard)
                if fault:
                    faults.append(
                        f"{folder / file}: {fault}: delete it and prepare again, which writes what is missing"
                    )
                bar.update(shard["bytes"])
    return tuple(faults)


def is_prepared(folder: Path) -> bool:
    """Whether the folder holds records that were prepared to the end."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """{"name", "splits": {split: {"source", "unit", "count", "shards": [{"examples", "bytes", "sha256", "errors"}]}}}.

    Raises Dav2Error where there is none, or not one of this format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        begun = any(folder.glob("prepare-*.json"))
        raise Dav2Error(
            f"{folder}: is not prepared to the end: run the same prepare again, it goes on where it was"
            if begun
            else f"{folder}: has no {MANIFEST}, so it is no folder of records: make one with dav2 data prepare"
        ) from error
    except ValueError as error:
        raise Dav2Error(f"{path}: damaged ({error}): copy it again") from error
    try:
        if manifest["format"] != FORMAT:
            raise Dav2Error(f"{path}: of format {manifest['format']!r}, this version reads {FORMAT}: prepare it again")
        sane = bool(_NAME.fullmatch(manifest["name"])) and all(map(_NAME.fullmatch, manifest["splits"]))
        for about in manifest["splits"].values():
            sane &= isinstance(about["source"], str) and about["count"] >= 0 and isinstance(about["unit"], str)
            for shard in about["shards"]:
                sane &= shard["examples"] >= 0 and shard["bytes"] >= 0 and isinstance(shard["sha256"], str)
                sane &= isinstance(shard["errors"], list)
            sane &= len(about["shards"]) > 0
    except (KeyError, TypeError, AttributeError) as error:
        raise Dav2Error(f"{path}: is no manifest of records ({error!r})") from error
    if not sane:
        raise Dav2Error(f"{path}: is no manifest of records: copy it again")
    return manifest


def shard_names(name: str, split: str, count: int) -> list[str]:
    """The names of all shards of a split, as TFDS names them."""
    digits = max(5, len(str(count)))
    return [f"{name}-{split}.array_record-{shard:0{digits}}-of-{count:0{digits}}" for shard in range(count)]


def sha256(path: Path) -> str:
    """The checksum of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(files: tuple[tuple[str, str], ...], starts: tuple[int, ...], index: int) -> Example:
    shard = bisect.bisect_right(starts, index) - 1  # of several that start here, the last one: the others are empty
    number = index - starts[shard]
    file, checksum = files[shard]
    reader = _reader(file, checksum, os.getpid())
    if reader.num_records() != starts[shard + 1] - starts[shard]:
        raise Dav2Error(
            f"{file}: {reader.num_records():,} records, not {starts[shard + 1] - starts[shard]:,}: is it whole?"
        )
    try:
        return record_codec.decode(reader.read([number])[0])
    except Dav2Error as error:
        raise Dav2Error(f"{file}: record {number} {error}") from error
    except RuntimeError as error:  # of ArrayRecord, whose own checksums do not match
        reason = str(error).splitlines()[0].partition(";")[0]
        raise Dav2Error(f"{file}: record {number} is damaged ({reason}): copy the shard again") from error


@functools.lru_cache(maxsize=64)  # an open file each; of a thousand shards, not all can be open
def _reader(file: str, checksum: str, process: int):
    """An open shard. Of this process, because a reader does not survive a fork, and of this content."""
    from array_record.python.array_record_module import ArrayRecordReader

    Path(file).stat()  # ArrayRecord reports no missing file
    # Its defaults read ahead in threads of its own, which is for reading a whole file in order.
    reader = ArrayRecordReader(file, "readahead_buffer_size:0,max_parallelism:0")
    if not reader.ok():
        raise Dav2Error(f"{file}: is no ArrayRecord file, or is cut off: copy it again")
    return reader


def _fault(path: Path, shard: dict[str, Any]) -> str | None:
    if not path.exists():
        return "is missing"
    if path.stat().st_size != shard["bytes"]:
        return f"{path.stat().st_size:,} bytes, not {shard['bytes']:,}"
    return None if sha256(path) == shard["sha256"] else "damaged: its SHA-256 is not the one in the manifest"
