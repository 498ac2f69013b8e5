"""One shard of records: examples read and encoded ahead by threads, and written as a whole or not at all."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dav2_jax.data import record_codec, records
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic


def encoded(source: Source, indices: Iterator[int], jpeg: int | None, workers: int) -> Iterator[tuple]:
    """(index, record, names of its fields, why not) of each, in order, a few made ahead by threads."""

    def encode(index: int):
        try:
            example = source[index]
            return index, record_codec.encode(example, jpeg), example.keys(), None
        except Dav2Error as error:
            return index, None, (), str(error)

    waiting: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in indices:
                waiting.append(pool.submit(encode, index))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def write(path: Path, encoded: Iterator[tuple], bar: tqdm) -> dict[str, Any]:
    """Writes a shard, and gives what the manifest says of it. Raises Dav2Error where the disk is full."""
    from array_record.python.array_record_module import ArrayRecordWriter

    count, errors, fields = 0, [], set()
    with atomic(path) as temporary:
        # One record a group, for random access; pictures do not become smaller by compressing them again.
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
        try:
            for index, record, names, error in encoded:
                if record is None:
                    errors.append((index, error))
                else:
                    writer.write(record)
                    count += 1
                    fields.update(names)
                bar.update()
        finally:
            try:
                writer.close()  # where it says that the disk is full, and not before
            except RuntimeError as error:
                reason = str(error).partition(";")[0].removeprefix("write() failed: ")
                raise Dav2Error(cannot_write(path, reason)) from error
        about = {"examples": count, "bytes": temporary.stat().st_size, "sha256": records.sha256(temporary)}
    return {**about, "fields": sorted(fields), "errors": errors}


def cannot_write(path, reason) -> str:
    """What a user is told of a file that could not be written."""
    return f"{path}: cannot be written ({reason}): see to space and rights there, then repeat the command: it goes on"
