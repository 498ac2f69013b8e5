"""Videos end to end: every frame at its time, steady, whole or absent, and the same after any interruption."""

import itertools
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from fractions import Fraction
from pathlib import Path
from queue import Queue

import av
import jax
import numpy as np
import pytest
from clips import gradients, packets, read_clip, seconds, write_clip
from PIL import Image

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.formats import FORMATS
from dav2_jax.video.job import depth_video
from dav2_jax.video.predict import _identity, predict_video
from dav2_jax.video.render import RenderOptions

CHUNK = 8  # frames, in place of 64: tests are in a hurry
COUNT = 20  # frames of `clip`
GRAY = RenderOptions(gray=True, limits=(0, 255))


def luminance(frames):
    """A stand-in for the model: bright is near."""
    for image in frames:
        yield Depth(image.mean(axis=-1, dtype=np.float32), "disparity", image)


def metres(frames):
    for image in frames:
        yield Depth(image.mean(axis=-1, dtype=np.float32) / 12.75, "metres", image, max_depth=20.0)


def fails_at(number):
    def predict(frames):
        yield from itertools.islice(luminance(frames), number)
        raise ZeroDivisionError

    return predict


def run(src, out, render=None, predict=luminance, **options):
    return depth_video(lambda: predict, Path(src), Path(out), render, chunk=CHUNK, **options)


def never():
    raise AssertionError("the model was loaded")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Two and a half chunks with sound."""
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", gradients(COUNT), audio="aac")


def everything(folder="."):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def picture(path):
    return np.asarray(Image.open(path))


def test_every_frame_becomes_one_at_its_time(clip, capsys):
    report = run(clip, "out.mp4", GRAY)
    frames, times = read_clip("out.mp4")
    source, source_times = read_clip(clip)
    assert times == source_times
    depth = source.mean(axis=-1)[..., None]
    assert frames.shape == source.shape
    assert np.abs(frames - depth).mean(axis=(1, 2, 3)).max() < 4
    assert np.abs(frames[1:] - depth[:-1]).mean(axis=(1, 2, 3)).min() > 5
    assert (report.frames, report.audio, report.damage, report.note) == (COUNT, "audio copied", None, None)
    assert str(report).startswith(f"out.mp4: {COUNT} frames, audio copied, flicker ")
    assert capsys.readouterr() == ("", "")
    assert packets("out.mp4") == packets(clip)
    assert everything() == ["out.mp4"]


def test_depth_has_its_colors():
    image = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, :, None] * 5, (32, 48, 3))
    write_clip("in.mkv", [image] * 2, codec="ffv1", pix_fmt="bgra")
    expected = Depth(image[..., 0], "disparity").color((0, 235))
    for bits in (8, 10):
        run("in.mkv", f"{bits}.mp4", RenderOptions(limits=(0, 235), bits=bits))
        assert np.abs(read_clip(f"{bits}.mp4")[0][1].astype(int) - expected).mean() < 6


@pytest.mark.parametrize(
    ("bits", "suffix", "codec", "pix_fmt", "tag"),
    [
        (8, ".mp4", "h264", "yuv420p", "avc1"),
        (10, ".mp4", "hevc", "yuv420p10le", "hvc1"),
        (10, ".mov", "hevc", "yuv420p10le", "hvc1"),
        (10, ".mkv", "hevc", "yuv420p10le", ""),
    ],
)
def test_the_file_is_one_that_players_show(bits, suffix, codec, pix_fmt, tag, clip):
    out = Path(f"out{suffix}")
    run(clip, out, RenderOptions(side_by_side=True, bits=bits))
    with av.open(str(out)) as container:
        (stream, sound) = container.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == (codec, pix_fmt, 146, 32)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert (stream.average_rate, sound.codec_context.name) == (24, "aac")
        assert context.codec_tag.strip("\0") == tag
        if suffix != ".mkv":
            assert (stream.frames, stream.duration * stream.time_base) == (COUNT, Fraction(COUNT, 24))
            data = out.read_bytes()
            assert data.index(b"moov") < data.index(b"mdat")  # it plays before all of it is there


def test_10_bits_show_more_than_256_levels_of_gray():
    ramp = np.linspace(0, 1, 1024, dtype=np.float32)[None].repeat(64, axis=0)
    write_clip("in.mp4", [np.zeros((64, 1024, 3), np.uint8)])

    def predict(frames):
        for image in frames:
            yield Depth(ramp, "disparity", image)

    levels = {}
    for bits in (8, 10):
        run("in.mp4", f"{bits}.mkv", RenderOptions(gray=True, limits=(0, 1), bits=bits), predict)
        with av.open(f"{bits}.mkv") as container:
            luma = next(container.decode(video=0)).to_ndarray()[:64]
        levels[bits] = len(np.unique(luma))
        expected = (64 + 876 * ramp) / 4 ** (bits == 8)
        assert np.abs(luma - expected).max() < 4
    assert levels[8] <= 256
    assert levels[10] > 750


@pytest.mark.parametrize(
    ("rate", "times"),
    [
        (Fraction(1001, 30000), range(12)),
        (Fraction(1, 1000), list(np.cumsum(np.random.default_rng(0).integers(1, 400, 12)).tolist())),
        (Fraction(1, 90000), [10**9 + 3003 * n for n in range(12)]),
    ],
)
def test_times_are_kept_exactly(rate, times):
    write_clip("in.mp4", gradients(12), times=list(times), time_base=rate)
    run("in.mp4", "out.mp4")
    assert read_clip("out.mp4")[1] == read_clip("in.mp4")[1]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".flv", ".gif", ".webp", ".png"])
@pytest.mark.parametrize("out", ["out.mp4", "out.mkv"])
def test_a_held_last_frame_keeps_its_time(suffix, out):
    """7 frames of 0.1 s, and one of 2.94 s."""
    path = Path(f"in{suffix}")
    if suffix in (".gif", ".webp", ".png"):
        first, *others = map(Image.fromarray, gradients(8))
        first.save(path, save_all=True, append_images=others, duration=[100] * 7 + [2940])
    else:
        codec = "mpeg4" if suffix == ".avi" else "libx264"
        write_clip(path, gradients(8), codec=codec, times=range(0, 80, 10), time_base=Fraction(1, 100), held=294)
    report = run(path, out)
    start, end = seconds(out)
    assert (report.frames, report.damage) == (8, None)
    assert end - start == Fraction(364, 100)


@pytest.mark.parametrize("options", [{"time_base": Fraction(1)}, {"audio": "libopus", "audio_start": 0}])
def test_few_frames_a_second_and_late_videos_are_whole(options, capsys):
    path = write_clip("in.mkv", gradients(5), times=range(1, 6), held=1, **({"time_base": Fraction(1)} | options))
    assert run(path, "out.mp4").damage is None
    assert seconds("out.mp4") == seconds(path) == (1, 6)
    assert capsys.readouterr().err == ""


def test_odd_sizes_grow_by_one_pixel():
    write_clip("in.mp4", gradients(3, 31, 33), pix_fmt="yuv444p", aspect=Fraction(8, 9))
    run("in.mp4", "out.mp4", GRAY)
    frames, _ = read_clip("out.mp4")
    assert frames.shape == (3, 32, 34, 3)
    expected = np.pad(read_clip("in.mp4")[0].mean(axis=-1), ((0, 0), (0, 1), (0, 1)), mode="edge")
    assert np.abs(frames.mean(axis=-1) - expected).mean() < 2
    with av.open("out.mp4") as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio == Fraction(8, 9)


@pytest.mark.parametrize("matrix", ["ITU709", "ITU601", None])
def test_the_frame_beside_the_depth_keeps_its_colors(matrix):
    patches = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]], np.uint8)
    image = patches.repeat(16, axis=0)[None].repeat(32, axis=0)
    write_clip("in.mp4", [image] * 2, matrix=matrix)
    run("in.mp4", "out.mp4", RenderOptions(side_by_side=True, gray=True, limits=(0, 255)))
    frames, _ = read_clip("out.mp4")
    frame = frames[1].astype(int)
    assert np.abs(frame[:, :96] - image)[:, 8::16].max() <= 6
    assert frame[:, 100:142].min() >= 252  # the strip
    gray = image.mean(axis=-1).astype(int)[..., None].repeat(3, axis=-1)
    assert np.abs(frame[:, 146:] - gray)[:, 8::16].max() <= 6


def test_sound_is_the_same_packets():
    write_clip("in.mkv", gradients(30), audio="libopus", audio_start=0.5)
    for out in ("out.mkv", "out.webm", "opus.mp4"):
        assert run("in.mkv", out).audio == "audio copied"
        assert packets(out) == packets("in.mkv")
        assert len(read_clip(out)[0]) == 30


def test_sound_that_does_not_fit_is_told(clip):
    report = run(clip, "out.webm", max_frames=5)
    assert report.audio == "without its audio, because aac does not go into .webm (.mkv takes it)"
    with av.open("out.webm") as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert container.streams[0].codec_context.name == "vp9"
    assert len(read_clip("out.webm")[0]) == 5


def test_a_part_of_a_video_ends_with_its_sound(clip):
    run(clip, "out.mp4", max_frames=12)
    assert len(read_clip("out.mp4")[0]) == 12
    assert 0.46 < packets("out.mp4")[-1][0] <= 0.5
    assert packets("out.mp4") == packets(clip)[: len(packets("out.mp4"))]


def test_fewer_frames_a_second(clip):
    report = run(clip, "out.mp4", fps=8)
    _, times = read_clip("out.mp4")
    assert times == [Fraction(n, 8) for n in range(report.frames)]
    assert report.frames == 7


def test_a_folder_of_frames_to_a_video_and_to_a_folder():
    Path("frames").mkdir()
    for number in range(1, 12):
        Image.fromarray(np.full((8, 10, 3), 20 * number, np.uint8)).save(f"frames/{number}.png")
    assert run("frames", "out.mkv", GRAY, fps=30000 / 1001).audio == "no audio"
    frames, times = read_clip("out.mkv")
    assert np.abs(frames[:, 4, 4, 0].astype(int) - 20 * np.arange(1, 12)).max() <= 2
    np.testing.assert_allclose([float(time) for time in times], np.arange(11) * 1.001 / 30, atol=6e-4)  # Matroska: ms
    run("frames", "depths", RenderOptions("npy"))
    assert everything("depths") == sorted(f"{number}.png.npy" for number in range(1, 12))
    assert np.load("depths/11.png.npy")[0, 0] == 220


@pytest.mark.parametrize("format", ["npz", "npy", "png16", "exr"])
def test_values_go_to_a_folder_as_they_are(format, clip):
    report = run(clip, "depths", RenderOptions(format), predict=metres, max_frames=10)
    assert str(report) == "depths: 10 frames"
    suffix = FORMATS[format].suffix
    assert [name for name in everything("depths") if name.endswith(suffix)] == [f"{n:06d}{suffix}" for n in range(10)]
    frames, _ = read_clip(clip)
    for number, depth in enumerate(metres(frames[:10])):
        stored = Depth.load(Path("depths") / f"{number:06d}{suffix}", "metres").values
        np.testing.assert_allclose(stored, depth.values, atol=0 if format != "png16" else 0.0006)
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("render", "suffix", "width"),
    [
        (RenderOptions(), ".color.png", 48),
        (RenderOptions(gray=True), ".gray.png", 48),
        (RenderOptions(side_by_side=True), ".side-by-side.png", 146),
    ],
)
def test_pictures_go_to_a_folder_in_full_color(render, suffix, width, clip):
    Path("pictures").mkdir()  # an empty one may be there
    run(clip, "pictures", render, max_frames=3)
    assert everything("pictures") == [f"{n:06d}{suffix}" for n in range(3)]
    (depth,) = luminance(read_clip(clip)[0][:1])
    first = picture(f"pictures/000000{suffix}")
    np.testing.assert_array_equal(first, render.draw(depth, np.percentile(depth.values, (0.5, 99.5))))
    assert first.shape == (32, width, 3)


def test_metres_have_one_range():
    frames = gradients(6) // 3
    frames[3:] //= 2
    write_clip("in.mkv", frames, codec="ffv1", pix_fmt="bgra")
    run("in.mkv", "pictures", predict=metres)
    for number, depth in enumerate(metres(frames)):
        np.testing.assert_array_equal(picture(f"pictures/{number:06d}.color.png"), depth.color((0, 20)))
    run("in.mkv", "near", RenderOptions(limits=(1, 5)), predict=metres)
    np.testing.assert_array_equal(picture("near/000005.color.png"), depth.color((1, 5)))


def test_a_cut_starts_a_new_range_and_jitter_does_not_show():
    """The model's scale and shift change in each frame; the pictures are those of a model where they do not."""
    rng = np.random.default_rng(0)
    day, night = (np.broadcast_to(rng.integers(low, low + 100, (32, 48, 3)), (20, 32, 48, 3)) for low in (150, 0))
    write_clip("in.mkv", [*day.astype(np.uint8), *night.astype(np.uint8)], codec="ffv1", pix_fmt="bgra")

    def jittered(frames):
        for depth in luminance(frames):
            yield Depth(rng.uniform(0.5, 2) * depth.values + rng.uniform(-50, 50), "disparity", depth.image)

    report = run("in.mkv", "jittered", RenderOptions(gray=True), predict=jittered)
    run("in.mkv", "plain", RenderOptions(gray=True))
    for name in everything("plain"):
        ours, plain = (picture(f"{folder}/{name}").astype(int) for folder in ("jittered", "plain"))
        assert np.abs(ours - plain).max() <= 1
        assert ours.max() == 255  # also in the first frame of the night
        assert ours.min() == 0
    assert report.flicker == pytest.approx(0, abs=1e-3)


def test_flicker_is_reported_before_and_after():
    image = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, :, None] * 5, (32, 48, 3))
    write_clip("in.mkv", [image] * 30, codec="ffv1", pix_fmt="bgra")

    def stray(frames):
        for number, depth in enumerate(luminance(frames)):
            values = depth.values.copy()
            values[0, 0] = 300 if number % 2 else 600
            yield Depth(values, "disparity", depth.image)

    report = run("in.mkv", "out.mp4", predict=stray)
    expected = np.abs(image[..., 0] / 300 - image[..., 0] / 600).mean() * 100
    assert report.flicker_before == pytest.approx(expected, rel=0.01)
    assert report.flicker < 0.1
    assert f"flicker {report.flicker:.2f} % of the range (frame by frame: {expected:.2f} %)" in str(report)


@pytest.mark.parametrize("out", ["out.mp4", "pictures"])
@pytest.mark.parametrize("stops", [[CHUNK + 5], [CHUNK, 5, CHUNK + 1], [3]])
def test_after_an_interruption_the_result_is_the_same(out, stops, clip, capsys):
    both = RenderOptions(side_by_side=True)
    whole = run(clip, f"whole/{out}", both)
    done = 0
    for stop in stops:
        with pytest.raises(ZeroDivisionError):
            run(clip, out, both, predict=fails_at(stop))
        done += stop // CHUNK * CHUNK
        kept = f"{out}: {done} frames are finished and kept: the same command goes on from there\n" if done else ""
        assert capsys.readouterr().err == kept
        assert not Path(out).exists()
        assert Path(f".{out}.dav2").exists() == bool(done)
    seen = []

    def counted(frames):
        for depth in luminance(frames):
            seen.append(depth)
            yield depth

    report = run(clip, out, both, predict=counted)
    assert len(seen) == COUNT - done
    assert (report.frames, report.flicker, report.audio) == (COUNT, whole.flicker, whole.audio)
    assert not Path(f".{out}.dav2").exists()
    if out == "pictures":
        assert everything(out) == everything(f"whole/{out}")
        for name in everything(out):
            assert (Path(out) / name).read_bytes() == Path("whole", out, name).read_bytes()
        return
    (frames, times), (whole_frames, whole_times) = read_clip(out), read_clip(f"whole/{out}")
    assert times == whole_times
    assert packets(out) == packets(f"whole/{out}")
    assert np.abs(frames.astype(int) - whole_frames).mean(axis=(1, 2, 3)).max() < 3  # other bits for the same pictures


def test_when_only_the_end_was_missing_nothing_is_loaded(clip):
    with pytest.raises(ZeroDivisionError):
        run(clip, "out.mp4", predict=fails_at(2 * CHUNK), max_frames=2 * CHUNK)
    depth_video(never, Path(clip), Path("out.mp4"), max_frames=2 * CHUNK)
    assert len(read_clip("out.mp4")[0]) == 2 * CHUNK


def test_an_output_is_made_by_one_process_at_a_time(clip):
    """A second lock counts as that of another process, in the same one too."""

    def second(frames):
        for number, depth in enumerate(luminance(frames)):
            if number in (0, CHUNK + 1):
                with pytest.raises(Dav2Error, match=r"^out\.mp4: another dav2 video is making it: wait until that has"):
                    run(clip, "out.mp4", predict=never, overwrite=True)
                assert run(clip, f"other{number}.mp4", max_frames=1).frames == 1
            yield depth

    assert run(clip, "out.mp4", predict=second).frames == COUNT
    assert everything() == ["other0.mp4", f"other{CHUNK + 1}.mp4", "out.mp4"]
    assert len(list(Path().iterdir())) == 3


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"render": RenderOptions(gray=True)}, "render"),
        ({"fps": 12}, "fps"),
        ({"max_frames": 10}, "max_frames"),
        ({"model": {"name": "other"}}, "model"),
        ({"batch_size": 3}, "batch_size"),
    ],
)
def test_unfinished_work_is_not_mixed_with_other_options(change, name, clip):
    options = {"model": {"name": "small"}}
    with pytest.raises(ZeroDivisionError):
        run(clip, "out", predict=fails_at(CHUNK), **options)
    with pytest.raises(Dav2Error, match=rf"out: unfinished work in \.out\.dav2 was made with another {name}:"):
        run(clip, "out", predict=never, **(options | change))
    run(clip, "out", overwrite=True, **(options | change))
    run(clip, "straight", **(options | change))
    assert everything("out") == everything("straight")
    for file in everything("out"):
        assert Path("out", file).read_bytes() == Path("straight", file).read_bytes()


def test_unfinished_work_is_not_mixed_with_another_input():
    clip = write_clip("in.mp4", gradients(COUNT))
    with pytest.raises(ZeroDivisionError):
        run(clip, "out.mp4", predict=fails_at(CHUNK))
    write_clip(clip, gradients(5))
    with pytest.raises(Dav2Error, match="was made with another input: run that command again to go on"):
        run(clip, "out.mp4")
    assert run(clip, "out.mp4", overwrite=True).frames == 5


def test_a_command_that_failed_at_once_leaves_nothing(clip):
    def gone():
        raise Dav2Error("gone: no such model")

    with pytest.raises(Dav2Error, match="gone"):
        depth_video(gone, Path(clip), Path("out.mp4"), model={"name": "gone"})
    assert everything() == []
    assert run(clip, "out.mp4", model={"name": "small"}, max_frames=2).frames == 2


def test_chunks_are_whole_batches(clip, capsys):
    with pytest.raises(ZeroDivisionError):
        run(clip, "out.mp4", predict=fails_at(10), batch_size=3)
    assert capsys.readouterr().err.startswith("out.mp4: 9 frames are finished and kept")


def test_a_predictor_may_read_ahead_in_a_thread(clip):
    closed = []

    def ahead(frames):
        queue = Queue(8)

        def read():
            for frame in frames:
                queue.put(frame)
            queue.put(None)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            while (frame := queue.get()) is not None:
                yield from luminance([frame])
        finally:
            closed.append(True)
            while thread.is_alive():
                with queue.mutex:
                    queue.queue.clear()
                    queue.not_full.notify_all()
                thread.join(0.01)

    run(clip, "ahead", predict=ahead)
    run(clip, "out")
    for name in everything("out"):
        assert Path("ahead", name).read_bytes() == Path("out", name).read_bytes()
    with pytest.raises(RuntimeError, match="broken"):
        run(clip, "broken.mp4", predict=lambda frames: broken_after(ahead(frames)))
    assert len(closed) == 2


def broken_after(depths):
    try:
        yield next(depths)
        raise RuntimeError("broken")
    finally:
        depths.close()


def test_no_more_than_a_few_frames_live_at_once():
    frames = gradients(6, 16, 16)
    Path("frames").mkdir()
    for number in range(5 * CHUNK):
        Image.fromarray(frames[number % 6]).save(f"frames/{number}.png")
    alive, most = set(), []

    def counted(images):
        for number, image in enumerate(images):
            alive.add(number)
            weakref.finalize(image, alive.discard, number)
            most.append(len(alive))
            yield from luminance([image])

    run("frames", "out.mp4", predict=counted)
    assert max(most) <= 6


PROGRAM = """
    import resource, signal, sys, time
    from pathlib import Path
    import numpy as np
    from dav2_jax.inference.depth import Depth
    from dav2_jax.video.job import depth_video
    from dav2_jax.video.render import RenderOptions

    def predict(frames):
        for number, image in enumerate(frames):
            if number >= int(sys.argv[1]):
                time.sleep(60)
            yield Depth(image.mean(axis=-1, dtype=np.float32), "disparity", image)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for its background jobs
    for src, out in zip(sys.argv[2::2], sys.argv[3::2]):
        depth_video(lambda: predict, Path(src), Path(out), RenderOptions(gray=True), chunk=8)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
COMMAND = [sys.executable, "-c", textwrap.dedent(PROGRAM)]


def test_memory_does_not_grow_with_the_length():
    write_clip("short.mp4", gradients(24, 240, 320), audio="aac")
    write_clip("long.mp4", list(itertools.islice(itertools.cycle(gradients(5, 240, 320)), 124)), audio="aac")
    command = [*COMMAND, "1000", "short.mp4", "short.mkv", "long.mp4", "long.mkv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    short, long = map(int, done.stdout.split())
    assert long < short + 16  # MiB; 100 frames are 22 MiB, their depths 29


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_goes_on_to_the_same_result(number, clip):
    with subprocess.Popen([*COMMAND, str(CHUNK + 4), clip, "out"], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not Path(".out.dav2/000000.npy").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)  # into the second chunk
        with pytest.raises(Dav2Error, match=r"^out: another dav2 video is making it"):
            run(clip, "out", predict=never)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert errors.startswith("out: 8 frames are finished and kept: the same command goes on from there\n")
    assert not Path("out").exists()
    gray = RenderOptions(gray=True)
    run(clip, "out", gray, predict=lambda frames: itertools.islice(luminance(frames), COUNT - CHUNK))
    run(clip, "straight", gray)
    assert everything("out") == everything("straight")
    for name in everything("straight"):
        assert Path("out", name).read_bytes() == Path("straight", name).read_bytes()
    assert len(list(Path().iterdir())) == 2


@pytest.mark.parametrize(("out", "limit", "kept"), [("out.mp4", 450_000, 8), ("depths", 300_000, 0)])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(out, limit, kept, capsys):
    """A limit of the kernel on file size stands for it: both make write() fail half-way."""
    noise = np.random.default_rng(0).integers(0, 256, (2 * CHUNK, 400, 400, 3), dtype=np.uint8)
    noise[:CHUNK] //= 64
    write_clip("in.mkv", noise, codec="ffv1", pix_fmt="bgra")
    render = GRAY if out == "out.mp4" else RenderOptions("npy")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(Dav2Error) as caught:
            run("in.mkv", out, render)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    line = f"{out}: no space left: free some and run the same command again, it goes on where it stopped"
    assert str(caught.value) == line
    note = f"{out}: {kept} frames are finished and kept: the same command goes on from there\n"
    assert capsys.readouterr().err == (note if kept else "")
    assert not Path(out).exists()
    assert run("in.mkv", out, render).frames == 16


def test_a_damaged_video_is_reported_and_used():
    path = Path(write_clip("in.mkv", gradients(60, 64, 96), audio="libopus"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = run(path, "out.mp4")
    assert 10 < report.frames < 50
    assert len(read_clip("out.mp4")[0]) == report.frames
    assert report.audio == "audio copied"
    assert report.damage.startswith("in.mkv: damaged or cut short: ")


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("out.avi", {}, r"out\.avi: \.avi is none of \.mp4 \.m4v \.mov \.mkv \.webm: use one, or a folder"),
        ("out.mp4", {"format": "npz"}, r"out\.mp4: npz is one file a frame: name a folder"),
        ("out", {"format": "ply"}, "unknown format 'ply': use one of picture, npz"),
        ("out", {"format": "npz", "gray": True}, "are for pictures, and format is npz"),
        ("out.mp4", {"limits": (5, 5)}, r"the range is 5 to 5: give the smaller value first"),
        ("out.mp4", {"limits": (0, float("nan"))}, r"the range is 0 to nan"),
        ("out.mp4", {"bits": 12}, r"bits=12: give 8 or 10"),
        ("out.webm", {"bits": 10}, r"webm takes 8 bits only, .*: use one of \.mp4 \.m4v \.mov \.mkv"),
        ("out", {"bits": 10}, r"out: bits=10 is for a video: name one such as out\.mp4"),
        ("in.mp4", {"overwrite": True}, r"in\.mp4: is the input"),
        ("there.mp4", {}, r"there\.mp4: exists: name another output, or replace it with overwrite=True"),
        ("full", {"overwrite": True}, "full: the folder is not empty"),
        ("file", {}, r"file: is a file: name a folder, or a video such as file\.mp4"),
        ("file/out.mp4", {}, r"file/out\.mp4: Not a directory \(file/\.out\.mp4\.dav2\): check that it can be written"),
        ("out.mp4", {"fps": 0}, r"fps=0: give a number above 0"),
        ("out.mp4", {"fps": float("inf")}, r"fps=inf: give a number above 0"),
        ("out.mp4", {"max_frames": 0}, r"max_frames=0"),
        ("out.mp4", {"batch_size": -1}, r"batch_size=-1"),
        ("out.mp4", {"max_pixels": 100}, r"in\.mp4: 48 x 32 pixels are over the limit of 100"),
        ("out.mp4", {"input_size": 5}, "5"),
    ],
)
def test_wrong_arguments_are_refused_before_the_model_is_loaded(out, options, message):
    write_clip("in.mp4", gradients(3))
    Path("there.mp4").touch()
    Path("file").touch()
    Path("full").mkdir()
    Path("full/x").touch()
    before = everything()
    with pytest.raises(Dav2Error, match=message) as caught:
        predict_video("in.mp4", out, model="none/such.pth", **options)
    assert "\n" not in str(caught.value)
    assert everything() == before


def test_a_size_that_the_encoder_refuses(clip):
    write_clip("in.mp4", gradients(1, 8, 8))
    with pytest.raises(Dav2Error, match=r"libx265 makes no video of 8 x 8 pixels: .* or use bits=8"):
        run("in.mp4", "out.mp4", RenderOptions(bits=10))
    assert everything() == ["in.mp4"]


def test_overwrite_replaces_when_all_is_done(clip):
    Path("out.mp4").write_text("old")
    with pytest.raises(ZeroDivisionError):
        run(clip, "out.mp4", overwrite=True, predict=fails_at(CHUNK))
    assert Path("out.mp4").read_text() == "old"
    run(clip, "out.mp4", overwrite=True)
    assert len(read_clip("out.mp4")[0]) == COUNT


def test_constant_depth_is_no_trouble(clip):
    report = run(clip, "out.mp4", predict=lambda frames: (Depth(np.ones(f.shape[:2]), "disparity", f) for f in frames))
    assert (report.frames, report.flicker) == (COUNT, 0)


def test_the_bar_is_for_terminals_only(clip, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(clip, "b.mp4", max_frames=3)
    assert "3/3" in capsys.readouterr().err
    run(clip, "c.mp4", max_frames=3, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff\xfe.mp4"), "\u00fc 12:30.mp4", "12:30.mp4", "%03d.mp4", "-i.mkv"])
def test_any_name_of_a_file(name, clip):
    Path(name).write_bytes(clip.read_bytes())
    Path("out").mkdir()
    assert run(name, f"out/{name}", max_frames=3).audio == "audio copied"
    assert run(name, "12:30", RenderOptions("npy"), max_frames=1).frames == 1
    assert len(read_clip(Path("out", name).absolute())[0]) == 3


def test_a_model_by_name_or_loaded_predicts_a_video(clip, monkeypatch):
    class Model:
        devices, config, dtype = jax.devices(), "config", "float32"

        def __init__(self, gain=1.0):
            self.params = {"gain": np.float32(gain)}

        def predict(self, frames, **options):
            assert options == {"input_size": 28, "max_pixels": 10**6, "batch_size": 1}
            return luminance(frames)

    options = {"format": "npy", "input_size": 28, "max_pixels": 10**6}
    monkeypatch.setattr(
        "dav2_jax.inference.load.load", lambda model, **options: calls.append((model, options)) or Model()
    )
    calls = []
    assert predict_video(str(clip), "named", model="base", dtype="bfloat16", **options).frames == COUNT
    assert calls == [("base", {"dtype": "bfloat16"})]
    assert predict_video(clip, "loaded", model=Model(), **options).frames == COUNT
    for number, image in enumerate(read_clip(clip)[0]):
        for folder in ("named", "loaded"):
            np.testing.assert_array_equal(np.load(f"{folder}/{number:06d}.npy"), image.mean(axis=-1, dtype=np.float32))
    with pytest.raises(Dav2Error, match="dtype: is for a model given by its name"):
        predict_video(clip, "other", model=Model(), dtype="bfloat16")
    assert _identity(Model()) == _identity(Model()) != _identity(Model(2.0))
