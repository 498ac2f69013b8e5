"""Frames of a video: of a video file through PyAV, of an animated WebP through Pillow, or of a folder of pictures.

All give `Frame`s, upright uint8 RGB of one size with their times, in order and one at a time.

From a file: every frame that decodes, at its own time (the rate may vary) and for as long as it is shown, turned and
mirrored as the display matrix says. YUV becomes RGB by the matrix and range that the file states; where it states none,
BT.709 for high definition (720 lines or more) and BT.601 below, as players do. HDR is not tone mapped and interlaced
video is left as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import MAX_PIXELS, read_image
from dav2_jax.inference.inputs import find_inputs
from dav2_jax.video import probe
from dav2_jax.video.probe import Orientation

FOLDER_FPS = 24
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HIGH_DEFINITION = 720  # lines
_LEAST_HOLD = Fraction(3, 2)  # frames: a stated end that is later than the last frame's own by more holds that frame
_CUT_MARGIN = 2  # frames that may be missing where bytes are: what is cut off first is an index
_WEBP_DURATION = 100  # ms, of frames that state 0: as browsers show them


class Frame(NamedTuple):
    pts: int  # timestamp, in units of the source's time_base
    duration: int  # until the next frame, or the end, in the same units
    image: np.ndarray  # (H, W, 3) uint8 RGB


class VideoFile:
    """A video file. Attributes:

    time_base  seconds of one unit of `pts`, a Fraction
    rate       average frames per second, a Fraction
    aspect     shape of a pixel, width / height, a Fraction; the depth video keeps it
    total      number of frames as the file states it, approximate; None where it does not
    note       which of several video streams is used, one line, or None
    damage     what went wrong while decoding, one line, or None; known when the frames have been read

    Raises Dav2Error for a file without a video that can be decoded, and for one of more than `max_pixels` a frame.
    """

    def __init__(self, path: Path, *, fps: float | None = None, max_pixels: int = MAX_PIXELS):
        import av

        self.path, self.damage = path, None
        try:
            with probe.open_av(path) as container:
                stream = probe.video_stream(container, path)
                context = stream.codec_context
                _check_pixels(path, context.width, context.height, max_pixels)
                aspect = Fraction(stream.sample_aspect_ratio or 1)
                self.note = probe.choice_note(container, stream, path)
                self.time_base = stream.time_base
                self.rate = stream.average_rate or stream.guessed_rate or Fraction(FOLDER_FPS)
                self._end = probe.stated_end(container, stream)
                start = (stream.start_time or 0) * self.time_base
                self.total = self._stated = stream.frames or (
                    round((self._end - start) * self.rate) if self._end and self._end > start else None
                )
        except av.FFmpegError as error:
            raise Dav2Error(f"{path}: cannot be opened as a video ({error.strerror}): check the file") from error
        self._step = max(round(1 / (self.rate * self.time_base)), 1)  # for frames without a timestamp or duration
        with contextlib.closing(self._decode()) as decoded:
            first = next(decoded, None)
        if first is None:
            raise Dav2Error(f"{path}: no frame of it can be decoded: the file is empty, damaged or cut short")
        self._orientation = Orientation.of(first)
        self._size = first.width, first.height
        self.aspect = 1 / aspect if self._orientation.transpose else aspect
        self._fps = None if fps is None else _rate(fps)
        if fps is not None and fps < self.rate:
            self.total = self.total and max(round(self.total * fps / self.rate), 1)
            self.rate = self._fps

    def name(self, index: int) -> str:
        return f"{index:06d}"

    def fingerprint(self) -> str:
        return _fingerprint(self.path)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The frames from number `start`. Those before are decoded and dropped: a jump to a timestamp is not exact in
        all files, and decoding takes little beside the model.
        """
        shown = _shown(self._timed(), self.time_base, self._fps, self._held_until)
        for index, (pts, duration, frame) in enumerate(shown):
            if index >= start:
                yield Frame(pts, duration, self._rgb(frame))

    def _timed(self) -> Iterator[tuple[int, int, Any]]:
        """(timestamp, when the frame itself ends, frame)"""
        last = None
        for frame in self._decode():
            pts = frame.pts
            if pts is None or (last is not None and pts <= last):  # no timestamps, or broken ones
                pts = 0 if last is None else last + (self._step if pts is None else 1)
            last = pts
            yield pts, pts + (frame.duration or self._step), frame

    def _held_until(self, end: int) -> int:
        """When the last frame ends: in AVI, FLV and many Matroska files its own duration is that of all frames, and
        only the length of the video is true."""
        stated = end if self._end is None else int(self._end / self.time_base)
        return stated if stated > end + _LEAST_HOLD * self._step and self.damage is None else end

    def _decode(self):
        import av

        frames_read, faulty, cut, end = 0, 0, False, None
        with probe.open_av(self.path) as container:
            stream = probe.video_stream(container, self.path)
            stream.thread_type = "AUTO"
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError:
                    faulty, packet = faulty + 1, None
                try:
                    frames = stream.codec_context.decode(packet)  # None: those that the decoder still holds
                except av.EOFError:  # it has given them already
                    frames = []
                except av.FFmpegError:
                    faulty, frames = faulty + 1, []
                for frame in frames:
                    frames_read, faulty = frames_read + 1, faulty + frame.is_corrupt
                    end = None if frame.pts is None else (frame.pts + frame.duration) * self.time_base
                    yield frame
                if packet is None:
                    break
                cut = packet.is_corrupt if packet.size else cut  # of the last packet, a part only
            margin = _CUT_MARGIN * self._step * self.time_base
            missing = None in (container.duration, end) or end < container.duration / 1e6 - margin
        if faulty or cut or (missing and probe.is_cut_short(self.path)):
            of = f" of {self._stated} frames" if self._stated else " frames"
            self.damage = (
                f"{self.path}: damaged or cut short: {frames_read}{of} could be decoded, and these were used"
                + (f" ({faulty} errors)" if faulty else "")
            )

    def _rgb(self, frame) -> np.ndarray:
        from av.video.reformatter import Colorspace

        matrix = None
        if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
            matrix = Colorspace.ITU709 if frame.height >= _HIGH_DEFINITION else Colorspace.ITU601
        width, height = self._size  # of the first frame, which a stream may leave later
        image = frame.to_ndarray(format="rgb24", width=width, height=height, src_colorspace=matrix)
        return self._orientation.apply(image)


class AnimatedWebP:
    """An animated WebP, which FFmpeg does not decode. Attributes, arguments and errors as in `VideoFile`."""

    def __init__(self, path: Path, *, fps: float | None = None, max_pixels: int = MAX_PIXELS):
        self.path, self.damage, self.note = path, None, None
        self.time_base, self.aspect = Fraction(1, 1000), Fraction(1)
        with _open_picture(path) as image:
            _check_pixels(path, *image.size, max_pixels)
            self.total = image.n_frames
        ends = [end for _, end, _ in self._timed()]
        if not ends:
            raise Dav2Error(f"{path}: no frame of it can be decoded: the file is damaged or cut short")
        self.rate = Fraction(1000 * len(ends), ends[-1])
        self._fps = None if fps is None else _rate(fps)
        if fps is not None and fps < self.rate:
            self.total, self.rate = max(round(self.total * fps / self.rate), 1), self._fps

    def name(self, index: int) -> str:
        return f"{index:06d}"

    def fingerprint(self) -> str:
        return _fingerprint(self.path)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        for index, (pts, duration, image) in enumerate(_shown(self._timed(), self.time_base, self._fps)):
            if index >= start:
                yield Frame(pts, duration, image)

    def _timed(self) -> Iterator[tuple[int, int, np.ndarray]]:
        pts = 0
        with _open_picture(self.path) as image:
            for number in range(image.n_frames):
                try:
                    image.seek(number)
                    pixels = np.asarray(image.convert("RGB"))
                except (OSError, EOFError, SyntaxError, ValueError):
                    self.damage = (
                        f"{self.path}: damaged or cut short: {number} of {image.n_frames} frames could be decoded, and "
                        "these were used"
                    )
                    return
                duration = int(image.info.get("duration") or _WEBP_DURATION)
                yield pts, pts + duration, pixels
                pts += duration


class PictureFolder:
    """A folder of pictures, one a frame, sorted as people count: 2.png before 10.png. Attributes as in `VideoFile`.

    fps  frames per second, 24 unless given

    Raises Dav2Error for a folder without pictures; while reading, for a picture of another size or one that is damaged.
    """

    def __init__(self, path: Path, *, fps: float | None = None, max_pixels: int = MAX_PIXELS):
        photos, _ = find_inputs([str(path)])
        self._paths = sorted((p.path for p in photos if p.path.parent == path), key=lambda p: _natural(p.name))
        if not self._paths:
            raise Dav2Error(f"{path}: the folder holds no picture: name a video file or a folder of frames")
        self.path, self.damage, self.note, self.max_pixels = path, None, None, max_pixels
        self.rate = _rate(FOLDER_FPS if fps is None else fps)
        self.time_base, self.aspect, self.total = 1 / self.rate, Fraction(1), len(self._paths)

    def name(self, index: int) -> str:
        return self._paths[index].name

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in self._paths:
            status = path.stat()
            digest.update(os.fsencode(path.name) + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def frames(self, start: int = 0) -> Iterator[Frame]:
        size = None
        for index, path in enumerate(self._paths[start:], start):
            image, _ = read_image(path, max_pixels=self.max_pixels)
            size = size or (read_image(self._paths[0])[0].shape if start else image.shape)
            if image.shape != size:
                raise Dav2Error(
                    f"{path}: {image.shape[1]} x {image.shape[0]} pixels where the first frame has "
                    f"{size[1]} x {size[0]}: all frames of a video have one size"
                )
            yield Frame(index, 1, image)


Source = VideoFile | AnimatedWebP | PictureFolder


def open_source(path: Path, *, fps: float | None = None, max_pixels: int = MAX_PIXELS) -> Source:
    """The source at `path`. fps: for a folder, its rate; for a file, at most so many frames of each second are used.

    Raises Dav2Error where there is none, in one line that starts with the path.
    """
    if not path.exists():
        raise Dav2Error(f"{path}: no such file or folder: check the path")
    kind = PictureFolder if path.is_dir() else AnimatedWebP if _is_animated_webp(path) else VideoFile
    return kind(path, fps=fps, max_pixels=max_pixels)


def _shown(
    timed: Iterable[tuple[int, int, Any]],
    time_base: Fraction,
    fps: Fraction | None,
    held_until: Callable[[int], int] = lambda end: end,
) -> Iterator[tuple[int, int, Any]]:
    """(timestamp, duration until the next one, frame), at most `fps` of each second, from (timestamp, end, frame)."""
    held, end = None, 0
    for pts, end, frame in timed:  # noqa: B007  the last end is needed behind the loop
        if held is not None and fps is not None and int(pts * time_base * fps) == int(held[0] * time_base * fps):
            continue
        if held is not None:
            yield held[0], pts - held[0], held[1]
        held = pts, frame
    if held is not None:
        yield held[0], max(held_until(end) - held[0], 1), held[1]


def _is_animated_webp(path: Path) -> bool:
    """By the animation flag of the extended header."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(21)
        return len(head) == 21 and head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)
    return False


def _open_picture(path: Path):
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(path)
        except (OSError, SyntaxError, ValueError) as error:
            raise Dav2Error(f"{path}: cannot be opened as an animated WebP: check the file") from error


def _check_pixels(path: Path, width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise Dav2Error(f"{path}: {width} x {height} pixels are over the limit of {limit:,}: raise max_pixels")


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} bytes, {status.st_mtime_ns}"


def _rate(fps: float) -> Fraction:
    """29.97 means 30000/1001."""
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return ntsc if abs(ntsc - Fraction(fps)) < 0.001 else Fraction(fps).limit_denominator(1001)


def _natural(name: str) -> list:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
