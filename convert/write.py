"""Weights out: the official `.pth` and the folder of transformers, tensor by tensor."""

import json
import re
from pathlib import Path
from typing import Literal

import numpy as np

from dav2_jax.convert import hf_config
from dav2_jax.convert.export_record import METADATA_KEY, to_record
from dav2_jax.convert.keymap import Names, entries
from dav2_jax.convert.stored_tensor import StoredTensor
from dav2_jax.convert.torch_writer import write_safetensors, write_torch_file
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error
from dav2_jax.files import make_parent, new_folder, refuse_existing

Stored = Literal["float32", "bfloat16", "float16"]
# What folders of weights are made of, here and in `weights.checkpoint`: one that holds anything else is not replaced.
OUR_FILES = {"config.json", "params", "model.safetensors", "preprocessor_config.json", "README.md"}


def write_official(dst: Path, weights: Weights, *, overwrite: bool = False) -> None:
    """A `.pth` state dict with the official names: of the depth model, or of DINOv2 for a bare encoder."""
    if dst.is_dir():
        raise Dav2Error(f"{dst} is a folder; the official format is one file, for example {dst.name}.pth")
    refuse_existing(dst, overwrite=overwrite, ours=OUR_FILES)
    make_parent(dst)
    scheme = "dinov2" if weights.config.kind == "encoder" else "official"
    write_torch_file(dst, torch_tensors(weights, scheme), to_record(weights.config, weights.license))


def write_hf(dst: Path, weights: Weights, *, overwrite: bool = False) -> None:
    """A folder that `transformers` loads with `from_pretrained`."""
    config, license, provenance = weights.config, weights.license, weights.provenance
    if config.kind == "metric" and config.max_depth != int(config.max_depth):
        raise Dav2Error(f"transformers wants whole metres, and this model's max depth is {config.max_depth:g}")
    with new_folder(dst, overwrite=overwrite, ours=OUR_FILES) as folder:
        scheme = "hf-dinov2" if config.kind == "encoder" else "hf"
        tensors = torch_tensors(weights, scheme)
        dtypes = {str(tensor.dtype) for tensor in tensors.values()}
        metadata = {"format": "pt", METADATA_KEY: to_record(config, license)}
        write_safetensors(folder / "model.safetensors", tensors, metadata)
        values = hf_config.model_config_json(config) | {"dtype": dtypes.pop() if len(dtypes) == 1 else "float32"}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
        (folder / "preprocessor_config.json").write_text(
            json.dumps(hf_config.preprocessor_config_json(), indent=2) + "\n"
        )
        named = re.fullmatch(r"[\w.+-]+", license)  # the hub takes an identifier there, never a sentence
        card = f"---\nlicense: {license.lower()}\n---\n" if named else ""
        said = "" if named else f"License of the weights: {license}.\n"
        source, by = (provenance.get(key, "an unknown source") for key in ("source", "by"))
        (folder / "README.md").write_text(f"{card}\nConverted from {source} by {by}.\n{said}")


def torch_tensors(weights: Weights, scheme: Names) -> dict[str, StoredTensor]:
    """The inverse of `read.map_tensors`: PyTorch's names and layouts."""
    tensors, flat = {}, weights.flat
    for entry in entries(weights.config):
        leaf = flat[entry.name]
        for index, name in enumerate(entry.names(scheme)):

            def read(leaf=leaf, entry=entry, index=index) -> np.ndarray:
                array = entry.to_torch(np.asarray(leaf))
                parts = len(entry.names(scheme))
                return np.ascontiguousarray(np.split(array, parts)[index] if parts > 1 else array)

            tensors[name] = StoredTensor(entry.part_shape(scheme), np.dtype(leaf.dtype), read)
    return tensors


def cast(weights: Weights, dtype) -> Weights:
    """The same weights, read as `dtype`. Reading raises Dav2Error instead of making numbers infinite."""
    dtype = np.dtype(dtype)

    def one(name: str, leaf):
        def read() -> np.ndarray:
            array = np.asarray(leaf)
            with np.errstate(over="ignore"):
                narrow = array.astype(dtype)
            if dtype == np.float16 and (np.isinf(narrow) & np.isfinite(array)).any():
                largest = np.abs(array).max()
                source = weights.provenance.get("source", "weights")
                raise Dav2Error(f"{source}: {name} has values up to {largest:.3g}, too large for float16: use bfloat16")
            return narrow

        return leaf if leaf.dtype == dtype else StoredTensor(leaf.shape, dtype, read)

    return weights.map(one)
