"""`dav2 video`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from dav2_jax.cli.flags import MODEL, Entry, Kind, MaxDepth, Prefix, Taps
from dav2_jax.cli.parse import arg


def video(
    src: Annotated[
        Path,
        arg(
            metavar="VIDEO|FOLDER",
            help="A video file, an animated picture (GIF, WebP, APNG), or a folder of pictures, which are its frames, "
            "sorted by name.",
        ),
    ],
    dst: Annotated[
        Path,
        arg(
            metavar="OUT",
            help="A video file (.mp4 .m4v .mov .mkv .webm), or a folder, for one file per frame.",
        ),
    ],
    *,
    model: Annotated[str, arg(metavar="NAME|PATH", help=MODEL)] = "small",
    side_by_side: Annotated[bool, arg(help="Frame, white strip and depth in one picture.")] = False,
    gray: Annotated[bool, arg(help="Depth in gray instead of colors.")] = False,
    format: Annotated[
        Literal["picture", "npz", "npy", "png16", "exr"],
        arg(
            help="picture: drawn as --side-by-side and --gray say. Others: the raw values, one file per frame, into a "
            "folder, as dav2 predict writes them; the steady range is not applied."
        ),
    ] = "picture",
    range: Annotated[
        tuple[float, float] | None,
        arg(
            metavar="LOW HIGH",
            help="Fixed depth range of the color map, for all frames.",
            help_behavior_hint="(default: metres 0 to --max-depth, disparity a steady range)",
        ),
    ] = None,
    bits: Annotated[
        Literal[8, 10],
        arg(
            help="Bits per sample of a video file. 8: H.264 (.webm: VP9), which every player shows. 10: HEVC Main 10, "
            "without the banding of 8 bits, for .mp4 .m4v .mov .mkv."
        ),
    ] = 8,
    fps: Annotated[
        float | None,
        arg(
            metavar="RATE",
            help="Frame rate of a folder; for a video, an upper limit: further frames are dropped.",
            help_behavior_hint="(default: 24 for a folder, all frames of a video)",
        ),
    ] = None,
    max_frames: Annotated[
        int | None, arg(metavar="COUNT", help="Stop after this many frames.", help_behavior_hint="(default: all)")
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
            help="Frames per batch.",
            help_behavior_hint="(default: 1 on a CPU, 8 a device elsewhere)",
        ),
    ] = None,
    max_pixels: Annotated[
        int, arg(metavar="COUNT", help="Refuse frames with more pixels, width x height.")
    ] = 178_956_970,
    overwrite: Annotated[
        bool, arg(help="Replace OUT where it is a file, and discard unfinished work of other options.")
    ] = False,
    kind: Kind = None,
    max_depth: MaxDepth = None,
    taps: Taps = None,
    entry: Entry = None,
    prefix: Prefix = None,
) -> int:
    """Depth of a video, temporally steady.

    $ dav2 video in.mp4 depth.mp4
    $ dav2 video in.mp4 both.mp4 --side-by-side --model large
    $ dav2 video in.mp4 depths --format npz
    $ dav2 video frames/ out.mp4 --fps 30 --gray

    Timestamps, frame durations, pixel shape and audio are kept; rotation and mirroring are applied. An odd width or
    height grows by one pixel. Of several video streams in a file, the default one is used, else the largest.

    An interrupted run continues with the same command, to the same result: finished frames stay in a hidden folder
    beside OUT (.OUT.dav2) until OUT is complete. Memory does not grow with the length.

    Exit code 1 if the video is damaged and only part of it could be decoded.
    """
    from dav2_jax.files import cache_folder
    from dav2_jax.inference.programs import keep_programs
    from dav2_jax.video.predict import predict_video

    keep_programs(cache_folder() / "programs")
    report = predict_video(
        src,
        dst,
        model=model,
        side_by_side=side_by_side,
        gray=gray,
        format=format,
        limits=range,
        bits=bits,
        fps=fps,
        max_frames=max_frames,
        input_size=input_size,
        batch_size=batch_size,
        max_pixels=max_pixels,
        overwrite=overwrite,
        dtype=dtype,
        kind=kind,
        max_depth=max_depth,
        taps=taps,
        entry=entry,
        prefix=prefix,
    )
    if report.damage:
        print(report.damage, file=sys.stderr)
    print(report)
    return 1 if report.damage else 0
