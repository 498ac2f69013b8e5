"""The Python call for videos: `predict_video(src, dst, model=...)`, with a name or a loaded model."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dav2_jax
from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import MAX_PIXELS
from dav2_jax.image.resize import check_input_size
from dav2_jax.video.job import VideoReport, depth_video
from dav2_jax.video.render import Bits, Format, RenderOptions

if TYPE_CHECKING:
    from dav2_jax.inference.predictor import Model


def predict_video(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    *,
    model: str | os.PathLike | Model = "small",
    side_by_side: bool = False,
    gray: bool = False,
    format: Format = "picture",
    limits: tuple[float, float] | None = None,
    bits: Bits = 8,
    fps: float | None = None,
    max_frames: int | None = None,
    input_size: int | None = None,
    batch_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
    progress: bool = True,
    **load_options: Any,
) -> VideoReport:
    """Depth of a whole video, steady from frame to frame, in constant memory: what `dav2 video` does.

        report = predict_video("in.mp4", "depth.mp4", model="small")
        predict_video("in.mp4", "depths", format="npz", model=model)      # values, one file a frame

    src           a video file, an animated picture, or a folder of pictures, which are its frames, sorted by name
    dst           a video file (.mp4 .m4v .mov .mkv .webm), or else a folder, for one file a frame
    model         what `dav2.load` takes, loaded when it is needed; or a loaded model
    side_by_side  frame, white strip and depth in one picture
    gray          depth in gray, not in colors
    format        "picture", or the values as they are: "npz", "npy", "png16", "exr", one file a frame
    limits        values (low, high) at the two ends of the colors, in the unit of the model, in all frames.
                  None: 0 to max_depth for metres, a range that follows the scene for disparity
    bits          of a sample of a video file, 8 (H.264, VP9) or 10 (HEVC; not in .webm)
    fps           frames per second of a folder (24 without); of a video, use at most so many frames of each second
    max_frames    stop after that many
    input_size    shorter side at which the network sees a frame, in pixels; None: that of its training
    batch_size    frames in a batch; None: 1 on a CPU, 8 a device elsewhere
    max_pixels    frames of more pixels, width x height, are refused
    overwrite     replace dst where it is a file, and throw away unfinished work made with other options
    progress      show a bar on a terminal
    load_options  of `dav2.load`, where model is a name or a path: dtype, kind, max_depth, taps, entry, prefix

    Returns a VideoReport: number of frames, flicker in percent, and in one line each, or None, what happened to the
    audio, what was damaged, and which of several videos in the file was used.

    Timestamps, durations, pixel shape and audio are kept. A call that was stopped, or a killed process, goes on when it
    is made again, to the same result: until all is done, work is kept in a hidden folder beside dst.

    Raises Dav2Error, in one line, for what cannot be read or written, and while another process is making dst.
    """
    from dav2_jax.inference.predictor import usual_batch_size

    if input_size is not None:
        check_input_size(input_size)
    named = isinstance(model, str | os.PathLike)
    if load_options and not named:
        raise Dav2Error(f"{', '.join(load_options)}: is for a model given by its name, and this one is loaded already")
    if batch_size is None:
        batch_size = usual_batch_size(None if named else model.devices)

    def load():
        loaded = dav2_jax.load(model, **load_options) if named else model
        return partial(loaded.predict, input_size=input_size, max_pixels=max_pixels, batch_size=batch_size)

    identity = {"model": os.fspath(model)} if named else _identity(model)
    return depth_video(
        load,
        Path(src),
        Path(dst),
        RenderOptions(format, gray, side_by_side, limits, bits),
        fps=fps,
        max_frames=max_frames,
        batch_size=batch_size,
        max_pixels=max_pixels,
        model=identity | {"input_size": input_size} | {name: str(value) for name, value in load_options.items()},
        overwrite=overwrite,
        progress=progress,
    )


def _identity(model: Model) -> dict[str, str]:
    """All of a loaded model that decides its values, so that unfinished work is never continued with another one."""
    import jax

    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
    return {"params": digest.hexdigest(), "config": f"{model.config}", "dtype": f"{model.dtype}"}
