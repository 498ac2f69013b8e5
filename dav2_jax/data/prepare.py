"""Any source, read once and kept as ArrayRecord shards: `records.py` reads them back, and so does TFDS.

Example i of the source is always in shard i // N, and a shard appears whole or not at all. So a run that was stopped in
any way is gone on with by the same call, and the shards are those of one that was never stopped, byte for byte.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import dav2_jax
from dav2_jax.data import record_codec, records, shard_writer, tfds_folder
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic, held, remove_leftovers

SHARD_BYTES = 256_000_000
_SAMPLES = 8  # examples that are read first, to learn their size and to know the source again


@dataclass(frozen=True)
class Report:
    """What a prepared split holds. `errors`: (number in the source, why) of each example that could not be read."""

    folder: Path
    split: str
    examples: int
    errors: tuple[tuple[int, str], ...]
    shards: int
    bytes: int
    written: int  # shards, by this call

    def __str__(self) -> str:
        failed = f"; {len(self.errors):,} could not be read and are left out" if self.errors else ""
        size = f"{self.examples:,} examples in {self.shards:,} shards, {self.bytes / 1e6:,.1f} MB"
        return f"{self.folder}, {self.split}: {size}{failed}"


def prepare(
    source: Source,
    folder: Path,
    *,
    split: str = "train",
    options: str = "",
    shard_bytes: int = SHARD_BYTES,
    shard_examples: int | None = None,
    jpeg: int | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Report:
    """Writes all examples of a source to a folder; one folder may hold several splits of one dataset.

    options         what made the source, in words: a resumed call must give the same
    shard_bytes     size of a shard, about: it is estimated from a few examples
    shard_examples  examples a shard, instead
    jpeg            quality of images as JPEG, 1 to 100; None keeps them bit-exact. Depth and the rest are always exact
    workers         threads that read and encode; None: as many as the machine has cores

    An example that raises Dav2Error is left out, named in the report and in the manifest. Called again, it goes on with
    the shards that are not there; when all are, it changes nothing. Raises Dav2Error where the folder was begun with
    other settings or holds something else, where another process is preparing it, where nothing can be read, and where
    the disk is full.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", split):
        raise Dav2Error(f"{split!r} is no name of a split: use small letters, digits and _, as in train or test_easy")
    if folder.is_file():
        raise Dav2Error(f"{folder}: is a file: name a folder")
    if not len(source):
        raise Dav2Error(f"{source.name}: has no examples to prepare")
    image = "png" if jpeg is None else f"jpeg {jpeg}"
    settings = {
        "source": source.name, "options": options, "count": len(source), "unit": source.unit, "image": image,
        "shard_examples": shard_examples, "shard_bytes": shard_bytes, "dav2_jax": dav2_jax.__version__,
    }  # fmt: skip
    name = re.sub(r"\W+", "_", source.name.lower(), flags=re.ASCII).strip("_")
    name = name if name[:1].isalpha() else f"d_{name}"  # TFDS wants a letter first
    workers = workers or os.cpu_count() or 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / ".prepare.lock", f"{folder}: another process is preparing it: wait for it, or stop it"):
            remove_leftovers([folder])
            return _prepare(source, folder, name, split, settings, jpeg, workers, progress)
    except OSError as error:
        raise Dav2Error(shard_writer.cannot_write(error.filename or folder, error.strerror or error)) from error


def _prepare(source, folder, name, split, settings, jpeg, workers, progress) -> Report:
    manifest = _manifest(folder, name)
    begun = folder / f"prepare-{split}.json"
    about = manifest["splits"].get(split) or _read_begun(begun)
    if about:
        _same_settings(folder, about, settings)
        _same_source(folder, about, source)
    else:
        about = settings | _plan(source, settings["shard_examples"], settings["shard_bytes"], jpeg)
        _write_json(begun, about)  # first of all: whatever else is found here later, it says of what it is a part
    shards, per_shard = about["shards"], about["per_shard"]
    files = [folder / one for one in records.shard_names(name, split, len(shards))]
    missing = [
        number
        for number, (shard, file) in enumerate(zip(shards, files, strict=True))
        if shard is None or not file.exists() or file.stat().st_size != shard["bytes"]
    ]
    places = {number: range(number * per_shard, min((number + 1) * per_shard, len(source))) for number in missing}
    done = len(source) - sum(map(len, places.values()))
    encoded = shard_writer.encoded(source, itertools.chain.from_iterable(places.values()), jpeg, workers)
    with (
        contextlib.closing(encoded),
        tqdm(total=len(source), initial=done, unit="example", disable=not progress, dynamic_ncols=True) as bar,
    ):
        for number in missing:
            shards[number] = shard_writer.write(files[number], itertools.islice(encoded, len(places[number])), bar)
            _write_json(begun, about)
    if missing or split not in manifest["splits"]:
        if not any(shard["examples"] for shard in shards):
            raise Dav2Error(f"none of {len(source):,} examples could be read: {shards[0]['errors'][0][1]}")
        about["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        manifest["splits"][split] = about
        for file, text in tfds_folder.metadata(manifest).items():
            _write_text(folder / file, text)
        _write_json(folder / records.MANIFEST, manifest)
    begun.unlink(missing_ok=True)
    errors = tuple((index, text) for shard in shards for index, text in shard["errors"])
    examples, size = (sum(shard[key] for shard in shards) for key in ("examples", "bytes"))
    return Report(folder, split, examples, errors, len(shards), size, len(missing))


def _manifest(folder: Path, name: str) -> dict[str, Any]:
    """The one of the folder, or a new one."""
    if records.is_prepared(folder):
        manifest = records.read_manifest(folder)
        if manifest["name"] != name:
            raise Dav2Error(f"{folder}: holds {manifest['name']}: prepare {name} in a folder of its own")
        return manifest
    if (folder / "dataset_info.json").exists() and not any(folder.glob("prepare-*.json")):
        raise Dav2Error(f"{folder}: holds another dataset of TFDS: prepare {name} in a folder of its own")
    return {"format": records.FORMAT, "name": name, "splits": {}}


def _plan(source: Source, per_shard: int | None, shard_bytes: int, jpeg: int | None) -> dict[str, Any]:
    """How many examples go to a shard, and what the source can be recognized by."""
    sizes, ids, reasons = [], {}, []
    for index in sorted({round(place * (len(source) - 1) / (_SAMPLES - 1)) for place in range(_SAMPLES)}):
        try:
            example = source[index]
            sizes.append(len(record_codec.encode(example, jpeg)))
            ids[str(index)] = example["id"]
        except Dav2Error as error:
            reasons.append(str(error))
    if not sizes:
        raise Dav2Error(f"none of the {len(reasons)} examples that were tried could be read: {reasons[0]}")
    per_shard = per_shard or max(1, int(shard_bytes * len(sizes) / sum(sizes)))
    shards = -(-len(source) // per_shard)
    return {"per_shard": per_shard, "samples": ids, "shards": [None] * shards}


def _read_begun(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Dav2Error(f"{path}: damaged ({error}): delete it to begin anew") from error


def _same_settings(folder: Path, about: dict[str, Any], settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        if about.get(key) != value:
            before = f"{key} {about.get(key)!r}, not {value!r}"
            raise Dav2Error(f"{folder}: was begun with {before}: give the same, or prepare in a new folder")


def _same_source(folder: Path, about: dict[str, Any], source: Source) -> None:
    for index, id in about["samples"].items():
        try:
            now = source[int(index)]["id"]
        except Dav2Error:
            continue  # it counts as any other that cannot be read; the others tell what the source is
        if now != id:
            raise Dav2Error(f"{folder}: example {index} was {id!r} and is now {now!r}: prepare in a new folder")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
