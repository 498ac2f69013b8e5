"""Where the frames of a video come from: a video file through PyAV, or a folder of pictures.

Both give `Frame`s, upright uint8 RGB of one size with their timestamps, in order and one at a time.

From a file: every frame that decodes, at its own time (the rate may vary), turned as its display matrix says. YUV goes
to RGB by the matrix and range that the file states; where it states none, BT.709 for high definition (720 lines or
more) and BT.601 below, as players do. HDR is not tone mapped and interlaced video is left as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import MAX_PIXELS, read_image
from dav2_jax.inference.inputs import find_inputs

FOLDER_FPS = 24
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HIGH_DEFINITION = 720  # lines


class Frame(NamedTuple):
    pts: int  # timestamp, in units of the source's time_base
    image: np.ndarray  # (H, W, 3) uint8 RGB


class VideoFile:
    """A video file. Attributes:

    time_base  seconds of one unit of `pts`, a Fraction
    rate       average frames per second, a Fraction
    aspect     shape of a pixel, width / height, a Fraction; the depth video keeps it
    total      number of frames as the file says, approximate; None where it does not
    damage     what went wrong while decoding, one line, or None; known when the frames have been read

    Raises Dav2Error for a file without a video that can be decoded, and for one of more than `max_pixels` a frame.
    """

    def __init__(self, path: Path, *, fps: float | None = None, max_pixels: int = MAX_PIXELS):
        import av

        self.path, self.damage = path, None
        self._fps = None if fps is None else _rate(fps)
        try:
            with av.open(str(path)) as container:
                stream = _video_stream(container, path)
                context = stream.codec_context
                if context.width * context.height > max_pixels:
                    raise Dav2Error(
                        f"{path}: {context.width} x {context.height} pixels are over the limit of {max_pixels:,}: "
                        "raise max_pixels (--max-pixels)"
                    )
                aspect = Fraction(stream.sample_aspect_ratio or 1)
                self.time_base = stream.time_base
                self.rate = stream.average_rate or stream.guessed_rate or Fraction(FOLDER_FPS)
                self._seconds = _seconds(container, stream)
                self.total = self._stated = stream.frames or (
                    round(self._seconds * self.rate) if self._seconds else None
                )
        except av.FFmpegError as error:
            raise Dav2Error(f"{path}: cannot be opened as a video ({error.strerror}): check the file") from error
        with contextlib.closing(self._decode()) as decoded:
            first = next(decoded, None)
        if first is None:
            raise Dav2Error(f"{path}: no frame of it can be decoded: the file is empty, damaged or cut short")
        self._turns = round(first.rotation / 90) % 4
        self._size = first.width, first.height
        self.aspect = 1 / aspect if self._turns % 2 else aspect
        self._step = max(round(1 / (self.rate * self.time_base)), 1)  # for frames without a timestamp
        if fps is not None and fps < self.rate:
            self.total = self.total and max(round(self.total * fps / self.rate), 1)
            self.rate = self._fps

    def name(self, index: int) -> str:
        return f"{index:06d}"

    def fingerprint(self) -> str:
        status = self.path.stat()
        return f"{status.st_size} bytes, {status.st_mtime_ns}"

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The frames from number `start`. Those before are decoded and dropped: a jump to a timestamp is not exact in
        all files, and decoding takes little beside the model.
        """
        last, slot, index = None, None, 0
        for frame in self._decode():
            pts = frame.pts
            if pts is None or (last is not None and pts <= last):  # no timestamps, or broken ones
                pts = 0 if last is None else last + (self._step if pts is None else 1)
            last = pts
            if self._fps is not None:
                before, slot = slot, int(pts * self.time_base * self._fps)
                if slot == before:
                    continue
            if index >= start:
                yield Frame(pts, self._rgb(frame))
            index += 1

    def _decode(self):
        import av

        frames_read, faulty, first, last = 0, 0, None, None
        with av.open(str(self.path)) as container:
            stream = _video_stream(container, self.path)
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
                    first, last = (frame.time if first is None else first), frame.time
                    yield frame
                if packet is None:
                    break
        ends_early = None not in (self._seconds, first, last) and last - first < 0.98 * self._seconds - 0.5
        if faulty or ends_early:
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
        return np.ascontiguousarray(np.rot90(image, self._turns)) if self._turns else image


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
        self.path, self.damage, self.max_pixels = path, None, max_pixels
        self.rate = _rate(FOLDER_FPS if fps is None else fps)
        self.time_base, self.aspect, self.total = 1 / self.rate, Fraction(1), len(self._paths)

    def name(self, index: int) -> str:
        return self._paths[index].name

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in self._paths:
            status = path.stat()
            digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
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
            yield Frame(index, image)


def open_source(path: Path, *, fps: float | None = None, max_pixels: int = MAX_PIXELS) -> VideoFile | PictureFolder:
    """The source at `path`. fps: for a folder, its rate; for a file, at most so many frames of each second are used.

    Raises Dav2Error where there is none, in one line that starts with the path.
    """
    if not path.exists():
        raise Dav2Error(f"{path}: no such file or folder: check the path")
    return (PictureFolder if path.is_dir() else VideoFile)(path, fps=fps, max_pixels=max_pixels)


def _video_stream(container, path):
    for stream in container.streams.video:
        if not (stream.disposition & stream.disposition.__class__.attached_pic):  # the cover of a music file
            return stream
    raise Dav2Error(f"{path}: holds no video stream: give a video file, or a folder of frames")


def _seconds(container, stream) -> float | None:
    """Length of the video stream as the file states it; None where it states only that of its longest stream."""
    if "DURATION" in stream.metadata:  # Matroska
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    if stream.duration and (stream.frames or len(container.streams) == 1):
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration and len(container.streams) == 1 else None


def _rate(fps: float) -> Fraction:
    """29.97 means 30000/1001."""
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return ntsc if abs(ntsc - Fraction(fps)) < 0.001 else Fraction(fps).limit_denominator(1001)


def _natural(name: str) -> list:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
