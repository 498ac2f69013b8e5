"""Our checkpoint folder: weights, config, license and provenance, and nothing that could run code.

small.ckpt/
  config.json    {"format": ..., "model": ModelConfig, "license": ..., "provenance": {...}, "files": {...}}
                 files: size and CRC-32 of each file below params/
  params/        an Orbax tree of arrays, uncompressed, path by path as `model.depth_anything` names them
"""

import dataclasses
import json
import shutil
import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from dav2_jax.convert.stored_tensor import FLOATS
from dav2_jax.convert.weights import Weights
from dav2_jax.convert.write import OUR_FILES
from dav2_jax.errors import Dav2Error, first_line
from dav2_jax.files import new_folder
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.depth_anything import abstract_params

FORMAT = "dav2_jax checkpoint 1"


def is_checkpoint(path: Path) -> bool:
    """Whether `path` looks like a folder of ours (it may still be damaged)."""
    try:
        return json.loads((path / "config.json").read_text()).get("format", "").startswith("dav2_jax checkpoint")
    except (OSError, ValueError, AttributeError):
        return False


def save(path: Path, weights: Weights, *, overwrite: bool = False) -> None:
    """Writes the weights, held in memory once. The folder appears whole or not at all.

    Raises Dav2Error when the disk is full, and when `path` exists, unless `overwrite` and it is a checkpoint.
    """
    path = Path(path).absolute()
    with new_folder(path, overwrite=overwrite, ours=OUR_FILES) as folder:
        params = jax.tree.map(np.asarray, weights.params)
        need = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        free = shutil.disk_usage(folder).free
        if free < 1.01 * need + 2**20:  # asked first, because Orbax takes a page to say so
            raise Dav2Error(f"{path}: no space left: {need / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free")
        try:
            with ocp.Checkpointer(_handler(), multiprocessing_options=_alone()) as checkpointer:
                checkpointer.save(folder / "params", args=ocp.args.PyTreeSave(params))
        except Exception as error:  # Orbax raises whatever its layers do
            raise Dav2Error(f"{path}: the weights cannot be written ({first_line(error)})") from error
        files = sorted(file for file in (folder / "params").rglob("*") if file.is_file())
        config = {
            "format": FORMAT,
            "model": dataclasses.asdict(weights.config),
            "license": weights.license,
            "provenance": weights.provenance,
            "files": {file.relative_to(folder).as_posix(): _fingerprint(file) for file in files},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load(path: Path) -> Weights:
    """The weights as NumPy arrays, each of the dtype in which it is stored.

    Every file is checked against its checksum, and names, shapes and dtypes against the config, before any array is
    read; all that does not fit is reported at once, as a Dav2Error.
    """
    path = Path(path).absolute()
    values = _read_config(path)
    try:
        config = ModelConfig.from_dict(values["model"])
        license = values["license"] if "license" in values else values["licence"]  # the key of earlier versions
        weights = Weights(config, {}, license, values["provenance"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Dav2Error(f"{path}: config.json is damaged ({error}): convert the original weights again") from None
    for name, fingerprint in values.get("files", {}).items():
        if not (path / name).is_file() or _fingerprint(path / name) != fingerprint:
            raise Dav2Error(f"{path}: {name} is missing or damaged: copy the folder or convert the weights again")
    try:
        with ocp.Checkpointer(_handler(), multiprocessing_options=_alone()) as checkpointer:
            stored = checkpointer.metadata(path / "params").item_metadata.tree
            _compare(path, flatten_dict(abstract_params(config), sep="."), flatten_dict(stored, sep="."))
            how = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype), stored)
            params = checkpointer.restore(path / "params", args=ocp.args.PyTreeRestore(restore_args=how))
    except Dav2Error:
        raise
    except Exception as error:  # Orbax raises whatever its layers do
        raise Dav2Error(f"{path}: the weights cannot be read ({first_line(error)}): convert them again") from error
    return weights.replace(params=params)


def _read_config(path: Path) -> dict:
    try:
        values = json.loads((path / "config.json").read_text())
        if not isinstance(values, dict) or not isinstance(values.get("files", {}), dict):
            raise ValueError("not the JSON of a checkpoint")
    except (OSError, ValueError) as error:
        raise Dav2Error(f"{path}: config.json is damaged ({error}): convert the original weights again") from None
    if values.get("format") != FORMAT:
        raise Dav2Error(
            f"{path}: written in format {values.get('format')!r}, and this program reads {FORMAT!r}: "
            "convert the original weights again"
        )
    return values


def _fingerprint(file: Path) -> dict[str, int]:
    """Size and CRC-32 of a file: what a broken copy changes."""
    crc, size = 0, 0
    with file.open("rb") as stream:
        while chunk := stream.read(2**24):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return {"bytes": size, "crc32": crc}


def _compare(path: Path, expected: dict, stored: dict) -> None:
    problems = [f"missing {name}" for name in expected if name not in stored]
    problems += [f"unknown {name}" for name in stored if name not in expected]
    for name in expected.keys() & stored.keys():
        if tuple(stored[name].shape) != expected[name].shape:
            problems.append(f"{name} is {tuple(stored[name].shape)}, not {expected[name].shape}")
        elif np.dtype(stored[name].dtype) not in FLOATS:
            problems.append(f"{name} is {stored[name].dtype}, not a float")
    if problems:
        raise Dav2Error(f"{path}: the weights do not fit config.json: " + "; ".join(sorted(problems)))


def _handler() -> ocp.PyTreeCheckpointHandler:
    """Host arrays are written in place (no copy) and uncompressed (8 % smaller would take 3 times as long)."""
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        (np.ndarray, handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, handlers.ArrayHandler()),
    )
    return ocp.PyTreeCheckpointHandler(
        save_concurrent_gb=1,
        use_compression=False,
        type_handler_registry=registry,
        multiprocessing_options=_alone(),
    )


def _alone() -> ocp.options.MultiprocessingOptions:
    """This process reads and writes by itself: Orbax would wait for all others of a pod."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process {me}"
    )
