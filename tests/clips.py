"""Small videos for tests, written with PyAV, and what is in a video, read with PyAV."""

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
):
    """Writes uint8 RGB frames; times are in units of time_base; audio is a codec: a tone as long as the video.

    matrix "ITU709" or "ITU601" converts by it and tags it; None converts by BT.601 and tags nothing.
    """
    times = list(range(len(frames))) if times is None else times
    options = {"crf": "1", "preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.sample_aspect_ratio = aspect
        if matrix:
            stream.codec_context.colorspace = {"ITU709": 1, "ITU601": 6}[matrix]
            stream.codec_context.color_range = 2 if full_range else 1
        sound = container.add_stream(audio, rate=48000, layout="mono") if audio else None
        for image, pts in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if pix_fmt.startswith("yuv"):
                colors = {"dst_colorspace": matrix or "ITU601", "dst_color_range": "JPEG" if full_range else "MPEG"}
                frame = frame.reformat(format=pix_fmt, **colors)
            frame.pts, frame.time_base = pts, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
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
