"""`dav2 convert`: weights of any kind in, a checkpoint folder, an official `.pth` or a Hugging Face folder out."""

import math
from pathlib import Path
from typing import Literal, get_args

from dav2_jax.convert.recognize import Overrides
from dav2_jax.convert.stored_tensor import DTYPES
from dav2_jax.convert.weights import Weights
from dav2_jax.convert.write import OUR_FILES, Stored, cast, write_hf, write_official
from dav2_jax.errors import Dav2Error, InvalidValueError
from dav2_jax.files import refuse_existing
from dav2_jax.model.config import Kind, Taps
from dav2_jax.weights import checkpoint
from dav2_jax.weights.load import load_weights

Target = Literal["checkpoint", "official", "hf"]
WRITERS = {"checkpoint": checkpoint.save, "official": write_official, "hf": write_hf}


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: Target = "checkpoint",
    dtype: str | None = None,
    kind: Kind | None = None,
    max_depth: float | None = None,
    taps: Taps | None = None,
    entry: str | None = None,
    prefix: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> str:
    """Reads `src`, a path or a released name, and writes `dst`; returns a summary for people.

    kind, max_depth, taps: only for what neither the tensors nor the file name of `src` say
    entry, prefix: of a training checkpoint with several, the dict to take, and how the names of its tensors begin
    license: of the weights, in place of what `src` says
    Other arguments and errors as in `save`.
    """
    _check(Path(dst), to, dtype, overwrite)
    weights = load_weights(src, Overrides(kind, max_depth, taps, entry, prefix))
    if license is not None:
        weights = weights.replace(license=license)
    return save(weights, dst, to=to, dtype=dtype, overwrite=overwrite)


def save(
    weights: Weights, dst: str | Path, *, to: Target = "checkpoint", dtype: str | None = None, overwrite: bool = False
) -> str:
    """Writes `weights` to `dst`; returns a summary for people.

    to:    "checkpoint" (our folder), "official" (a `.pth` for the official code), "hf" (a folder for transformers)
    dtype: "float32", "bfloat16" or "float16"; None keeps each tensor as it is, so that out and back is bit-identical
    Raises Dav2Error, with everything that is wrong in one line; `dst` is then left alone.
    """
    dst = Path(dst)
    _check(dst, to, dtype, overwrite)
    if dtype is not None:
        weights = cast(weights, DTYPES[dtype])
    WRITERS[to](dst, weights, overwrite=overwrite)
    return summary(weights, dst)


def _check(dst: Path, to: str, dtype: str | None, overwrite: bool) -> None:
    if to not in get_args(Target):
        raise InvalidValueError(f"to={to!r} is none of {', '.join(get_args(Target))}")
    if dtype not in (None, *get_args(Stored)):
        raise InvalidValueError(f"dtype={dtype!r} is none of {', '.join(get_args(Stored))}")
    if to == "checkpoint" and dst.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise Dav2Error(f"{dst}: to=checkpoint writes a folder of ours: give to=official, or call it {dst.stem}.ckpt")
    refuse_existing(dst, overwrite=overwrite, ours=OUR_FILES)


def summary(weights: Weights, dst: Path) -> str:
    """What was converted, in a few lines."""
    config, count = weights.config, sum(math.prod(leaf.shape) for leaf in weights.flat.values())
    files = [dst] if dst.is_file() else [file for file in dst.rglob("*") if file.is_file()]
    output = {"encoder": "features, no depth", "relative": "relative (disparity)"}.get(
        config.kind, f"metric (metres, up to {config.max_depth or 0:g})"
    )
    return "\n".join(
        [
            f"{dst}: {sum(file.stat().st_size for file in files) / 1e6:,.1f} MB",
            f"  model     {config.encoder}, {count / 1e6:,.1f} M parameters, {output}, taps {config.taps}",
            f"  license   {weights.license}",
            f"  source    {_source(weights.provenance)}",
        ]
    )


def _source(provenance: dict[str, str]) -> str:
    """Of a file with its checksum; weights that were trained here came from none."""
    checksum = provenance.get("sha256")
    return provenance["source"] + (f" (sha256 {checksum[:16]})" if checksum else "")
