"""A video, or a folder of frames, to its depth: frames in, steady depth out, in constant memory, resumable.

Frames are processed in chunks. A finished chunk stays in the work folder (`work`) together with the state that the next
one starts from, so an interrupted run resumes after its last finished chunk, to the same result. At the end the chunks
are joined, the audio is copied, and the output appears under its name at once.
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

import numpy as np
from tqdm import tqdm

import dav2_jax
from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic, save_png
from dav2_jax.image.read import MAX_PIXELS
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.formats import FORMATS
from dav2_jax.video.render import RenderOptions
from dav2_jax.video.source import Source, open_source
from dav2_jax.video.steady import CutDetector, Flicker, SteadyRange
from dav2_jax.video.work import Work, locked
from dav2_jax.video.writer import CONTAINERS, ChunkEncoder, Codec, Container, join

CHUNK = 64  # frames: an interruption loses fewer

Predict = Callable[[Iterator[np.ndarray]], Iterator[Depth]]


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """Result of `depth_video`; `str(report)` is the one-line summary.

    audio           "audio copied", "no audio" or why it was left out; None for a folder of frames
    flicker         percent of the range, see `steady.Flicker`; None without pictures, or where nothing stood still
    flicker_before  the same when each frame is drawn from its own smallest to its own largest value, as the official
                    code does
    damage          one line about frames that could not be decoded, or None
    note            one line about a choice that was made, such as one of several video streams, or None
    """

    out: Path
    frames: int
    audio: str | None
    flicker: float | None
    flicker_before: float | None
    damage: str | None
    note: str | None = None

    def __str__(self) -> str:
        parts = [f"{self.out}: {self.frames} frames"] + ([self.audio] if self.audio else [])
        if self.flicker is not None:
            parts.append(f"flicker {self.flicker:.2f} % of the range (frame by frame: {self.flicker_before:.2f} %)")
        return ", ".join(parts)


def depth_video(
    load: Callable[[], Predict],
    src: Path,
    out: Path,
    render: RenderOptions | None = None,
    *,
    fps: float | None = None,
    max_frames: int | None = None,
    batch_size: int = 1,
    max_pixels: int = MAX_PIXELS,
    model: dict | None = None,
    overwrite: bool = False,
    progress: bool = True,
    chunk: int = CHUNK,
) -> VideoReport:
    """Predicts all frames of `src` and writes them to `out`.

    load        returns the function from an iterator of frames, uint8 RGB [H, W, 3], to an iterator of their Depths,
                in order, each with its frame as `image`. Called after all checks, and only if frames are left.
    src         a video file or a folder of pictures
    out         a video file, by its extension (`writer.CONTAINERS`), else a folder: files numbered from 000000, or
                named after the pictures of src
    render      what to write of each frame; None: pictures in color
    fps         frames per second of a folder (24 without); of a video, use at most so many frames of each second
    max_frames  stop after this many
    batch_size  of `predict`: chunks are whole batches, so that a resumed run has the same batches
    model       identity of the model, JSON: name, input size and all else that decides the values. A run with another
                one does not resume this one's work
    overwrite   replace `out` where it is a file, and discard unfinished work of other options
    progress    show a bar on a terminal
    chunk       frames per chunk, rounded up to whole batches

    Raises Dav2Error in one line for what a user can cause, also where another process is making `out`. After that,
    Ctrl-C or a crash, the same call goes on.
    """
    for name, value in (("batch_size", batch_size), ("max_frames", max_frames), ("fps", fps)):
        if value is not None and not (value > 0 and np.isfinite(value)):
            raise Dav2Error(f"{name}={value:g}: give a number above 0")
    render = render or RenderOptions()
    encoding = _check(src, out, render, overwrite)
    source = open_source(src, fps=fps, max_pixels=max_pixels)
    if source.note:
        _say(source.note)
    manifest = {
        "version": f"{dav2_jax.__version__}, PyAV {version('av')}",
        "input": source.fingerprint(),
        "render": f"{render}",
        "fps": fps,
        "max_frames": max_frames,
        "batch_size": batch_size,
        "model": model,
    }
    try:
        with locked(out):
            _check(src, out, render, overwrite)  # again: another process may just have made it
            work = Work(out, manifest, start_over=overwrite)
            job = _Job(source, work, render, encoding, out, chunk=-(-chunk // batch_size) * batch_size)
            try:
                job.run(load, max_frames, progress and sys.stderr.isatty())
                return job.finish(truncated=max_frames is not None)
            except BaseException:
                if work.frames:
                    _say(f"{out}: {work.frames} frames are finished and kept: the same command goes on from there")
                else:
                    work.remove()
                raise
    except OSError as error:
        raise Dav2Error(_explain(error, out)) from error


class _Job:
    """Processes the remaining frames chunk by chunk, then assembles the output."""

    def __init__(self, source: Source, work: Work, render: RenderOptions, encoding, out: Path, chunk: int):
        self.source, self.work, self.render, self.encoding, self.out, self.chunk = (
            source, work, render, encoding, out, chunk,
        )  # fmt: skip
        self.cuts, self.range, self.steady, self.alone = CutDetector(), SteadyRange(), Flicker(), Flicker()
        self.state = {"cuts": self.cuts, "range": self.range, "steady": self.steady, "alone": self.alone}
        work.restore(**self.state)

    def run(self, load: Callable[[], Predict], max_frames: int | None, progress: bool) -> None:
        done, total = self.work.frames, self.source.total
        if max_frames is not None:
            total = min(max_frames, total or max_frames)
        frames = islice(self.source.frames(done), None if max_frames is None else max_frames - done)
        first = next(frames, None)
        if first is None:
            return
        ahead: deque[tuple[int, int]] = deque()  # times of the frames that the model has or had

        def images():
            for frame in chain([first], frames):
                ahead.append((frame.pts, frame.duration))
                yield frame.image

        depths = iter(load()(images()))
        try:
            with tqdm(total=total, initial=done, unit="frame", disable=not progress, dynamic_ncols=True) as bar:
                while (head := next(depths, None)) is not None:
                    times: list[tuple[int, int]] = []
                    with self._chunk_writer(head) as write:
                        for depth in chain([head], islice(depths, self.chunk - 1)):
                            write(self.work.frames + len(times), ahead[0][0], depth)
                            times.append(ahead.popleft())
                            bar.update()
                    self.work.finish_chunk(times, **self.state)
        finally:
            if hasattr(depths, "close"):  # a predictor with threads ends them
                depths.close()

    @contextlib.contextmanager
    def _chunk_writer(self, first: Depth) -> Iterator[Callable[[int, int, Depth], None]]:
        """A function (number of the frame, timestamp, depth) that writes one frame of a chunk."""
        if self.encoding is not None:
            path = self.work.chunk(len(self.work.times), self.out.suffix)
            with ChunkEncoder(path, *self.encoding, self.render.picture_size(first), self.source) as encoder:
                yield lambda number, pts, depth: encoder.write(self._picture(depth, pts), pts)
            return
        folder = self.work.folder / "frames"
        folder.mkdir(exist_ok=True)

        def write(number, pts, depth):
            path = folder / f"{self.source.name(number)}{self.render.suffix}"
            if self.render.format != "picture":
                FORMATS[self.render.format].write(depth, path)
                return
            with atomic(path) as temporary:
                save_png(self._picture(depth, pts), temporary)

        yield write

    def _picture(self, depth: Depth, pts: int) -> np.ndarray:
        """Draws a frame, and adds it to both flicker figures."""
        cut = self.cuts.is_cut(depth.image)
        limits = self.render.limits
        if limits is None and depth.unit == "metres" and depth.max_depth is not None:
            limits = 0.0, depth.max_depth
        if limits is None:
            limits = self.range.limits(depth.values, float(pts * self.source.time_base), cut)
        known = depth.values[np.isfinite(depth.values)]
        own = (known.min(), known.max()) if known.size else (0.0, 0.0)
        self.steady.add(depth.image, depth.values, limits, cut)
        self.alone.add(depth.image, depth.values, own, cut)
        return self.render.draw(depth, limits)

    def finish(self, truncated: bool) -> VideoReport:
        """Moves the finished output to its name and removes the work folder."""
        frames, audio = self.work.frames, None
        if self.encoding is None:
            if self.out.is_dir():
                self.out.rmdir()  # it was empty
            for leftover in (self.work.folder / "frames").glob(".dav2-*.tmp"):  # of a run that was killed
                leftover.unlink()
            (self.work.folder / "frames").rename(self.out)
        else:
            chunks = [(self.work.chunk(n, self.out.suffix), times) for n, times in enumerate(self.work.times)]
            joined = self.work.folder / f"joined{self.out.suffix}"
            end = int(self.work.times[-1][-1].sum()) * self.source.time_base
            audio = join(chunks, joined, *self.encoding, self.source, until=end if truncated else None)
            joined.replace(self.out)
        self.work.remove()
        return VideoReport(
            self.out, frames, audio, self.steady.percent, self.alone.percent, self.source.damage, self.source.note
        )


def _check(src: Path, out: Path, render: RenderOptions, overwrite: bool) -> tuple[Container, Codec] | None:
    """How `out` is encoded, None for a folder of frames. Raises Dav2Error for what cannot be."""
    container = None if out.is_dir() else CONTAINERS.get(out.suffix.lower())
    if container is None and out.suffix and not out.is_dir():
        raise Dav2Error(
            f"{out}: {out.suffix} is none of {' '.join(CONTAINERS)}: use one, or a folder for one file a frame"
        )
    if container is not None and render.format != "picture":
        raise Dav2Error(f"{out}: {render.format} is one file a frame: name a folder, without an extension")
    if container is None and render.bits != 8:
        raise Dav2Error(f"{out}: bits={render.bits} is for a video: name one such as {out}.mp4")
    if out.exists() and src.exists() and out.samefile(src):
        raise Dav2Error(f"{out}: is the input: name another output")
    if out.is_dir() and any(out.iterdir()):
        raise Dav2Error(f"{out}: the folder is not empty: name a new one, or remove it")
    if out.is_file() and container is None:
        raise Dav2Error(f"{out}: is a file: name a folder, or a video such as {out}.mp4")
    if out.is_file() and not overwrite:
        raise Dav2Error(f"{out}: exists: name another output, or replace it with overwrite=True")
    return None if container is None else (container, container.codec_for(render.bits))


def _explain(error: OSError, out: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{out}: no space left: free some and run the same command again, it goes on where it stopped"
    where = f" ({error.filename})" if error.filename and str(error.filename) != str(out) else ""
    return f"{out}: {error.strerror or error}{where}: check that it can be written"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
