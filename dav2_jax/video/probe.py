"""What a video file states about itself: which stream to show, which way up, when it ends, whether bytes are missing.

Stated lengths are hints: taggers, recorders and cutters write wrong ones. They decide how long the last frame is held
and never, alone, that a file is damaged.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # element IDs of Matroska
_FLV_TAGS = (b"\x08", b"\x09", b"\x12")  # audio, video, script
_CLOCK = re.compile(
    r"(?:(\d+)\s*(?:days?\b|d\b|[.\s])[\s,]*)?(?:(\d+):)?(\d+):(\d+(?:[.,]\d*)?)",  # [days] [hours:]minutes:seconds
    re.ASCII | re.IGNORECASE,
)
_PLAIN_SECONDS = re.compile(r"(\d+(?:[.,]\d*)?)\s*(?:s|sec|secs|seconds)?", re.ASCII | re.IGNORECASE)


def open_av(path: Path, mode: str = "r", **options):
    """`av.open` for any name of a file, with metadata in any encoding.

    FFmpeg takes "12:30.mp4" for a protocol unless the path is absolute; PyAV expects metadata in UTF-8.
    """
    import av

    return av.open(str(path.absolute()), mode, metadata_errors="surrogateescape", **options)


class Orientation(NamedTuple):
    """How to turn decoded pixels upright: first swap rows with columns, then reverse rows, columns or both."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def of(cls, frame) -> Orientation:
        """From the display matrix of a decoded frame; of matrices in between, the nearest of the eight.

        The matrix [a b; c d] maps a pixel (x, y) to (a x + c y, b x + d y) on the screen.
        """
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, flip_rows=b < 0, flip_columns=c < 0)
        return cls(False, flip_rows=d < 0, flip_columns=a < 0)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) -> (H, W, 3) or (W, H, 3), contiguous"""
        if self.transpose:
            image = image.swapaxes(0, 1)
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in (self.flip_rows, self.flip_columns))
        return np.ascontiguousarray(image[rows, columns])


def video_stream(container, path: Path):
    """The stream that players show: the default one, of several the largest.

    Raises Dav2Error where none can be decoded.
    """
    streams = _videos(container)
    if not streams:
        raise Dav2Error(f"{path}: holds no video stream: give a video file, or a folder of frames")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise Dav2Error(
            f"{path}: this build of FFmpeg (PyAV) has no decoder for its video: convert it to H.264 elsewhere"
        )
    return max(known, key=lambda stream: (bool(stream.disposition & type(stream.disposition).default), _area(stream)))


def choice_note(container, chosen, path: Path) -> str | None:
    """One line where the file holds several videos, such as camera angles; None where there was no choice."""
    streams = _videos(container)
    if len(streams) < 2:
        return None
    sizes = (f"{s.codec_context.width} x {s.codec_context.height}" if s.codec_context else "unknown" for s in streams)
    listed = ", ".join(f"{stream.index} ({size})" for stream, size in zip(streams, sizes, strict=True))
    return f"{path}: holds {len(streams)} video streams, {listed}: stream {chosen.index} is used"


def _videos(container) -> list:
    """All video streams but covers of music files, and still pictures beside a moving one, as in an AVIF sequence."""
    streams = [s for s in container.streams.video if not s.disposition & type(s.disposition).attached_pic]
    return [s for s in streams if s.frames != 1] or streams


def _area(stream) -> int:
    return stream.codec_context.width * stream.codec_context.height


def stated_end(container, stream) -> Fraction | None:
    """Seconds at which the video ends, as the file states it; None where it does not, or only for all its streams."""
    alone = len(container.streams) == 1
    whole = Fraction(container.duration, 1_000_000) if container.duration else None
    if stream.duration and (stream.frames or alone):
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    for key, text in stream.metadata.items():
        if key.upper() == "DURATION" and (seconds := tag_seconds(text)):  # Matroska
            return seconds if whole is None else min(seconds, whole)  # tags survive cutting, and are wrong then
    return whole if alone else None


def tag_seconds(text: str) -> Fraction | None:
    """Seconds of a DURATION tag, "00:00:01.042000000" as FFmpeg and mkvmerge write it, or as other programs do.

    None for what is no length (N/A, blank, frames behind a semicolon): nothing is guessed.
    """
    text = text.strip().strip("\0")
    if match := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (Fraction((part or "0").replace(",", ".")) for part in match.groups())
        return 86400 * days + 3600 * hours + 60 * minutes + seconds
    if match := _PLAIN_SECONDS.fullmatch(text):
        return Fraction(match[1].replace(",", "."))
    return None


def is_cut_short(path: Path) -> bool:
    """Whether a file has fewer bytes than its outermost elements state: Matroska, WebM, MP4, QuickTime, AVI and FLV.

    FFmpeg reads such a file without an error where it ends between two packets.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        if head.startswith(_EBML):
            content, at = _ebml_size(head, len(_EBML))
            at += content or 0
            if head[at : at + 4] != _SEGMENT:
                return False
            content, at = _ebml_size(head, at + 4)
            return content is not None and at + content > size
        if head.startswith(b"FLV"):  # each tag is followed by its length
            file.seek(-4, 2)
            file.seek(max(size - 4 - int.from_bytes(file.read(4)), 0))
            return file.read(1) not in _FLV_TAGS
        element_length = _riff_element if head.startswith(b"RIFF") else _box
        at = 0
        while at < size:
            file.seek(at)
            length = element_length(file.read(16))
            if not length:
                return False
            at += length
    return at > size


def _riff_element(head: bytes) -> int | None:
    """Length of a RIFF list, of which a large AVI file has several; None for what is none."""
    return 8 + int.from_bytes(head[4:8], "little") if head.startswith(b"RIFF") else None


def _box(head: bytes) -> int | None:
    """Length of a box of MP4; None for what is none, and for one that reaches to the end of the file."""
    if not (len(head) >= 8 and head[4:8].isalnum()):
        return None
    length = int.from_bytes(head[:4])
    length = int.from_bytes(head[8:16]) if length == 1 else length
    return length if length >= 8 else None


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """(size of an element's content, where that starts); None for "unknown", which live recorders write."""
    length = 9 - data[at : at + 1].ljust(1, b"\0")[0].bit_length()
    value = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length
