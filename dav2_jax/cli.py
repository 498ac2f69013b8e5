"""The command line: `dav2 VERB ...`. One function a verb; the work is done elsewhere, imported when a verb runs."""

from __future__ import annotations

import inspect
import os
import sys
import textwrap
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

import dav2_jax
from dav2_jax.command_line import parse, photos_before_formats
from dav2_jax.errors import Dav2Error
from dav2_jax.inference.formats import FORMATS

_HELP = """usage: dav2 VERB ...

Depth Anything V2 in JAX: depth from one photo, with the released weights.

{verbs}

$ dav2 predict photo.jpg      photo to depth, in depth/photo.jpg.color.png
$ dav2 VERB --help            all about one verb
$ dav2 VERB ... --debug       with the traceback of an error
$ dav2 --version

Exit code: 0 all well, 2 wrong command line or input, 130 interrupted, 70 a bug;
of predict also the number of photos that failed (125: that many or more);
of verify also 1, a stage is over the tolerance; of video 1, a damaged input."""

_MODEL = (
    "Name of a released model, which is downloaded once (dav2 models lists them: small, base, large, "
    "metric-indoor-small, ...), or a path: .pth, .safetensors, Hugging Face folder, folder of dav2 convert."
)
_indented = partial(
    textwrap.fill, width=56, initial_indent="    ", subsequent_indent="    "
)  # fits a help of 80 columns
_FROM_MODEL = "(default: as the checkpoint says)"

# What a weights file may not say about itself. Released names need none of these.
Kind = Annotated[
    Literal["relative", "metric"] | None,
    arg(
        help="For a weights file of your own that does not say it: relative (disparity) or metric (metres).",
        help_behavior_hint=_FROM_MODEL,
    ),
]
MaxDepth = Annotated[
    float | None,
    arg(
        metavar="METRES",
        help="Metric weights of your own: the largest depth they were trained for (20 for Hypersim, 80 for VKITTI).",
        help_behavior_hint=_FROM_MODEL,
    ),
]
Taps = Annotated[
    Literal["v1", "v2"] | None,
    arg(
        help="Weights of your own: the encoder layers that feed the head, as in Depth Anything v1 (the last four) "
        "or v2 (spread over the depth). A wrong choice loads and gives wrong depth.",
        help_behavior_hint=_FROM_MODEL,
    ),
]


def predict(
    inputs: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="PHOTO [PHOTO ...]",
            help="What to work on, one or more:\n"
            "  photo.jpg            a file\n"
            "  photos/              a folder, with all folders in it\n"
            "  'photos/**/*.png'    a quoted pattern; ** is any depth\n"
            "  list.txt             a list, one path a line\n"
            "Outputs mirror the tree of the inputs below --out and keep the whole name of the photo: "
            "photos/a/x.jpg, given as photos/, becomes a/x.jpg.color.png.",
            help_behavior_hint="(required)",
        ),
    ],
    *,
    model: Annotated[str, arg(metavar="NAME|PATH", help=_MODEL)] = "small",
    out: Annotated[Path, arg(metavar="FOLDER", help="Where outputs go; created when missing.")] = Path("depth"),
    format: Annotated[
        tuple[tyro.extras.literal_type_from_choices(FORMATS), ...],
        arg(
            metavar="FORMAT [FORMAT ...]",
            help="What to write, one or more; photos may follow. For x.jpg:\n"
            + "\n".join(f"  {name}  (x.jpg{kind.suffix})\n{_indented(kind.about)}." for name, kind in FORMATS.items()),
        ),
    ] = ("color",),
    input_size: Annotated[
        int,
        arg(
            metavar="PIXELS",
            help="Shorter side at which the model sees the photo, rounded to patches of 14. Larger: finer edges, and "
            "time and memory grow steeply.",
        ),
    ] = 518,
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

    A photo that fails costs one line and the others go on; the exit code says how many failed (125: that many or more).
    Files are whole or not there, whatever happens.

    Several machines: start the same command with --distributed on each. Each one writes its share of the photos, to the
    same folder or to its own, and the first one sums up.
    """
    if not inputs:
        raise Dav2Error("no photo given: dav2 predict PHOTO ..., and dav2 predict --help for all it can take")
    from dav2_jax import hub
    from dav2_jax.inference.inputs import find_inputs
    from dav2_jax.inference.job import predict_files
    from dav2_jax.inference.pipeline import one_by_one
    from dav2_jax.inference.preprocess import check_input_size
    from dav2_jax.inference.programs import keep_programs
    from dav2_jax.inference.tiles import check_tiles, predict_tiled

    check_input_size(input_size)
    if tiles is not None:
        check_tiles(tiles)
        if resize == "network":
            raise Dav2Error("--tiles gives detail to a map of the photo's size: leave out --resize network")
    if batch_size is not None and batch_size < 1:
        raise Dav2Error(f"--batch-size {batch_size}: give at least 1")
    photos, problems = find_inputs(inputs)
    first = True
    distributed = distributed or not (coordinator is processes is process is None)
    if distributed:
        from dav2_jax import sharding

        sharding.initialize(coordinator, processes, process)
        sharding.check_same("photos", [str(photo.relative) for photo in photos])
        photos, first = sharding.my_share(photos), sharding.is_first()
    models = []

    def load():
        keep_programs(hub.cache_folder() / "programs")
        models.append(hub.load(model, dtype=dtype, kind=kind, max_depth=max_depth, taps=taps))
        options = {"input_size": input_size, "max_pixels": max_pixels, "resize": resize, "batch_size": batch_size}
        if tiles is None:
            return partial(models[0].stream, **options)
        predict = partial(models[0].predict, **options)
        return one_by_one(partial(predict_tiled, predict, tiles=tiles, input_size=input_size))

    report = predict_files(
        load,
        photos,
        out,
        format,
        skip_existing=skip_existing,
        focal_length=focal_length,
        fov=fov,
        problems=problems if first else (),
    )
    report = report.merged() if distributed else report
    if first:
        print(report)
        for loaded in models:
            print(f"{report.seconds:.1f} s, {loaded.programs}")
    return min(report.failed, 125)


def video(
    src: Annotated[
        Positional[Path],
        arg(
            metavar="VIDEO|FOLDER", help="A video file, or a folder of pictures, which are its frames, sorted by name."
        ),
    ],
    dst: Annotated[
        Positional[Path],
        arg(
            metavar="OUT",
            help="A video file (.mp4 .m4v .mov .mkv .webm), or else a folder, for one file a frame.",
        ),
    ],
    *,
    model: Annotated[str, arg(metavar="NAME|PATH", help=_MODEL)] = "small",
    side_by_side: Annotated[bool, arg(help="Frame, white strip and depth in one picture.")] = False,
    gray: Annotated[bool, arg(help="Depth in gray, not in colours.")] = False,
    format: Annotated[
        Literal["picture", "npz", "npy", "png16", "exr"],
        arg(
            help="picture: what --side-by-side and --gray say. Others: the values, one file a frame, into a folder, as "
            "dav2 predict writes them; they are not made steady."
        ),
    ] = "picture",
    range: Annotated[
        tuple[float, float] | None,
        arg(
            metavar="LOW HIGH",
            help="Values to draw at the two ends of the colours, in all frames.",
            help_behavior_hint="(default: metres 0 to --max-depth, disparity a steady range)",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        arg(
            metavar="RATE",
            help="Of a folder: its frames per second. Of a video: use at most so many frames of each second.",
            help_behavior_hint="(default: 24 for a folder, all frames of a video)",
        ),
    ] = None,
    max_frames: Annotated[
        int | None, arg(metavar="COUNT", help="Stop after so many frames.", help_behavior_hint="(default: all)")
    ] = None,
    input_size: Annotated[
        int,
        arg(
            metavar="PIXELS",
            help="Shorter side at which the model sees a frame, rounded to patches of 14. Larger: finer edges, slower.",
        ),
    ] = 518,
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        arg(help="float32: the exact numbers of the official code. bfloat16: faster on TPU and GPU, less exact."),
    ] = "float32",
    batch_size: Annotated[
        int | None,
        arg(
            metavar="FRAMES",
            help="Frames that go through the model at once.",
            help_behavior_hint="(default: 1 on a CPU, 8 a device elsewhere)",
        ),
    ] = None,
    max_pixels: Annotated[
        int, arg(metavar="COUNT", help="Refuse frames of more pixels than this, width x height.")
    ] = 178_956_970,
    overwrite: Annotated[
        bool, arg(help="Replace OUT when it is a file, and throw away unfinished work made with other options.")
    ] = False,
    kind: Kind = None,
    max_depth: MaxDepth = None,
    taps: Taps = None,
) -> int:
    """A video to its depth, steady from frame to frame.

    $ dav2 video in.mp4 depth.mp4
    $ dav2 video in.mp4 both.mp4 --side-by-side --model large
    $ dav2 video in.mp4 depths --format npz
    $ dav2 video frames/ out.mp4 --fps 30 --gray

    Timestamps, pixel shape and audio of a video are kept; an odd width or height grows by one pixel.

    Stopped in any way, the same command goes on, to the same result: until all is done, work is kept in a hidden
    folder beside OUT (.OUT.dav2). Memory does not grow with the length.

    Exit code 1 if the video is damaged and only a part of it could be used.
    """
    from dav2_jax import hub
    from dav2_jax.inference.predictor import usual_batch_size
    from dav2_jax.inference.preprocess import check_input_size
    from dav2_jax.inference.programs import keep_programs
    from dav2_jax.inference.video import Look, depth_video

    check_input_size(input_size)
    batch_size = usual_batch_size() if batch_size is None else batch_size
    weights = {"model": model, "dtype": dtype, "kind": kind, "max_depth": max_depth, "taps": taps}

    def load():
        keep_programs(hub.cache_folder() / "programs")
        loaded = hub.load(model, dtype=dtype, kind=kind, max_depth=max_depth, taps=taps)
        return partial(loaded.predict, input_size=input_size, max_pixels=max_pixels, batch_size=batch_size)

    report = depth_video(
        load,
        src,
        dst,
        Look(format, gray, side_by_side, range),
        fps=fps,
        max_frames=max_frames,
        batch_size=batch_size,
        max_pixels=max_pixels,
        model=weights | {"input_size": input_size},
        overwrite=overwrite,
    )
    return 1 if report.damage else 0


def convert(
    src: Annotated[Positional[str], arg(metavar="SOURCE", help=_MODEL)],
    dst: Annotated[Positional[Path], arg(metavar="TARGET", help="File or folder to write.")],
    *,
    to: Annotated[
        Literal["checkpoint", "official", "hf"],
        arg(
            help="checkpoint: our folder, for JAX. official: the .pth of the official repository. "
            "hf: a folder for transformers."
        ),
    ] = "checkpoint",
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, arg(help="Type to store.", help_behavior_hint="(default: as stored)")
    ] = None,
    kind: Kind = None,
    max_depth: MaxDepth = None,
    taps: Taps = None,
    overwrite: Annotated[bool, arg(help="Replace TARGET when it exists.")] = False,
) -> int:
    """Weights from and to the official and Hugging Face layouts.

    $ dav2 convert depth_anything_v2_vits.pth small.ckpt
    $ dav2 convert small.ckpt out.pth --to official
    $ dav2 convert large large_hf --to hf
    """
    from dav2_jax.convert.convert import convert as run

    print(run(src, dst, to=to, dtype=dtype, kind=kind, max_depth=max_depth, taps=taps, overwrite=overwrite))
    return 0


def verify(
    src: Annotated[Positional[str], arg(metavar="CHECKPOINT", help=_MODEL)],
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
) -> int:
    """Compare a checkpoint with the PyTorch reference, stage by stage.

    $ dav2 verify small
    $ dav2 verify small.ckpt --image photo.jpg --tolerance 1e-4

    Exit code 1 if a stage is over the tolerance.
    """
    from dav2_jax.convert.recognise import Told
    from dav2_jax.convert.verify import verify as run

    told = Told(kind, max_depth, taps)
    table, passed = run(
        src, against=against, image=image, save=save, input_size=input_size, tolerance=tolerance, told=told
    )
    print(table)
    return 0 if passed else 1


def bench(
    *,
    encoder: Annotated[
        tuple[Literal["small", "base", "large", "giant"], ...],
        arg(metavar="SIZE [SIZE ...]", help="Models to time, with random weights."),
    ] = ("small",),
    batch: Annotated[
        tuple[int, ...], arg(metavar="COUNT [COUNT ...]", help="Images that each device takes at a time.")
    ] = (1, 8),
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

    Times are those of the network alone, its images on the device already, and compilation is apart.
    """
    from dav2_jax import bench as engine

    dtype = dtype or ("bfloat16" if aot else "float32")
    engine.run(encoder, batch, input_size=input_size, dtype=dtype, runs=runs, targets=aot, file=json)
    return 0


def models() -> int:
    """List the released models.

    Name, encoder, what they predict, licence of the weights, and where they come from.
    """
    from dav2_jax import hub

    print(hub.table())
    return 0


VERBS = {verb.__name__: verb for verb in (predict, video, convert, verify, bench, models)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    argv  without the program name; None: those of this process.

    A Dav2Error becomes one line and 2, Ctrl-C one line and 130, a bug one line and 70; `--debug` adds the traceback.
    When nobody reads the output any more (`dav2 models | head -1`) it ends without a word and with 141, as by SIGPIPE.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    try:
        code = _run(argv)
        sys.stdout.flush()  # a closed pipe shows here, and not when Python is shutting down
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
        return 141
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            traceback.print_exc()
        line, code = _last_words(error)
        print(f"dav2: {line}", file=sys.stderr)
    return code


def _run(argv: list[str]) -> int:
    verb, *arguments = argv or [""]
    if verb == "--version":
        print(f"dav2 {dav2_jax.__version__}")
        return 0
    if verb in ("-h", "--help"):
        verbs = "\n".join(f"  {name:8} {inspect.getdoc(verb).splitlines()[0]}" for name, verb in VERBS.items())
        print(_HELP.format(verbs=verbs))
        return 0
    if verb not in VERBS:
        wrong = f"{verb!r} is no verb" if verb else "no verb given"
        raise Dav2Error(f"{wrong}: use one of {', '.join(VERBS)} (dav2 --help says more)")
    if verb == "predict":
        arguments = photos_before_formats(arguments)
    call = parse(VERBS[verb], arguments)
    return call() if call else 0


def _last_words(error: BaseException) -> tuple[str, int]:
    """The line that a user reads about an error that ended a command, and its exit code."""
    if isinstance(error, KeyboardInterrupt):
        return (
            "interrupted: files written until now are whole (predict goes on with --skip-existing, video as it is)",
            130,
        )
    if isinstance(error, Dav2Error):
        return f"error: {error}", 2
    text = (str(error).splitlines() or ["no message"])[0]
    return f"unexpected {type(error).__name__}: {text}: run again with --debug to see where", 70


if __name__ == "__main__":
    sys.exit(main())
