"""Pictures to a video file, in chunks: each chunk is a small file, and in the end they are joined unchanged.

H.264 (VP9 for .webm) in yuv420p, which every player shows, or HEVC in yuv420p10le (Main 10, as phones record), with the
matrix of BT.709, and tagged so. That needs even sizes: an odd width or height grows by one, the last column or row
again. There are no B-frames, so packets are in the order of time and joining chunks is giving packets their timestamps.
Pixels keep their shape, but .webm cannot say it.
"""

from __future__ import annotations

import contextlib
import heapq
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.video.probe import open_av
from dav2_jax.video.source import Source, VideoFile


class Codec(NamedTuple):
    encoder: str
    options: dict[str, str]
    pix_fmt: str
    tag: str | None = None  # in MP4 and QuickTime, where FFmpeg's own choice does not play everywhere


class Container(NamedTuple):
    muxer: str
    codec: Codec
    fine: Codec | None  # for 10 bits a sample

    def codec_for(self, bits: int) -> Codec:
        """Raises Dav2Error where there is none for so many bits."""
        codec = self.codec if bits == 8 else self.fine
        if codec is None:
            fit = " ".join(suffix for suffix, container in CONTAINERS.items() if container.fine)
            raise Dav2Error(f"{self.muxer} takes 8 bits only, not bits={bits}: use one of {fit}")
        return codec


_H264 = Codec("libx264", {"preset": "veryfast", "crf": "17", "bf": "0"}, "yuv420p")
_VP9 = Codec("libvpx-vp9", {"crf": "24", "b": "0", "cpu-used": "6", "row-mt": "1", "lag-in-frames": "0"}, "yuv420p")
# Without cu-tree, whose AVX2 code in x265 4.2 writes past its arrays for frames 34 to 62 pixels wide.
_HEVC = Codec(
    "libx265",
    {"preset": "veryfast", "crf": "14", "bf": "0", "x265-params": "log-level=none:no-cutree=1"},
    "yuv420p10le",
    tag="hvc1",
)
CONTAINERS = {
    ".mp4": Container("mp4", _H264, _HEVC),
    ".m4v": Container("mp4", _H264, _HEVC),
    ".mov": Container("mov", _H264, _HEVC),
    ".mkv": Container("matroska", _H264, _HEVC),
    ".webm": Container("webm", _VP9, None),
}
_BT709, _LIMITED = 1, 1  # as matrix, primaries and transfer; of the range


class ChunkEncoder:
    """Pictures (H, W, 3) of one size, in order of time, to one video file, encoded in a thread of its own.

    Pictures are RGB, uint8, or uint16 from 0 to 65535 for more bits.

    Use as a context: the file is whole when that ends without an error. Only its packets count; timestamps are given
    again when chunks are joined, because not every container keeps them exactly.
    """

    def __init__(self, path: Path, kind: Container, codec: Codec, size: tuple[int, int], source: Source):
        height, width = size
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        self._time_base = source.time_base
        self._codec = codec
        self._container = open_av(path, "w", format=kind.muxer)
        self._stream = self._container.add_stream(codec.encoder, rate=source.rate, options=dict(codec.options))
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = width + width % 2, height + height % 2, codec.pix_fmt
        context.time_base = self._stream.time_base = source.time_base
        context.sample_aspect_ratio = source.aspect
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def write(self, picture: np.ndarray, pts: int) -> None:
        """Raises what encoding the picture before raised."""
        self._wait()
        self._pending = self._thread.submit(self._encode, picture, pts)

    def _encode(self, picture, pts):
        import av

        if any(after for _, after in self._pad):
            picture = np.pad(picture, self._pad, mode="edge")
        rgb = "rgb24" if picture.dtype == np.uint8 else "rgb48le"
        frame = av.VideoFrame.from_ndarray(picture, format=rgb).reformat(
            format=self._codec.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.pts, frame.time_base = pts, self._time_base
        try:
            packets = self._stream.encode(frame)
        except av.ArgumentError as error:
            raise Dav2Error(
                f"{self._codec.encoder} makes no video of {frame.width} x {frame.height} pixels: "
                "name a folder, for one file a frame" + (" or use bits=8" if self._codec is _HEVC else "")
            ) from error
        self._container.mux(packets)

    def _wait(self):
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> ChunkEncoder:
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            if error is None:
                self._wait()
                self._container.mux(self._stream.encode(None))
                self._container.close()
        finally:
            self._thread.shutdown()
            with contextlib.suppress(Exception):  # after a failure: a full disk, say, fails here once more
                self._container.close()


def join(
    chunks: Sequence[tuple[Path, np.ndarray]],
    out: Path,
    kind: Container,
    codec: Codec,
    source: Source,
    until: Fraction | None = None,
) -> str:
    """Joins the packets of all chunks, and those of the source's audio streams, unchanged, into `out`.

    chunks  (file, int64 [frames, 2]: timestamp and duration in units of source.time_base), in order
    until   seconds; audio from there on is left out. None: all of it

    Returns "audio copied", "no audio", or why it could not come along. Memory does not grow with the length.
    """
    with contextlib.ExitStack() as files:
        audio = _audio_streams(files, source)
        codecs = ", ".join(sorted({stream.codec_context.name for stream in audio}))
        said = "audio copied" if audio else "no audio"
        if audio and not _takes(kind, audio):
            audio, said = [], f"without its audio, because {codecs} does not go into {out.suffix} (.mkv takes it)"
        target = files.enter_context(open_av(out, "w", format=kind.muxer, options=_flags(kind)))
        first = files.enter_context(open_av(chunks[0][0]))
        video = target.add_stream_from_template(first.streams.video[0])
        video.time_base = source.time_base
        if codec.tag and kind.muxer in ("mp4", "mov"):
            video.codec_context.codec_tag = codec.tag
        copies = {stream.index: target.add_stream_from_template(stream) for stream in audio}
        for stream in audio:
            copies[stream.index].metadata.update(stream.metadata)  # the language
        tracks = [_video_packets(chunks, video, source)]
        if audio:
            tracks.append(_audio_packets(audio, copies, until))
        for _, packet in heapq.merge(*tracks, key=lambda item: item[0]):  # in order of time: the muxer holds few
            target.mux(packet)
    return said


def _flags(kind: Container) -> dict[str, str]:
    flags = {"fflags": "+bitexact"}  # without random numbers in it
    if kind.muxer in ("mp4", "mov"):
        flags["movflags"] = "+faststart"  # plays before all of it is there
    return flags


def _video_packets(chunks, stream, source) -> Iterator[tuple[Fraction, object]]:
    for path, times in chunks:
        with open_av(path) as container:
            packets = (packet for packet in container.demux(video=0) if packet.size)
            for packet, (pts, duration) in zip(packets, times.tolist(), strict=True):
                packet.stream, packet.time_base = stream, source.time_base
                packet.pts = packet.dts = pts
                packet.duration = duration
                yield pts * source.time_base, packet


def _audio_streams(files: contextlib.ExitStack, source) -> list:
    if not isinstance(source, VideoFile):
        return []
    return list(files.enter_context(open_av(source.path)).streams.audio)


def _audio_packets(streams, copies, until) -> Iterator[tuple[Fraction, object]]:
    import av

    packets = streams[0].container.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # cut short: the video ends about here too
            return
        if packet is None:
            return
        if packet.dts is None:  # the end of a stream
            continue
        time = packet.dts * packet.time_base
        if until is None or time < until:
            packet.stream = copies[packet.stream.index]
            yield time, packet


def _takes(kind: Container, streams) -> bool:
    """Whether the muxer writes a header with these streams."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=kind.muxer) as trial:
            for stream in streams:
                trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True
