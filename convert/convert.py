"""Checkpoints both ways. Every source becomes one lazy table of tensors, `Weights`; every target is written from it.

Reading needs no torch and runs no code of the file; tensors are read, changed and written one at a time, so memory
stays near the size of the weights at most (our own folder, whose writer wants the whole tree) or of one tensor.
"""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

import dav2_jax
from dav2_jax.convert import hf_config
from dav2_jax.convert import recognize as recognize
from dav2_jax.convert.export_record import METADATA_KEY, from_record, to_record
from dav2_jax.convert.keymap import Entry, Names, entries
from dav2_jax.convert.recognize import Told
from dav2_jax.convert.stored_tensor import StoredTensor, listed
from dav2_jax.convert.torch_file import locate, open_state_dict
from dav2_jax.convert.torch_writer import write_safetensors, write_torch_file
from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import Kind, ModelConfig, Taps
from dav2_jax.model.depth_anything import Params
from dav2_jax.weights import checkpoint, hub
from dav2_jax.weights.checkpoint import Header

Target = Literal["checkpoint", "official", "hf"]
Stored = Literal["float32", "bfloat16", "float16"]
FLOATS = {np.dtype(dtype) for dtype in checkpoint.DTYPES.values()}


class Weights(NamedTuple):
    """A checkpoint whose tensors are still where they were.

    header:  what they are
    tensors: our dotted name -> tensor in our layout, read on demand
    """

    header: Header
    tensors: dict[str, StoredTensor]


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: Target = "checkpoint",
    dtype: str | None = None,
    kind: Kind | None = None,
    max_depth: float | None = None,
    taps: Taps | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> str:
    """Reads `src`, a path or a released name, and writes `dst`; returns a summary for people.

    to:    "checkpoint" (our folder), "official" (a `.pth` for the official code), "hf" (a folder for transformers)
    dtype: "float32", "bfloat16" or "float16"; None keeps each tensor as it is, so that out and back is bit-identical
    kind, max_depth, taps: only for what neither the tensors nor the file name of `src` say
    license: of the weights, in place of what `src` says
    Raises Dav2Error, with everything that is wrong in one line; `dst` is then left alone.
    """
    dst = Path(dst)
    if to not in get_args(Target):
        raise Dav2Error(f"to (--to) {to!r} is none of {', '.join(get_args(Target))}")
    if dtype not in (None, *get_args(Stored)):
        raise Dav2Error(f"dtype (--dtype) {dtype!r} is none of {', '.join(get_args(Stored))}")
    if to == "checkpoint" and dst.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise Dav2Error(f"{dst}: to checkpoint writes a folder of ours: add --to official, or call it {dst.stem}.ckpt")
    checkpoint.refuse_existing(dst, overwrite=overwrite)
    weights = open_source(hub.resolve(src), Told(kind, max_depth, taps))
    if dtype is not None:
        tensors = {n: _cast(t, checkpoint.DTYPES[dtype], f"{src}: {n}") for n, t in weights.tensors.items()}
        weights = weights._replace(tensors=tensors)
    if license is not None:
        weights = weights._replace(header=dataclasses.replace(weights.header, license=license))
    {"checkpoint": write_checkpoint, "official": write_official, "hf": write_hf}[to](dst, weights, overwrite=overwrite)
    return summary(weights, dst)


def open_source(
    src: str | Path,
    told: Told = Told(),  # noqa: B008 (a NamedTuple is immutable)
    *,
    entry: str | None = None,
    prefix: str | None = None,
) -> Weights:
    """Recognizes and opens a checkpoint of any kind this project reads: file or folder, PyTorch, Hugging Face or ours.

    told:   what the file does not say itself
    entry, prefix: which dict of a training checkpoint, and which of several networks in it; found where there is one
    Names, shapes and dtypes are all checked here, against the key table; no tensor is read yet. Raises Dav2Error.
    What was chosen, left out or filled in is said on stderr, and kept in the provenance under "notes".
    """
    path = Path(src)
    if checkpoint.is_checkpoint(path):
        header = checkpoint.load_header(path)
        refuse_contradiction(path, header.model, told)
        arrays = checkpoint.flatten(checkpoint.load_arrays(path, header.model))
        return Weights(header, {name: StoredTensor.of(array) for name, array in arrays.items()})

    file = locate(path)
    state, record = open_state_dict(file, entry=entry, prefix=prefix)
    shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
    scheme = recognize.scheme_of(str(file), shapes)
    folder = file if file.is_dir() else file.parent
    config = hf_config.read_config(folder, told) if scheme.startswith("hf") else None
    license = hf_config.read_license(folder) if config is not None or path.is_dir() else recognize.UNKNOWN_LICENSE
    recorded = None if record is None else from_record(str(file), record)
    if config is not None:
        refuse_contradiction(path, config, told)
        if recorded and license.lower() in (recorded.license.lower(), recognize.UNKNOWN_LICENSE):
            license = recorded.license  # as it was spelled before the hub's lower case
    elif recorded:
        config, license = recorded.model, recorded.license
        refuse_contradiction(path, config, told, "own record")
    else:
        names = _names(file)
        config = recognize.encoder_of(str(file), scheme, shapes)
        config = recognize.settle(str(path), config, recognize.told_by_file_name(*names), told)
        if license == recognize.UNKNOWN_LICENSE:
            licenses = (recognize.license_of(name, config) for name in names)
            license = next((found for found in licenses if found != recognize.UNKNOWN_LICENSE), license)
    tensors = map_tensors(str(path), state.tensors, config, scheme)
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
    return Weights(Header(config, license, provenance), tensors)


def _names(file: Path) -> list[str]:
    """What may be a released name in a path: the file's, or the repository's where every repository calls it so."""
    if not file.is_dir() and not re.fullmatch(r"(pytorch_)?model(\W.*)?", file.stem):
        return [file.stem]
    folders = list(file.parts[-3:] if file.is_dir() else file.parts[-3:-1])
    return [*reversed(folders), *(part.split("--")[-1] for part in file.parts if part.startswith("models--"))]


def refuse_contradiction(path: Path, config: ModelConfig, told: Told, file: str = "config.json") -> None:
    """Raises Dav2Error when a flag says something else than a checkpoint that says it all itself."""
    if contradiction := hf_config.contradiction(config, told, file):
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


def torch_tensors(weights: Weights, scheme: Names) -> dict[str, StoredTensor]:
    """The inverse of `map_tensors`: PyTorch's names and layouts."""
    tensors = {}
    for entry in entries(weights.header.model):
        ours = weights.tensors[entry.name]
        for index, name in enumerate(entry.names(scheme)):

            def read(ours=ours, entry=entry, index=index) -> np.ndarray:
                array = entry.to_torch(ours.read())
                parts = len(entry.names(scheme))
                return np.ascontiguousarray(np.split(array, parts)[index] if parts > 1 else array)

            tensors[name] = StoredTensor(entry.part_shape(scheme), ours.dtype, read)
    return tensors


def write_checkpoint(dst: Path, weights: Weights, *, overwrite: bool = False) -> None:
    """Our folder. Holds all weights in memory once."""
    params = checkpoint.unflatten({name: tensor.read() for name, tensor in weights.tensors.items()})
    checkpoint.save(dst, weights.header, params, overwrite=overwrite)


def write_official(dst: Path, weights: Weights, *, overwrite: bool = False) -> None:
    """A `.pth` state dict with the official names: of the depth model, or of DINOv2 for a bare encoder."""
    if dst.is_dir():
        raise Dav2Error(f"{dst} is a folder; the official format is one file, for example {dst.name}.pth")
    checkpoint.refuse_existing(dst, overwrite=overwrite)
    checkpoint.make_parent(dst)
    scheme = "dinov2" if weights.header.model.kind == "encoder" else "official"
    record = to_record(weights.header.model, weights.header.license)
    write_torch_file(dst, torch_tensors(weights, scheme), record)


def write_hf(dst: Path, weights: Weights, *, overwrite: bool = False) -> None:
    """A folder that `transformers` loads with `from_pretrained`."""
    config, license, provenance = weights.header.model, weights.header.license, weights.header.provenance
    if config.kind == "metric" and config.max_depth != int(config.max_depth):
        raise Dav2Error(f"transformers wants whole metres, and this model's max depth is {config.max_depth:g}")
    with checkpoint.new_folder(dst, overwrite=overwrite) as folder:
        scheme = "hf-dinov2" if config.kind == "encoder" else "hf"
        tensors = torch_tensors(weights, scheme)
        dtypes = {str(tensor.dtype) for tensor in tensors.values()}
        write_safetensors(
            folder / "model.safetensors", tensors, {"format": "pt", METADATA_KEY: to_record(config, license)}
        )
        values = hf_config.model_config_json(config) | {"dtype": dtypes.pop() if len(dtypes) == 1 else "float32"}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
        (folder / "preprocessor_config.json").write_text(
            json.dumps(hf_config.preprocessor_config_json(), indent=2) + "\n"
        )
        card = f"---\nlicense: {license.lower()}\n---\n" if license != recognize.UNKNOWN_LICENSE else ""
        (folder / "README.md").write_text(f"{card}\nConverted from {provenance['source']} by {provenance['by']}.\n")


def load_tensors(weights: Weights, dtype=jnp.float32) -> Params:
    """All weights as a tree of JAX arrays on the default device."""
    arrays = {n: jnp.asarray(_cast(t, np.dtype(dtype), n).read()) for n, t in weights.tensors.items()}
    return checkpoint.unflatten(arrays)


def _cast(tensor: StoredTensor, dtype, name: str) -> StoredTensor:
    """Reads as `dtype`, and raises Dav2Error instead of making numbers infinite."""
    dtype = np.dtype(dtype)
    if tensor.dtype == dtype:
        return tensor

    def read() -> np.ndarray:
        array = tensor.read()
        with np.errstate(over="ignore"):
            cast = array.astype(dtype)
        if dtype == np.float16 and (np.isinf(cast) & np.isfinite(array)).any():
            raise Dav2Error(f"{name} has values up to {np.abs(array).max():.3g}, too large for float16: use bfloat16")
        return cast

    return StoredTensor(tensor.shape, dtype, read)


def sha256(path: Path) -> str:
    """Of a file's bytes; of a folder, of its weight files' digests in name order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for pattern in ("*.safetensors", "*.bin") for file in path.glob(pattern))
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def summary(weights: Weights, dst: Path) -> str:
    """What was converted, in a few lines."""
    config, count = weights.header.model, sum(int(np.prod(t.shape)) for t in weights.tensors.values())
    files = [dst] if dst.is_file() else [file for file in dst.rglob("*") if file.is_file()]
    output = {"encoder": "features, no depth", "relative": "relative (disparity)"}.get(
        config.kind, f"metric (metres, up to {config.max_depth or 0:g})"
    )
    return "\n".join(
        [
            f"{dst}: {sum(file.stat().st_size for file in files) / 1e6:,.1f} MB",
            f"  model     {config.encoder}, {count / 1e6:,.1f} M parameters, {output}, taps {config.taps}",
            f"  license   {weights.header.license}",
            f"  source    {_source(weights.header.provenance)}",
        ]
    )


def _source(provenance: dict[str, str]) -> str:
    """Of a file with its checksum; weights that were trained here came from none."""
    checksum = provenance.get("sha256")
    return provenance["source"] + (f" (sha256 {checksum[:16]})" if checksum else "")
