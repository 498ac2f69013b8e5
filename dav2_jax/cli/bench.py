"""`dav2 bench`."""

from __future__ import annotations

from typing import Annotated, Literal

from dav2_jax.cli.parse import arg


def bench(
    *,
    encoder: Annotated[
        tuple[Literal["small", "base", "large", "giant"], ...],
        arg(
            metavar="SIZE [SIZE ...]",
            help="Models to time, with random weights.",
            help_behavior_hint="(default: small; the recipe's with --train)",
        ),
    ] = (),
    batch: Annotated[
        tuple[int, ...],
        arg(
            metavar="COUNT [COUNT ...]",
            help="Images that each device takes at a time; with --train, all of them together.",
            help_behavior_hint="(default: 1 8; the recipe's with --train)",
        ),
    ] = (),
    input_size: Annotated[
        int, arg(metavar="PIXELS", help="Side of the square images that the network sees, rounded to patches of 14.")
    ] = 518,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        arg(help="Type of the computation.", help_behavior_hint="(default: float32; bfloat16 with --aot)"),
    ] = None,
    runs: Annotated[int, arg(metavar="COUNT", help="Timed runs of each, after one that does not count.")] = 10,
    aot: Annotated[
        tuple[str, ...],
        arg(
            metavar="SLICE [SLICE ...]",
            help="Run nothing: compile for TPU slices (v5e, v5p or v6e, and a number of chips, as in v5e-8) and print "
            "what their compiler expects. Needs no TPU, but libtpu (pip install libtpu).",
            help_behavior_hint="(default: time this machine)",
        ),
    ] = (),
    train: Annotated[
        str | None,
        arg(
            metavar="RECIPE",
            help="With --aot: a training step of this recipe, not the forward pass.",
            help_behavior_hint="(default: the forward pass)",
        ),
    ] = None,
    fsdp: Annotated[
        int | None,
        arg(
            metavar="CHIPS",
            help="With --train: chips that share one copy of the parameters.",
            help_behavior_hint="(default: until they take a quarter of the HBM)",
        ),
    ] = None,
    remat: Annotated[
        Literal["none", "products", "blocks"] | None,
        arg(
            help="With --train: what the backward pass computes again, to save memory.",
            help_behavior_hint="(default: the recipe's)",
        ),
    ] = None,
    json: Annotated[
        str | None,
        arg(
            metavar="FILE",
            help="Write all numbers as JSON too; - prints them in place of the table.",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
) -> int:
    """Time the network on this machine, or estimate it for a TPU.

    $ dav2 bench
    $ dav2 bench --encoder small base large --batch 1 8 32 --dtype bfloat16
    $ dav2 bench --aot v5e-8 --json v5e.json
    $ dav2 bench --aot v5e-64 --train relative_teacher --encoder large giant

    Times are those of the network alone, its images on the device already, and compilation is apart.
    """
    from dav2_jax.bench import run as engine
    from dav2_jax.errors import Dav2Error

    if train:
        if not aot:
            raise Dav2Error("--train estimates for a TPU slice: name one, as in --aot v5e-64")
        engine.run_training(
            train, aot, encoders=encoder, batches=batch, input_size=input_size, dtype=dtype, fsdp=fsdp, remat=remat,
            file=json,
        )  # fmt: skip
        return 0
    if fsdp is not None or remat is not None:
        raise Dav2Error("--fsdp and --remat are of a training step: name a recipe, as in --train relative_teacher")
    encoder, batch = encoder or ("small",), batch or (1, 8)
    dtype = dtype or ("bfloat16" if aot else "float32")
    engine.run(encoder, batch, input_size=input_size, dtype=dtype, runs=runs, targets=aot, file=json)
    return 0
