"""Small videos for tests, written with PyAV, and what is in a video, read with PyAV."""

import contextlib
import struct
from fractions import Fraction

import av
import numpy as np


def gradients(count, height=32, width=48):
    """Frames that differ from each other: a gradient that moves, uint8 [count, height, width, 3]."""
    x = np.arange(width, dtype=np.float32)[None, None, :, None] * 3
    y = np.arange(height, dtype=np.float32)[None, :, None, None] * 2
    t = np.arange(count, dtype=np.float32)[:, None, None, None]
    return ((x + y + 5 * t + np.array([0, 40, 80])) % 256).astype(np.uint8)


def write_clip(
    path,
    frames,
    *,
    times=None,
    time_base=Fraction(1, 24),
    codec="libx264",
    pix_fmt="yuv420p",
    matrix=None,
    full_range=False,
    aspect=Fraction(1),
    audio=None,
    audio_start=0.0,
    held=None,
    options=None,
):
    """Writes uint8 RGB frames; times are in units of time_base; audio is a codec: a tone as long as the video.

    held is the duration of the last frame, in units of time_base; options are those of the container.

    matrix "ITU709" or "ITU601" converts by it and tags it; None converts by BT.601 and tags nothing.
    """
    times = list(range(len(frames))) if times is None else times
    quality = {"crf": "1", "preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=24, options=quality)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.sample_aspect_ratio = aspect
        if matrix:
            stream.codec_context.colorspace = {"ITU709": 1, "ITU601": 6}[matrix]
            stream.codec_context.color_range = 2 if full_range else 1

        def mux_video(packets):
            for packet in packets:
                if held and packet.pts == times[-1]:
                    packet.duration = held
                container.mux(packet)

        sound = container.add_stream(audio, rate=48000, layout="mono") if audio else None
        for image, pts in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if pix_fmt.startswith("yuv"):
                colors = {"dst_colorspace": matrix or "ITU601", "dst_color_range": "JPEG" if full_range else "MPEG"}
                frame = frame.reformat(format=pix_fmt, **colors)
            frame.pts, frame.time_base = pts, time_base
            mux_video(stream.encode(frame))
        mux_video(stream.encode(None))
        if sound:
            length = float(times[-1] * time_base) + 1 / 24
            tone = np.sin(np.arange(int(48000 * length), dtype=np.float32) / 20)
            for start in range(0, len(tone), 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
                frame.pts += int(audio_start * 48000)
                container.mux(sound.encode(_as(frame, sound)))
            container.mux(sound.encode(None))
    return path


def _as(frame, stream):
    resampled = av.AudioResampler(stream.codec_context.format, stream.codec_context.layout, 48000).resample(frame)
    return resampled[0]


def read_clip(path):
    """(frames uint8 RGB [n, H, W, 3], times in seconds as Fractions)"""
    with av.open(str(path)) as container:
        frames = [(f.to_ndarray(format="rgb24"), f.pts * f.time_base) for f in container.decode(video=0)]
    return np.stack([image for image, _ in frames]), [time for _, time in frames]


def packets(path, kind="audio"):
    """(time in seconds, bytes) of each packet of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]


def seconds(path):
    """(start, end) of the video stream, in seconds: its packets' timestamps and durations."""
    with av.open(str(path)) as container:
        spans = [(p.pts * p.time_base, (p.pts + p.duration) * p.time_base) for p in container.demux(video=0) if p.size]
    return spans[0][0], spans[-1][1]


MATRICES = {  # a b c d of the display matrix, and what it does to the pixels
    "none": ((1, 0, 0, 1), lambda image: image),
    "90": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "270": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "hflip": ((-1, 0, 0, 1), np.fliplr),
    "vflip": ((1, 0, 0, -1), np.flipud),
    "transpose": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transverse": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


def set_matrix(path, name):
    """Writes the display matrix into the track header of an MP4 or QuickTime file, as phones do."""
    data = path.read_bytes()
    a, b, c, d = (value * 65536 for value in MATRICES[name][0])
    upright = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    at = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :])


def remux(sources, target, default=()):
    """Copies the video streams of files into another container, in order; `default` are the numbers of those on."""
    with contextlib.ExitStack() as files, av.open(str(target), "w") as out:
        inputs = [files.enter_context(av.open(str(path))) for path in sources]
        copies = [out.add_stream_from_template(container.streams.video[0]) for container in inputs]
        for number in default:
            copies[number].disposition = av.stream.Disposition.default
        for container, copy in zip(inputs, copies, strict=True):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)
    return target
