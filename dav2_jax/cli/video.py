"""`dav2 video`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from dav2_jax.cli.flags import MODEL, Kind, MaxDepth, Taps


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
    model: Annotated[str, arg(metavar="NAME|PATH", help=MODEL)] = "small",
    side_by_side: Annotated[bool, arg(help="Frame, white strip and depth in one picture.")] = False,
    gray: Annotated[bool, arg(help="Depth in gray, not in colors.")] = False,
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
            help="Values to draw at the two ends of the colors, in all frames.",
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
        int | None,
        arg(
            metavar="PIXELS",
            help="Shorter side at which the model sees a frame, rounded to patches of 14. Larger: finer edges, slower.",
            help_behavior_hint="(default: that of the model, 518)",
        ),
    ] = None,
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
    from dav2_jax.files import cache_folder
    from dav2_jax.image.resize import check_input_size
    from dav2_jax.inference.load import load as load_model
    from dav2_jax.inference.predictor import usual_batch_size
    from dav2_jax.inference.programs import keep_programs
    from dav2_jax.video.job import Look, depth_video

    if input_size is not None:
        check_input_size(input_size)
    batch_size = usual_batch_size() if batch_size is None else batch_size
    weights = {"model": model, "dtype": dtype, "kind": kind, "max_depth": max_depth, "taps": taps}

    def load():
        keep_programs(cache_folder() / "programs")
        loaded = load_model(model, dtype=dtype, kind=kind, max_depth=max_depth, taps=taps)
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
