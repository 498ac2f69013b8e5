"""`dav2 convert`, `dav2 verify` and `dav2 models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from dav2_jax.cli.flags import MODEL, Entry, Kind, MaxDepth, Prefix, Taps
from dav2_jax.cli.parse import arg


def convert(
    src: Annotated[str, arg(metavar="SOURCE", help=MODEL)],
    dst: Annotated[Path, arg(metavar="TARGET", help="File or folder to write.")],
    *,
    to: Annotated[
        Literal["checkpoint", "official", "hf"],
        arg(
            help="checkpoint: our folder, for JAX. official: the .pth of the official repository. "
            "hf: a folder for transformers."
        ),
    ] = "checkpoint",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        arg(help="Type to store.", help_behavior_hint="(default: as stored)"),
    ] = None,
    kind: Kind = None,
    max_depth: MaxDepth = None,
    taps: Taps = None,
    entry: Entry = None,
    prefix: Prefix = None,
    license: Annotated[
        str | None,
        arg(
            metavar="SPDX",
            help="License of the weights, for those that you trained.",
            help_behavior_hint="(default: what SOURCE says)",
        ),
    ] = None,
    overwrite: Annotated[bool, arg(help="Replace TARGET when it exists.")] = False,
) -> int:
    """Weights from and to the official and Hugging Face layouts.

    $ dav2 convert depth_anything_v2_vits.pth small.ckpt
    $ dav2 convert small.ckpt out.pth --to official
    $ dav2 convert large large_hf --to hf
    """
    from dav2_jax.weights.convert import convert as run

    about = {"kind": kind, "max_depth": max_depth, "taps": taps, "entry": entry, "prefix": prefix, "license": license}
    print(run(src, dst, to=to, dtype=dtype, overwrite=overwrite, **about))
    return 0


def verify(
    src: Annotated[str, arg(metavar="CHECKPOINT", help=MODEL)],
    *,
    against: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="Stored reference, written with --save on a machine that has PyTorch.",
            help_behavior_hint="(default: run PyTorch here)",
        ),
    ] = None,
    image: Annotated[
        Path | None, arg(metavar="PHOTO", help="Photo to compare on.", help_behavior_hint="(default: a sample photo)")
    ] = None,
    save: Annotated[
        Path | None,
        arg(metavar="FILE", help="Store PyTorch's numbers, for --against.", help_behavior_hint="(default: store none)"),
    ] = None,
    input_size: Annotated[
        int | None,
        arg(
            metavar="PIXELS",
            help="Shorter side at which the model sees the photo, rounded to patches of 14.",
            help_behavior_hint="(default: that of the stored reference, or 518)",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        arg(metavar="RELATIVE", help="Largest error allowed in a stage: |ours - reference| / |reference|, L2 norms."),
    ] = 1e-5,
    kind: Kind = None,
    max_depth: MaxDepth = None,
    taps: Taps = None,
    entry: Entry = None,
    prefix: Prefix = None,
) -> int:
    """Compare a checkpoint with the PyTorch reference, stage by stage.

    $ dav2 verify small
    $ dav2 verify small.ckpt --image photo.jpg --tolerance 1e-4

    Exit code 1 if a stage is over the tolerance.
    """
    from dav2_jax.convert.recognize import Overrides
    from dav2_jax.convert.verify import verify as run
    from dav2_jax.weights.load import load_weights

    weights = load_weights(src, Overrides(kind, max_depth, taps, entry, prefix))
    table, passed = run(
        weights, name=src, against=against, image=image, save=save, input_size=input_size, tolerance=tolerance
    )
    print(table)
    return 0 if passed else 1


def models() -> int:
    """List the released models.

    Name, encoder, what they predict, license of the weights, and where they come from.
    """
    from dav2_jax.weights import hub

    print(hub.table())
    return 0
