"""Checkpoints of others in: PyTorch and Hugging Face files become `Weights`, whose tensors still lie in their files.

Needs no torch and runs no code of the file. Tensors are read one at a time, when they are asked for.
"""

import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import dav2_jax
from dav2_jax.convert import hf_config, recognize
from dav2_jax.convert.export_record import from_record
from dav2_jax.convert.keymap import Entry, Names, entries
from dav2_jax.convert.recognize import UNKNOWN_LICENSE, Overrides
from dav2_jax.convert.stored_tensor import FLOATS, StoredTensor, listed
from dav2_jax.convert.torch_file import locate, open_state_dict
from dav2_jax.convert.weights import Weights, nested
from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import ModelConfig


def read(path: Path, overrides: Overrides = Overrides()) -> Weights:  # noqa: B008 (a NamedTuple is immutable)
    """Recognizes and opens a checkpoint of PyTorch or of the Hugging Face hub, a file or a folder.

    overrides: what neither the tensors nor the file name say, or say wrongly; which dict of a training checkpoint, and
               which of several networks in it
    Names, shapes and dtypes are all checked here, against the key table; no tensor is read yet. Raises Dav2Error.
    What was chosen, left out or filled in is said on stderr, and kept in the provenance under "notes".
    """
    path = Path(path)
    file = locate(path)
    state, record = open_state_dict(file, entry=overrides.entry, prefix=overrides.prefix)
    shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
    scheme = recognize.scheme_of(str(file), shapes)
    config, license = _config(path, file, scheme, shapes, record, overrides)
    params = nested(map_tensors(str(path), state.tensors, config, scheme))
    provenance = {
        "source": path.name or file.name,
        "names": scheme,
        "sha256": sha256(file),
        "by": f"dav2_jax {dav2_jax.__version__}",
    }
    provenance |= {key: value for key, value in (("entry", state.entry), ("prefix", state.prefix)) if value}
    if state.notes:
        print(f"{path}: note: {'; '.join(state.notes)}", file=sys.stderr)
        provenance["notes"] = "; ".join(state.notes)
    return Weights(config, params, license, provenance, state.tensors, scheme)


def _config(path: Path, file: Path, scheme: Names, shapes, record, overrides: Overrides) -> tuple[ModelConfig, str]:
    """The network and the license: by config.json, our own record in the file, or names and overrides."""
    folder = file if file.is_dir() else file.parent
    config = hf_config.read_config(folder, overrides) if scheme.startswith("hf") else None
    license = hf_config.read_license(folder) if config is not None or path.is_dir() else UNKNOWN_LICENSE
    recorded = None if record is None else from_record(str(file), record)
    if config is not None:
        refuse_contradiction(path, config, overrides)
        if recorded and license.lower() in (recorded.license.lower(), UNKNOWN_LICENSE):
            license = recorded.license  # as it was spelled before the hub's lower case
        return config, license
    if recorded:
        refuse_contradiction(path, recorded.config, overrides, "own record")
        return recorded.config, recorded.license
    names = _names(file)
    config = recognize.encoder_of(str(file), scheme, shapes)
    config = recognize.resolve_config(str(path), config, recognize.said_by_file_name(*names), overrides)
    if license == UNKNOWN_LICENSE:
        licenses = (recognize.license_of(name, config) for name in names)
        license = next((found for found in licenses if found != UNKNOWN_LICENSE), license)
    return config, license


def _names(file: Path) -> list[str]:
    """What may be a released name in a path: the file's, or the repository's where every repository calls it so."""
    if not file.is_dir() and not re.fullmatch(r"(pytorch_)?model(\W.*)?", file.stem):
        return [file.stem]
    folders = list(file.parts[-3:] if file.is_dir() else file.parts[-3:-1])
    return [*reversed(folders), *(part.split("--")[-1] for part in file.parts if part.startswith("models--"))]


def refuse_contradiction(path: Path, config: ModelConfig, overrides: Overrides, file: str = "config.json") -> None:
    """Raises Dav2Error when an override says something else than a checkpoint that says it all itself."""
    if contradiction := hf_config.contradiction(config, overrides, file):
        raise Dav2Error(f"{path}: {contradiction}")


def map_tensors(
    where: str, stored: Mapping[str, StoredTensor], config: ModelConfig, scheme: Names
) -> dict[str, StoredTensor]:
    """The stored tensors under our names and in our layouts: one-to-one and total, or a Dav2Error that lists it all."""
    table = entries(config)
    known = {part for entry in table for part in entry.names(scheme)}
    unknown = [name for name in stored if name not in known]
    missing, misshapen = [], []
    for entry in table:
        for part in entry.names(scheme):
            if part not in stored:
                missing.append(part)
            elif stored[part].shape != entry.part_shape(scheme):
                misshapen.append(f"{part} is {list(stored[part].shape)}, not {list(entry.part_shape(scheme))}")
            elif stored[part].dtype not in FLOATS:
                misshapen.append(f"{part} is {stored[part].dtype}, not a float")
    problems = [("missing", missing), ("unknown", unknown), ("wrong", misshapen)]
    if any(names for _, names in problems):
        each = "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in problems if names)
        raise Dav2Error(f"{where}: does not fit a {config.encoder} {config.kind} model: {each}")
    return {entry.name: _ours(entry, [stored[part] for part in entry.names(scheme)]) for entry in table}


def _ours(entry: Entry, parts: list[StoredTensor]) -> StoredTensor:
    def read() -> np.ndarray:
        arrays = [part.read() for part in parts]
        return np.ascontiguousarray(entry.from_torch(np.concatenate(arrays) if len(arrays) > 1 else arrays[0]))

    return StoredTensor(entry.shape, np.result_type(*(part.dtype for part in parts)), read)


def sha256(path: Path) -> str:
    """Of a file's bytes; of a folder, of its weight files' digests in name order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for pattern in ("*.safetensors", "*.bin") for file in path.glob(pattern))
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()
