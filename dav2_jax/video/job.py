"""A video, or a folder of frames, to its depth: frames in, steady depth out, in constant memory, resumable.

Frames go through in chunks. A finished chunk stays in the work folder (`video_work`) with all that the next one needs
to know, so a run that was stopped in any way goes on behind its last finished chunk, to the same result as without the
stop. At the end the chunks are joined, the audio is copied, and the whole appears under its name at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import sys
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

import dav2_jax
from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic, save_png
from dav2_jax.image.read import MAX_PIXELS
from dav2_jax.inference.depth import STRIP_WIDTH, Depth
from dav2_jax.inference.formats import FORMATS
from dav2_jax.video.source import open_source
from dav2_jax.video.steady import CutDetector, Flicker, SteadyRange
from dav2_jax.video.work import Work
from dav2_jax.video.writer import CONTAINERS, ChunkEncoder, Container, join

CHUNK = 64  # frames: a stop loses the work on less than that

Predict = Callable[[Iterator[np.ndarray]], Iterator[Depth]]
Format = Literal["picture", "npz", "npy", "png16", "exr"]


@dataclasses.dataclass(frozen=True)
class Look:
    """What to write of each frame.

    format        "picture", or the values themselves, one file a frame: npz npy png16 exr (`formats.FORMATS`)
    gray          pictures in gray, not in colors
    side_by_side  frame, white strip and depth in one picture
    limits        values to draw at the ends of the colors; None: 0 and max_depth for metres, a steady range otherwise
    """

    format: Format = "picture"
    gray: bool = False
    side_by_side: bool = False
    limits: tuple[float, float] | None = None

    def draw(self, depth: Depth, limits: tuple[float, float]) -> np.ndarray:
        """(H, W or 2W + 50, 3) uint8 RGB"""
        if self.side_by_side:
            return depth.side_by_side(limits, gray=self.gray)
        return np.repeat(depth.gray(limits)[..., None], 3, axis=-1) if self.gray else depth.color(limits)

    def shape(self, depth: Depth) -> tuple[int, int]:
        """(H, W) of what `draw` gives."""
        height, width = depth.shape
        return height, 2 * width + STRIP_WIDTH if self.side_by_side else width

    @property
    def suffix(self) -> str:
        name = "side-by-side" if self.side_by_side else "gray" if self.gray else "color"
        return FORMATS[name if self.format == "picture" else self.format].suffix


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """What became of a video; `str(report)` sums up.

    audio           "audio copied", "no audio" or why it was left out; None for a folder of frames
    flicker         percent of the range, see `steady.Flicker`; None without pictures, or where nothing stood still
    flicker_before  the same when each frame is drawn from its own smallest to its own largest value, as the official
                    code does
    damage          one line about frames that could not be decoded, or None
    """

    out: Path
    frames: int
    audio: str | None
    flicker: float | None
    flicker_before: float | None
    damage: str | None

    def __str__(self) -> str:
        said = [f"{self.out}: {self.frames} frames"] + ([self.audio] if self.audio else [])
        if self.flicker is not None:
            said.append(f"flicker {self.flicker:.2f} % of the range (frame by frame: {self.flicker_before:.2f} %)")
        return ", ".join(said)


def depth_video(
    load: Callable[[], Predict],
    src: Path,
    out: Path,
    look: Look = Look(),
    *,
    fps: float | None = None,
    max_frames: int | None = None,
    batch_size: int = 1,
    max_pixels: int = MAX_PIXELS,
    model: dict | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> VideoReport:
    """Predicts all frames of `src` and writes them to `out`.

    load        gives the function from an iterator of frames, uint8 RGB [H, W, 3], to one of their Depths, each with
                its frame as `image`, in order. Called after all else was checked, and only if there are frames left.
    src         a video file or a folder of pictures
    out         a video file, by its extension (`video_output.CONTAINERS`), else a folder: files numbered from 000000,
                or named after the pictures of src
    fps         frames per second of a folder (24 without); of a video, use at most so many frames of each second
    max_frames  stop after that many
    batch_size  that of `predict`: chunks are whole batches, so that batches are the same after a stop
    model       name, input size and all else that decides the values, as JSON: no other one continues
    overwrite   replace `out` where it is a file, and throw away unfinished work made with other options
    progress    show a bar on a terminal; the summary goes to stdout either way

    Raises Dav2Error in one line for what a user can cause. After that, Ctrl-C or a crash, the same call goes on.
    """
    for name, value in (("batch_size", batch_size), ("max_frames", max_frames), ("fps", fps)):
        if value is not None and not value > 0:
            raise Dav2Error(f"{name} (--{name.replace('_', '-')}) is {value:g}: give a number above 0")
    container = _check(src, out, look, overwrite)
    source = open_source(src, fps=fps, max_pixels=max_pixels)
    manifest = {
        "version": f"{dav2_jax.__version__}, PyAV {version('av')}",
        "input": source.fingerprint(),
        "look": f"{look}",
        "fps": fps,
        "max_frames": max_frames,
        "batch_size": batch_size,
        "model": model,
    }
    try:
        work = Work(out, manifest, start_over=overwrite)
        job = _Job(source, work, look, container, out, chunk=-(-CHUNK // batch_size) * batch_size)
        try:
            job.run(load, max_frames, progress and sys.stderr.isatty())
            report = job.finish(cut=max_frames is not None)
        except BaseException:
            if work.frames:
                _say(f"{out}: {work.frames} frames are finished and kept: the same command goes on from there")
            else:
                work.remove()
            raise
    except OSError as error:
        raise Dav2Error(_explain(error, out)) from error
    if report.damage:
        _say(report.damage)
    print(report)
    return report


class _Job:
    """The frames that are left, chunk after chunk, and the end."""

    def __init__(self, source, work: Work, look: Look, container, out: Path, chunk: int):
        self.source, self.work, self.look, self.container, self.out, self.chunk = (
            source, work, look, container, out, chunk,
        )  # fmt: skip
        self.cuts, self.range, self.steady, self.alone = CutDetector(), SteadyRange(), Flicker(), Flicker()
        self.memory = {"cuts": self.cuts, "range": self.range, "steady": self.steady, "alone": self.alone}
        work.recall(**self.memory)

    def run(self, load: Callable[[], Predict], max_frames: int | None, progress: bool) -> None:
        done, total = self.work.frames, self.source.total
        if max_frames is not None:
            total = min(max_frames, total or max_frames)
        frames = islice(self.source.frames(done), None if max_frames is None else max_frames - done)
        first = next(frames, None)
        if first is None:
            return
        ahead: deque[int] = deque()  # timestamps of the frames that the model has or had

        def images():
            for frame in chain([first], frames):
                ahead.append(frame.pts)
                yield frame.image

        depths = iter(load()(images()))
        try:
            with tqdm(total=total, initial=done, unit="frame", disable=not progress, dynamic_ncols=True) as bar:
                while (head := next(depths, None)) is not None:
                    times: list[int] = []
                    with self._chunk_writer(head) as write:
                        for depth in chain([head], islice(depths, self.chunk - 1)):
                            write(self.work.frames + len(times), ahead[0], depth)
                            times.append(ahead.popleft())
                            bar.update()
                    self.work.finish_chunk(times, **self.memory)
        finally:
            if hasattr(depths, "close"):  # a predictor with threads ends them
                depths.close()

    @contextlib.contextmanager
    def _chunk_writer(self, first: Depth) -> Iterator[Callable[[int, int, Depth], None]]:
        """A function (number of the frame, timestamp, depth) that writes one frame of a chunk."""
        if self.container is not None:
            height, width = self.look.shape(first)
            path = self.work.chunk(len(self.work.times), self.out.suffix)
            with ChunkEncoder(path, self.container, (height, width), self.source) as encoder:
                yield lambda number, pts, depth: encoder.write(self._picture(depth, pts), pts)
            return
        folder = self.work.folder / "frames"
        folder.mkdir(exist_ok=True)

        def write(number, pts, depth):
            path = folder / f"{self.source.name(number)}{self.look.suffix}"
            if self.look.format != "picture":
                FORMATS[self.look.format].write(depth, path)
                return
            with atomic(path) as temporary:
                save_png(self._picture(depth, pts), temporary)

        yield write

    def _picture(self, depth: Depth, pts: int) -> np.ndarray:
        """The frame as it is drawn, and counted in both flicker figures."""
        cut = self.cuts.is_cut(depth.image)
        limits = self.look.limits
        if limits is None and depth.unit == "metres" and depth.max_depth is not None:
            limits = 0.0, depth.max_depth
        if limits is None:
            limits = self.range.limits(depth.values, float(pts * self.source.time_base), cut)
        known = depth.values[np.isfinite(depth.values)]
        own = (known.min(), known.max()) if known.size else (0.0, 0.0)
        self.steady.add(depth.image, depth.values, limits, cut)
        self.alone.add(depth.image, depth.values, own, cut)
        return self.look.draw(depth, limits)

    def finish(self, cut: bool) -> VideoReport:
        """Puts the whole under its name and removes the work folder."""
        frames, audio = self.work.frames, None
        if self.container is None:
            if self.out.is_dir():
                self.out.rmdir()  # it was empty
            for leftover in (self.work.folder / "frames").glob(".dav2-*.tmp"):  # of a run that was killed
                leftover.unlink()
            (self.work.folder / "frames").rename(self.out)
        else:
            chunks = [(self.work.chunk(n, self.out.suffix), times) for n, times in enumerate(self.work.times)]
            joined = self.work.folder / f"joined{self.out.suffix}"
            end = (int(self.work.times[-1][-1]) + 1) * self.source.time_base
            audio = join(chunks, joined, self.container, self.source, until=end if cut else None)
            joined.replace(self.out)
        self.work.remove()
        return VideoReport(self.out, frames, audio, self.steady.percent, self.alone.percent, self.source.damage)


def _check(src: Path, out: Path, look: Look, overwrite: bool) -> Container | None:
    """The container of `out`, None for a folder of frames. Raises Dav2Error for what cannot be."""
    if look.format not in get_args(Format):
        raise Dav2Error(f"unknown format {look.format!r}: use one of {', '.join(get_args(Format))}")
    if look.format != "picture" and (look.gray or look.side_by_side or look.limits):
        raise Dav2Error(f"gray, side by side and range are for pictures, and format is {look.format}: leave one away")
    if look.limits and not (np.isfinite(look.limits).all() and look.limits[0] < look.limits[1]):
        raise Dav2Error(f"range (--range) is {look.limits[0]:g} to {look.limits[1]:g}: give the smaller value first")
    container = None if out.is_dir() else CONTAINERS.get(out.suffix.lower())
    if container is None and out.suffix and not out.is_dir():
        raise Dav2Error(
            f"{out}: {out.suffix} is none of {' '.join(CONTAINERS)}: use one, or a folder for one file a frame"
        )
    if container is not None and look.format != "picture":
        raise Dav2Error(f"{out}: {look.format} is one file a frame: name a folder, without an extension")
    if out.exists() and src.exists() and out.samefile(src):
        raise Dav2Error(f"{out}: is the input: name another output")
    if out.is_dir() and any(out.iterdir()):
        raise Dav2Error(f"{out}: the folder is not empty: name a new one, or remove it")
    if out.is_file() and container is None:
        raise Dav2Error(f"{out}: is a file: name a folder, or a video such as {out}.mp4")
    if out.is_file() and not overwrite:
        raise Dav2Error(f"{out}: exists: name another output, or replace it with --overwrite")
    return container


def _explain(error: OSError, out: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{out}: no space left: free some and run the same command again, it goes on where it stopped"
    where = f" ({error.filename})" if error.filename and str(error.filename) != str(out) else ""
    return f"{out}: {error.strerror or error}{where}: check that it can be written"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
