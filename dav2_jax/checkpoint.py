"""Our checkpoint folder: weights, config, licence and provenance, and nothing that could run code.

    small.ckpt/
      config.json    {"format": ..., "model": ModelConfig, "licence": ..., "provenance": {...}, "files": {name: bytes}}
      params/        an Orbax tree of arrays, uncompressed, path by path as `model.depth_anything` names them

This is the only file that imports Orbax.
"""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.depth_anything import Params, abstract_params

FORMAT = "dav2_jax checkpoint 1"
DTYPES = {"float16": np.float16, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


@dataclasses.dataclass(frozen=True)
class Header:
    """All of a checkpoint but its weights.

    licence:    of the weights, as an SPDX name, or a sentence that says it is not known
    provenance: where the weights came from: source file or folder, its layout, its SHA-256, the program's version
    """

    model: ModelConfig
    licence: str
    provenance: dict[str, str]


def is_checkpoint(path: Path) -> bool:
    """Whether `path` looks like a folder of ours (it may still be damaged)."""
    try:
        return json.loads((path / "config.json").read_text()).get("format", "").startswith("dav2_jax checkpoint")
    except (OSError, ValueError, AttributeError):
        return False


def save(path: Path, header: Header, params: Params, *, overwrite: bool = False) -> None:
    """Writes `params`, a tree of NumPy arrays, and its header. The folder appears whole or not at all.

    Memory: no copy of the weights is made. Raises Dav2Error when `path` exists, unless `overwrite`.
    """
    path = Path(path).absolute()
    with new_folder(path, overwrite=overwrite) as folder:
        with ocp.Checkpointer(_handler()) as checkpointer:
            checkpointer.save(folder / "params", args=ocp.args.PyTreeSave(params))
        files = sorted(file for file in (folder / "params").rglob("*") if file.is_file())
        sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
        config = {"format": FORMAT} | dataclasses.asdict(header) | {"files": sizes}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_header(path: Path) -> Header:
    """Reads config.json. Raises Dav2Error when it is not ours or damaged, or when a file of the folder is not whole."""
    path = Path(path).absolute()
    try:
        values = json.loads((path / "config.json").read_text())
        files = dict(values.get("files", {}))
        if values.get("format") != FORMAT:
            raise Dav2Error(
                f"{path}: written in format {values.get('format')!r}, and this program reads {FORMAT!r}: "
                "convert the original weights again"
            )
        for name, size in files.items():  # a half-copied folder: Orbax would say so in a page
            if not (path / name).is_file() or (path / name).stat().st_size != size:
                raise Dav2Error(f"{path}: {name} is missing or not of its {size:,} bytes: copy the folder again")
        return Header(ModelConfig.from_dict(values["model"]), values["licence"], values["provenance"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Dav2Error(f"{path}: config.json is damaged ({error}): convert the original weights again") from None


def load_params(path: Path, config: ModelConfig, dtype=None) -> Params:
    """The weights as a tree of JAX arrays on the default device, cast to `dtype` (None keeps what is stored).

    Names, shapes and dtypes are checked against `config` before any array is read, and all that is wrong is reported
    at once, as a Dav2Error.
    """
    folder = Path(path).absolute() / "params"
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    expected = flatten(abstract_params(config))
    try:
        with ocp.Checkpointer(_handler()) as checkpointer:
            stored = flatten(checkpointer.metadata(folder).item_metadata.tree)
            _compare(path, expected, stored)
            target = {
                name: jax.ShapeDtypeStruct(leaf.shape, dtype or stored[name].dtype, sharding=sharding)
                for name, leaf in expected.items()
            }
            restore = ocp.checkpoint_utils.construct_restore_args(unflatten(target))
            args = ocp.args.PyTreeRestore(unflatten(target), restore_args=restore)
            return checkpointer.restore(folder, args=args)
    except Dav2Error:
        raise
    except Exception as error:  # Orbax raises whatever its layers do
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Dav2Error(f"{path}: the weights cannot be read ({reason[:300]}): convert them again") from error


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
    return ocp.PyTreeCheckpointHandler(save_concurrent_gb=1, use_compression=False, type_handler_registry=registry)


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False):
    """A temporary folder beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise Dav2Error(f"{path} exists: choose another name, or pass --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp makes private folders
        if path.is_dir() and not path.is_symlink():
            old = folder.with_suffix(".old")
            path.rename(old)
            folder.rename(path)
            shutil.rmtree(old)
        else:
            path.unlink(missing_ok=True)
            folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
