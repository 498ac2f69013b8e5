"""Checkpoints of others in: PyTorch and Hugging Face files become `Weights`, whose tensors still lie in their files.

Needs no torch and runs no code of the file. Tensors are read one at a time, when they are asked for.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import dav2_jax
from dav2_jax.convert import hf_config, recognize
from dav2_jax.convert.keymap import Entry, Names, entries
from dav2_jax.convert.recognize import Overrides
from dav2_jax.convert.stored_tensor import FLOATS, StoredTensor
from dav2_jax.convert.torch_file import open_weights
from dav2_jax.convert.weights import Weights, nested
from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import ModelConfig


def read(path: Path, overrides: Overrides = Overrides()) -> Weights:  # noqa: B008 (a NamedTuple is immutable)
    """Recognizes and opens a checkpoint of PyTorch or of the Hugging Face hub, a file or a folder.

    overrides: what neither the tensors nor the file name say, or say wrongly
    Names, shapes and dtypes are all checked here, against the key table; no tensor is read yet. Raises Dav2Error.
    """
    stored = open_weights(path)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    scheme = recognize.scheme_of(str(path), shapes)
    folder = path if path.is_dir() else path.parent
    config = hf_config.read_config(folder) if scheme.startswith("hf") else None
    if config is not None:
        refuse_contradiction(path, config, overrides)
        license = hf_config.read_license(folder)
    else:
        stem = path.stem if path.is_file() else path.name
        config = recognize.encoder_of(str(path), scheme, shapes)
        config = recognize.resolve_config(str(path), config, recognize.told_by_file_name(stem), overrides)
        license = recognize.license_of(stem, config)
    params = nested(map_tensors(str(path), stored, config, scheme))
    provenance = {
        "source": path.name,
        "names": scheme,
        "sha256": sha256(path),
        "by": f"dav2_jax {dav2_jax.__version__}",
    }
    return Weights(config, params, license, provenance, stored, scheme)


def refuse_contradiction(path: Path, config: ModelConfig, overrides: Overrides) -> None:
    """Raises Dav2Error when a flag says something else than a checkpoint that says it all itself."""
    if contradiction := hf_config.contradiction(config, overrides):
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
        listed = "; ".join(f"{len(names)} {what}: {', '.join(names)}" for what, names in problems if names)
        raise Dav2Error(f"{where}: does not fit a {config.encoder} {config.kind} model: {listed}")
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
