"""Our checkpoint folder: weights, config, license and provenance, and nothing that could run code.

    small.ckpt/
      config.json    {"format": ..., "model": ModelConfig, "license": ..., "provenance": {...}, "files": {...}}
                     files: size and CRC-32 of each file below params/
      params/        an Orbax tree of arrays, uncompressed, path by path as `model.depth_anything` names them

This is the only file that imports Orbax.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.depth_anything import Params, abstract_params

FORMAT = "dav2_jax checkpoint 1"
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
# All that `save` and the Hugging Face writer make: a folder that holds anything else is never replaced.
OUR_FILES = {"config.json", "params", "model.safetensors", "preprocessor_config.json", "README.md"}


@dataclasses.dataclass(frozen=True)
class Header:
    """All of a checkpoint but its weights.

    license:    of the weights, as an SPDX name, or a sentence that says it is not known
    provenance: where the weights came from: source file or folder, its layout, its SHA-256, the program's version
    """

    model: ModelConfig
    license: str
    provenance: dict[str, str]


def is_checkpoint(path: Path) -> bool:
    """Whether `path` looks like a folder of ours (it may still be damaged)."""
    try:
        return json.loads((path / "config.json").read_text()).get("format", "").startswith("dav2_jax checkpoint")
    except (OSError, ValueError, AttributeError):
        return False


def save(path: Path, header: Header, params: Params, *, overwrite: bool = False) -> None:
    """Writes `params`, a tree of NumPy arrays, and its header. The folder appears whole or not at all.

    Memory: no copy of the weights is made. Raises Dav2Error when the disk is full, and when `path` exists, unless
    `overwrite` and it is a checkpoint.
    """
    path = Path(path).absolute()
    with new_folder(path, overwrite=overwrite) as folder:
        need = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        free = shutil.disk_usage(folder).free
        if free < 1.01 * need + 2**20:  # asked first, because Orbax takes a page to say so
            raise Dav2Error(f"{path}: no space left: {need / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free")
        try:
            with ocp.Checkpointer(_handler(), multiprocessing_options=_alone()) as checkpointer:
                checkpointer.save(folder / "params", args=ocp.args.PyTreeSave(params))
        except Exception as error:  # Orbax raises whatever its layers do
            raise Dav2Error(f"{path}: the weights cannot be written ({_first_line(error)})") from error
        files = sorted(file for file in (folder / "params").rglob("*") if file.is_file())
        fingerprints = {file.relative_to(folder).as_posix(): _fingerprint(file) for file in files}
        config = {"format": FORMAT} | dataclasses.asdict(header) | {"files": fingerprints}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_header(path: Path) -> Header:
    """Reads config.json. Raises Dav2Error when it is not ours or damaged."""
    path = Path(path).absolute()
    values = _read_config(path)
    try:
        license = values["license"] if "license" in values else values["licence"]  # the key of earlier versions
        return Header(ModelConfig.from_dict(values["model"]), license, values["provenance"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Dav2Error(f"{path}: config.json is damaged ({error}): convert the original weights again") from None


def load_params(path: Path, config: ModelConfig, dtype=jnp.float32) -> Params:
    """The weights as a tree of JAX arrays of `dtype` on the default device.

    Every file is checked against its checksum, and names, shapes and dtypes against `config`, before any array is read;
    all that does not fit is reported at once, as a Dav2Error.
    """
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return _load(path, config, lambda leaf: ocp.ArrayRestoreArgs(dtype=dtype, sharding=sharding))


def load_arrays(path: Path, config: ModelConfig) -> Params:
    """The same as NumPy arrays, each of the dtype in which it is stored."""
    return _load(path, config, lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype))


def _load(path: Path, config: ModelConfig, how) -> Params:
    path = Path(path).absolute()
    for name, fingerprint in _read_config(path).get("files", {}).items():
        if not (path / name).is_file() or _fingerprint(path / name) != fingerprint:
            raise Dav2Error(f"{path}: {name} is missing or damaged: copy the folder or convert the weights again")
    try:
        with ocp.Checkpointer(_handler(), multiprocessing_options=_alone()) as checkpointer:
            stored = flatten(checkpointer.metadata(path / "params").item_metadata.tree)
            _compare(path, flatten(abstract_params(config)), stored)
            restore = unflatten({name: how(leaf) for name, leaf in stored.items()})
            return checkpointer.restore(path / "params", args=ocp.args.PyTreeRestore(restore_args=restore))
    except Dav2Error:
        raise
    except Exception as error:  # Orbax raises whatever its layers do
        raise Dav2Error(f"{path}: the weights cannot be read ({_first_line(error)}): convert them again") from error


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _compare(path: Path, expected: dict, stored: dict) -> None:
    problems = [f"missing {name}" for name in expected if name not in stored]
    problems += [f"unknown {name}" for name in stored if name not in expected]
    for name in expected.keys() & stored.keys():
        if tuple(stored[name].shape) != expected[name].shape:
            problems.append(f"{name} is {tuple(stored[name].shape)}, not {expected[name].shape}")
        elif np.dtype(stored[name].dtype) not in map(np.dtype, DTYPES.values()):
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


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raises Dav2Error when `path` exists, unless `overwrite` and, if a folder, it holds nothing but what we write."""
    if not path.exists():
        return
    if not overwrite:
        raise Dav2Error(f"{path} exists: choose another name, or pass --overwrite")
    if path.is_dir():
        others = sorted({file.name for file in path.iterdir()} - OUR_FILES)
        if others or path.resolve() in (Path.cwd(), *Path.cwd().parents):
            why = f"holds {', '.join(others[:3])}" if others else "is the working directory or above it"
            raise Dav2Error(f"{path} is a folder of something else (it {why}): choose another name")


def make_parent(path: Path) -> None:
    """Creates the folders above `path`. Raises Dav2Error when it cannot."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Dav2Error(f"{path}: cannot be written ({error.strerror}): choose another place") from None


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False):
    """A temporary folder beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    path = Path(path).absolute()
    refuse_existing(path, overwrite=overwrite)
    if path.exists() and not path.is_dir():
        raise Dav2Error(f"{path} is a file, and this is to be a folder: choose another name")
    make_parent(path)
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir()
        yield folder
        if path.exists():
            old = folder.with_suffix(".old")
            path.rename(old)
            folder.rename(path)
            old.unlink() if old.is_symlink() else shutil.rmtree(old)
        else:
            folder.rename(path)
    except OSError as error:
        raise Dav2Error(f"{path}: cannot be written ({error.strerror or error}): choose another place") from None
    except Dav2Error as error:
        raise Dav2Error(str(error).replace(str(folder), str(path))) from None
    finally:
        for _ in range(20):  # threads of a save that failed may still be writing
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.05)


def flatten(tree: Params, prefix: str = "") -> dict:
    """{"a": {"b": x}} -> {"a.b": x}"""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def unflatten(flat: dict) -> Params:
    """{"a.b": x} -> {"a": {"b": x}}"""
    tree: Params = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
