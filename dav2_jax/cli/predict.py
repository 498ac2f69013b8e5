"""`dav2 predict`."""

from __future__ import annotations

import textwrap
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from dav2_jax.cli.flags import MODEL, Entry, Kind, MaxDepth, Prefix, Taps
from dav2_jax.cli.messages import with_flags
from dav2_jax.cli.parse import arg
from dav2_jax.errors import Dav2Error
from dav2_jax.inference.formats import FORMATS

_indented = partial(
    textwrap.fill, width=56, initial_indent="    ", subsequent_indent="    "
)  # fits a help of 80 columns


def predict(
    inputs: Annotated[
        tuple[str, ...],
        arg(
            metavar="PHOTO [PHOTO ...]",
            help="What to work on, one or more:\n"
            "  photo.jpg            a file\n"
            "  photos/              a folder, with all folders in it\n"
            "  'photos/**/*.png'    a quoted pattern; ** is any depth\n"
            "  list.txt             a list, one path a line\n"
            "  https://host/x.jpg   an address\n"
            "Outputs mirror the tree of the inputs below --out and keep the whole name of the photo: "
            "photos/a/x.jpg, given as photos/, becomes a/x.jpg.color.png.",
        ),
    ],
    *,
    model: Annotated[str, arg(metavar="NAME|PATH", help=MODEL)] = "small",
    out: Annotated[Path, arg(metavar="FOLDER", help="Where outputs go; created when missing.")] = Path("depth"),
    format: Annotated[
        tuple[Literal[tuple(FORMATS)], ...],
        arg(
            metavar="FORMAT [FORMAT ...]",
            help="What to write, one or more; photos may follow. For x.jpg:\n"
            + "\n".join(f"  {name}  (x.jpg{kind.suffix})\n{_indented(kind.about)}." for name, kind in FORMATS.items()),
        ),
    ] = ("color",),
    input_size: Annotated[
        int | None,
        arg(
            metavar="PIXELS",
            help="Shorter side at which the model sees the photo, rounded to patches of 14. Larger: finer edges, and "
            "time and memory grow steeply.",
            help_behavior_hint="(default: that of the model, 518)",
        ),
    ] = None,
    resize: Annotated[
        Literal["photo", "network"],
        arg(help="Size of the outputs: that of the photo, or the smaller one at which the network saw it."),
    ] = "photo",
    tiles: Annotated[
        int | Literal["auto"] | None,
        arg(
            metavar="N|auto",
            help="Finer edges on large photos: predict N x N overlapping tiles too, each at the input size, and put "
            "them on the depth of the whole photo, without seams. Costs N * N + 1 predictions. auto: as many as show "
            "every pixel of the photo to the model, at most 4.",
            help_behavior_hint="(default: no tiles)",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        arg(help="float32: the exact numbers of the official code. bfloat16: faster on TPU and GPU, less exact."),
    ] = "float32",
    focal_length: Annotated[
        float | None,
        arg(
            metavar="PIXELS",
            help="Focal length in pixels of the photo (not in mm), for point clouds, for all photos of this run.",
            help_behavior_hint="(default: from EXIF data)",
        ),
    ] = None,
    fov: Annotated[
        float | None,
        arg(
            metavar="DEGREES",
            help="In place of --focal-length: angle of view from the left to the right edge of the photo.",
            help_behavior_hint="(default: from EXIF data)",
        ),
    ] = None,
    skip_existing: Annotated[
        bool, arg(help="Pass over photos whose outputs are all there, to go on after a stop.")
    ] = False,
    batch_size: Annotated[
        int | None,
        arg(
            metavar="PHOTOS",
            help="Photos of one shape that go through the model together, on all devices of this machine.",
            help_behavior_hint="(default: 1 on a CPU, 8 a device elsewhere)",
        ),
    ] = None,
    max_pixels: Annotated[
        int, arg(metavar="COUNT", help="Refuse photos of more pixels than this, width x height.")
    ] = 178_956_970,
    kind: Kind = None,
    max_depth: MaxDepth = None,
    taps: Taps = None,
    entry: Entry = None,
    prefix: Prefix = None,
    distributed: Annotated[
        bool, arg(help="One of several processes with the same command line, which share the photos; see below.")
    ] = False,
    coordinator: Annotated[
        str | None,
        arg(
            metavar="HOST:PORT",
            help="With --distributed: where process 0 is found.",
            help_behavior_hint="(default: TPU pods, Slurm, Open MPI and Kubernetes tell)",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        arg(
            metavar="COUNT",
            help="With --coordinator: how many processes there are.",
            help_behavior_hint="(default: likewise)",
        ),
    ] = None,
    process: Annotated[
        int | None,
        arg(
            metavar="NUMBER",
            help="With --coordinator: which one this is, from 0.",
            help_behavior_hint="(default: likewise)",
        ),
    ] = None,
) -> int:
    """Photos to depth: pictures, arrays or point clouds.

    $ dav2 predict photo.jpg
    $ dav2 predict photos/ --model large --format npy png16 --out depths
    $ dav2 predict 'in/**/*.png' list.txt --skip-existing
    $ dav2 predict room.jpg --model metric-indoor-small --format ply --fov 60

    A relative model (small, base, large) gives disparity: larger is closer, in no unit. A metric model gives metres.

    A photo that fails costs one line and the others go on. Files are whole or not there, whatever happens.
    Exit code: 0 all is well, 1 photos failed, 2 nothing was done: the command line is wrong, or there is no such model.

    Several machines: start the same command with --distributed on each. Each one writes its share of the photos, to the
    same folder or to its own, and the first one sums up.
    """
    if not inputs:
        raise Dav2Error("no photo given: dav2 predict PHOTO ..., and dav2 predict --help for all it can take")
    from dav2_jax.files import cache_folder
    from dav2_jax.image.resize import check_input_size
    from dav2_jax.inference.inputs import find_inputs
    from dav2_jax.inference.job import predict_files
    from dav2_jax.inference.load import load as load_model
    from dav2_jax.inference.programs import keep_programs
    from dav2_jax.inference.tiles import check_tiles

    if input_size is not None:
        check_input_size(input_size)
    if tiles is not None:
        check_tiles(tiles)
        if resize == "network":
            raise Dav2Error("--tiles gives detail to a map of the photo's size: leave out --resize network")
    if batch_size is not None and batch_size < 1:
        raise Dav2Error(f"--batch-size {batch_size}: give at least 1")
    left_out: Counter[str] = Counter()
    photos, problems = find_inputs(inputs, left_out=left_out)
    first = True
    distributed = distributed or not (coordinator is processes is process is None)
    if distributed:
        from dav2_jax import sharding

        sharding.initialize(coordinator, processes, process)
        sharding.check_same("photos", [str(photo.relative) for photo in photos])
        photos, first = sharding.my_share(photos), sharding.is_first()
    models = []

    def load():
        keep_programs(cache_folder() / "programs")
        about = {"kind": kind, "max_depth": max_depth, "taps": taps, "entry": entry, "prefix": prefix}
        models.append(load_model(model, dtype=dtype, **about))
        options = {"input_size": input_size, "max_pixels": max_pixels, "resize": resize, "batch_size": batch_size}
        return partial(models[0].stream, tiles=tiles, **options)

    report = predict_files(
        load,
        photos,
        out,
        format,
        skip_existing=skip_existing,
        focal_length=focal_length,
        fov=fov,
        problems=problems if first else (),
        left_out=left_out,
        reword=partial(with_flags, function=predict),
    )
    report = report.merged() if distributed else report
    if first:
        print(report)
        for loaded in models:
            print(f"{report.seconds:.1f} s {loaded.programs}")
    return 1 if report.failed else 0
