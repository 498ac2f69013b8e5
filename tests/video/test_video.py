"""Videos through and through: every frame at its time, steady, whole or not there, and the same after any stop."""

import errno
import itertools
import os
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
import numpy as np
import pytest
from clips import gradients, packets, read_clip, write_clip
from PIL import Image

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.depth import Depth
from dav2_jax.video import job as video
from dav2_jax.video.job import Look, depth_video
from dav2_jax.video.writer import CONTAINERS

CHUNK = 8  # frames, in place of 64: tests are in a hurry
COUNT = 20  # frames of `clip`
COLOR = Look()


def luminance(frames):
    """A stand-in for the model: bright is near."""
    for image in frames:
        yield Depth(image.mean(axis=-1, dtype=np.float32), "disparity", image)


def metres(frames):
    for image in frames:
        yield Depth(image.mean(axis=-1, dtype=np.float32) / 12.75, "metres", image, max_depth=20.0)


def run(src, out, look=COLOR, predict=luminance, **options):
    return depth_video(lambda: predict, Path(src), Path(out), look, **options)


def never():
    raise AssertionError("the model was loaded")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(video, "CHUNK", CHUNK)


@pytest.fixture
def clip():
    """Two and a half chunks with sound."""
    return write_clip("in.mp4", gradients(COUNT), audio="aac")


@pytest.fixture
def lossless(monkeypatch):
    """Encoders that keep every pixel.

    On some machines an encoder now and then chooses other bits for the same pictures. Pixels then differ as much as
    encoding costs, but those of a lossless video do not.
    """
    options = {"libx264": {"preset": "veryfast", "qp": "0", "bf": "0"}, "libvpx-vp9": {"lossless": "1"}}
    for suffix, kind in CONTAINERS.items():
        monkeypatch.setitem(CONTAINERS, suffix, kind._replace(options=options[kind.codec]))


def assert_same(one, other):
    """The same file; of a lossless video the same packets of sound, times and pixels."""
    if Path(one).suffix == ".png":
        assert Path(one).read_bytes() == Path(other).read_bytes()
        return
    (frames, times), (other_frames, other_times) = read_clip(one), read_clip(other)
    assert times == other_times
    if Path(one).suffix != ".webm":  # which takes no AAC
        assert packets(one) == packets(other)
    np.testing.assert_array_equal(frames, other_frames)


def everything(folder="."):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_every_frame_becomes_one_at_its_time(clip, capsys):
    report = run(clip, "out.mp4", Look(gray=True, limits=(0, 255)))
    frames, times = read_clip("out.mp4")
    source, source_times = read_clip(clip)
    assert times == source_times
    depth = source.mean(axis=-1)[..., None]
    assert frames.shape == source.shape
    assert np.abs(frames - depth).mean(axis=(1, 2, 3)).max() < 4
    assert np.abs(frames[1:] - depth[:-1]).mean(axis=(1, 2, 3)).min() > 5
    assert (report.frames, report.audio, report.damage) == (COUNT, "audio copied", None)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out == f"{report}\n"
    assert shown.out.startswith(f"out.mp4: {COUNT} frames, audio copied, flicker ")
    assert everything() == ["in.mp4", "out.mp4"]


def test_depth_has_its_colors():
    image = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, :, None] * 5, (32, 48, 3))
    write_clip("in.mkv", [image] * 2, codec="ffv1", pix_fmt="bgra")
    run("in.mkv", "out.mp4", Look(limits=(0, 235)))
    expected = Depth(image[..., 0], "disparity").color((0, 235))
    assert np.abs(read_clip("out.mp4")[0][1].astype(int) - expected).mean() < 6


def test_the_file_is_one_that_players_show(clip):
    run(clip, "out.mp4", Look(side_by_side=True))
    with av.open("out.mp4") as container:
        (stream, sound) = container.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 146, 32)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert (stream.frames, stream.average_rate, sound.codec_context.name) == (COUNT, 24, "aac")
        assert stream.duration * stream.time_base == Fraction(COUNT, 24)
    data = Path("out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it plays before all of it is there


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


def test_odd_sizes_grow_by_one_pixel():
    write_clip("in.mp4", gradients(3, 31, 33), pix_fmt="yuv444p", aspect=Fraction(8, 9))
    run("in.mp4", "out.mp4", Look(gray=True, limits=(0, 255)))
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
    run("in.mp4", "out.mp4", Look(side_by_side=True, gray=True, limits=(0, 255)))
    frames, _ = read_clip("out.mp4")
    picture = frames[1].astype(int)
    assert np.abs(picture[:, :96] - image)[:, 8::16].max() <= 6
    assert picture[:, 100:142].min() >= 252  # the strip
    gray = image.mean(axis=-1).astype(int)[..., None].repeat(3, axis=-1)
    assert np.abs(picture[:, 146:] - gray)[:, 8::16].max() <= 6


def test_sound_is_the_same_packets(clip):
    run(clip, "out.mp4")
    assert packets("out.mp4") == packets(clip)
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
    assert 0.4 < packets("out.mp4")[-1][0] <= 0.5
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
    assert run("frames", "out.mkv", Look(gray=True, limits=(0, 255)), fps=30000 / 1001).audio == "no audio"
    frames, times = read_clip("out.mkv")
    assert np.abs(frames[:, 4, 4, 0].astype(int) - 20 * np.arange(1, 12)).max() <= 2
    np.testing.assert_allclose([float(time) for time in times], np.arange(11) * 1.001 / 30, atol=6e-4)  # Matroska: ms
    run("frames", "depths", Look("npy"))
    assert everything("depths") == sorted(f"{number}.png.npy" for number in range(1, 12))
    assert np.load("depths/11.png.npy")[0, 0] == 220


@pytest.mark.parametrize("format", ["npz", "npy", "png16", "exr"])
def test_values_go_to_a_folder_as_they_are(format, clip):
    report = run(clip, "depths", Look(format), predict=metres, max_frames=10)
    assert str(report) == "depths: 10 frames"
    suffix = video.FORMATS[format].suffix
    assert [name for name in everything("depths") if name.endswith(suffix)] == [f"{n:06d}{suffix}" for n in range(10)]
    frames, _ = read_clip(clip)
    for number, depth in enumerate(metres(frames[:10])):
        stored = Depth.load(Path("depths") / f"{number:06d}{suffix}", "metres").values
        np.testing.assert_allclose(stored, depth.values, atol=0 if format != "png16" else 0.0006)
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("look", "suffix", "width"),
    [
        (Look(), ".color.png", 48),
        (Look(gray=True), ".gray.png", 48),
        (Look(side_by_side=True), ".side-by-side.png", 146),
    ],
)
def test_pictures_go_to_a_folder_in_full_color(look, suffix, width, clip):
    Path("pictures").mkdir()  # an empty one may be there
    run(clip, "pictures", look, max_frames=3)
    assert everything("pictures") == [f"{n:06d}{suffix}" for n in range(3)]
    picture = np.asarray(Image.open(f"pictures/000000{suffix}"))
    (depth,) = luminance(read_clip(clip)[0][:1])
    limits = np.percentile(depth.values, (0.5, 99.5))
    np.testing.assert_array_equal(picture, look.draw(depth, limits))
    assert picture.shape == (32, width, 3)


def test_metres_have_one_range():
    frames = gradients(6) // 3
    frames[3:] //= 2
    write_clip("in.mkv", frames, codec="ffv1", pix_fmt="bgra")
    run("in.mkv", "pictures", predict=metres)
    for number, depth in enumerate(metres(frames)):
        picture = np.asarray(Image.open(f"pictures/{number:06d}.color.png"))
        np.testing.assert_array_equal(picture, depth.color((0, 20)))
    run("in.mkv", "near", Look(limits=(1, 5)), predict=metres)
    np.testing.assert_array_equal(np.asarray(Image.open("near/000005.color.png")), depth.color((1, 5)))


def test_a_cut_starts_a_new_range_and_jitter_does_not_show():
    """The model's scale and shift change in each frame; the pictures are those of a model where they do not."""
    rng = np.random.default_rng(0)
    day, night = (np.broadcast_to(rng.integers(low, low + 100, (32, 48, 3)), (20, 32, 48, 3)) for low in (150, 0))
    write_clip("in.mkv", [*day.astype(np.uint8), *night.astype(np.uint8)], codec="ffv1", pix_fmt="bgra")

    def jittered(frames):
        for depth in luminance(frames):
            yield Depth(rng.uniform(0.5, 2) * depth.values + rng.uniform(-50, 50), "disparity", depth.image)

    report = run("in.mkv", "jittered", Look(gray=True), predict=jittered)
    run("in.mkv", "plain", Look(gray=True))
    for name in everything("plain"):
        ours, plain = (np.asarray(Image.open(f"{folder}/{name}")).astype(int) for folder in ("jittered", "plain"))
        assert np.abs(ours - plain).max() <= 1
        assert ours.max() == 255  # also in the first frame of the night
        assert ours.min() == 0
    assert report.flicker == pytest.approx(0, abs=1e-3)


def test_flicker_is_reported_before_and_after(capsys):
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
    assert f"flicker {report.flicker:.2f} % of the range (frame by frame: {expected:.2f} %)" in capsys.readouterr().out


def fails_at(number, error):
    def predict(frames):
        yield from itertools.islice(luminance(frames), number)
        raise error

    return predict


@pytest.mark.parametrize("out", ["out.mp4", "out.webm", "pictures"])
@pytest.mark.parametrize("stops", [[CHUNK + 5], [CHUNK, 5, CHUNK + 1], [3]])
@pytest.mark.usefixtures("lossless")
def test_after_a_stop_the_result_is_the_same(out, stops, clip, capsys):
    run(clip, f"whole/{out}", Look(side_by_side=True))
    done = 0
    for stop in stops:
        with pytest.raises(ZeroDivisionError):
            run(clip, out, Look(side_by_side=True), predict=fails_at(stop, ZeroDivisionError()))
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

    report = run(clip, out, Look(side_by_side=True), predict=counted)
    assert len(seen) == COUNT - done
    assert report.frames == COUNT
    if out == "pictures":
        assert everything("pictures") == everything("whole/pictures")
    pairs = [(name, f"whole/{name}") for name in ([out] if "." in out else [f"{out}/{n}" for n in everything(out)])]
    for ours, whole in pairs:
        assert_same(ours, whole)
    assert not Path(f".{out}.dav2").exists()
    with pytest.raises(ZeroDivisionError):  # the figure is the one of the whole too
        run(clip, "figure.mp4", Look(side_by_side=True), predict=fails_at(CHUNK, ZeroDivisionError()))
    assert run(clip, "figure.mp4", Look(side_by_side=True)).flicker == report.flicker


def test_when_only_the_end_was_missing_nothing_is_loaded(clip, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(video, "join", lambda *arguments, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(clip, "out.mp4")
    depth_video(never, Path(clip), Path("out.mp4"))
    assert len(read_clip("out.mp4")[0]) == COUNT


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"look": Look(gray=True)}, "look"),
        ({"fps": 12}, "fps"),
        ({"max_frames": 10}, "max_frames"),
        ({"model": {"name": "other"}}, "model"),
        ({"batch_size": 3}, "batch_size"),
    ],
)
@pytest.mark.usefixtures("lossless")
def test_unfinished_work_is_not_mixed_with_other_options(change, name, clip):
    options = {"model": {"name": "small"}}
    with pytest.raises(ZeroDivisionError):
        run(clip, "out.mp4", predict=fails_at(CHUNK, ZeroDivisionError()), **options)
    with pytest.raises(
        Dav2Error, match=rf"out\.mp4: unfinished work in \.out\.mp4\.dav2 was made with another {name}:"
    ):
        run(clip, "out.mp4", predict=never, **(options | change))
    run(clip, "out.mp4", overwrite=True, **(options | change))
    run(clip, "straight.mp4", **(options | change))
    assert_same("out.mp4", "straight.mp4")


def test_unfinished_work_is_not_mixed_with_another_input(clip):
    with pytest.raises(ZeroDivisionError):
        run(clip, "out.mp4", predict=fails_at(CHUNK, ZeroDivisionError()))
    write_clip(clip, gradients(5))
    with pytest.raises(Dav2Error, match="was made with another input: run that command again to go on"):
        run(clip, "out.mp4")
    assert run(clip, "out.mp4", overwrite=True).frames == 5


def test_a_command_that_failed_at_once_leaves_nothing(clip):
    def gone():
        raise Dav2Error("gone: no such model")

    with pytest.raises(Dav2Error, match="gone"):
        depth_video(gone, Path(clip), Path("out.mp4"), model={"name": "gone"})
    assert everything() == ["in.mp4"]
    assert run(clip, "out.mp4", model={"name": "small"}, max_frames=2).frames == 2


def test_chunks_are_whole_batches(clip, monkeypatch):
    monkeypatch.setattr(video.Work, "remove", lambda self: None)
    run(clip, "out.mp4", batch_size=3)
    assert [len(np.load(path)) for path in sorted(Path(".out.mp4.dav2").glob("*.npy"))] == [9, 9, 2]


@pytest.mark.usefixtures("lossless")
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

    run(clip, "ahead.mp4", predict=ahead)
    run(clip, "out.mp4")
    assert_same("ahead.mp4", "out.mp4")
    with pytest.raises(RuntimeError, match="broken"):
        run(clip, "broken.mp4", Look(), predict=lambda frames: broken_after(ahead(frames)))
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


MEMORY = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from dav2_jax.inference.depth import Depth
    from dav2_jax.video.job import depth_video

    def predict(frames):
        for image in frames:
            yield Depth(image[..., 0].astype(np.float32), "disparity", image)

    depth_video(lambda: predict, Path(sys.argv[1]), Path("out.mp4"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_length():
    peaks = []
    for count in (70, 400):
        write_clip(f"{count}.mp4", list(itertools.islice(itertools.cycle(gradients(9, 240, 320)), count)), audio="aac")
        command = [sys.executable, "-c", textwrap.dedent(MEMORY), f"{count}.mp4"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
        Path("out.mp4").unlink()
    assert peaks[1] < peaks[0] + 16  # MiB; 330 frames are 72 MiB, their depths 97


PROGRAM = """
    import resource, signal, sys, time
    from pathlib import Path
    import numpy as np
    from dav2_jax.cli import main as cli
    from dav2_jax.inference import load
    from dav2_jax.video import job as video
    from dav2_jax.inference.depth import Depth
    from dav2_jax.video.writer import CONTAINERS

    class Model:
        def predict(self, frames, **options):
            for number, image in enumerate(frames):
                if number >= int(sys.argv[1]):
                    time.sleep(60)
                yield Depth(image.mean(axis=-1, dtype=np.float32), "disparity", image)

    video.CHUNK = 8
    CONTAINERS[".mp4"] = CONTAINERS[".mp4"]._replace(options={"qp": "0", "bf": "0"})  # lossless
    load.load = lambda *arguments, **options: Model()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for its background jobs
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_to_the_same_result(number, clip):
    program = textwrap.dedent(PROGRAM) + "sys.exit(cli.main(sys.argv[2:]))"
    command = [sys.executable, "-c", program, str(CHUNK + 4), "video", "in.mp4", "out.mp4", "--gray"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 60
        while not Path(".out.mp4.dav2/000000.npy").exists():
            assert time.monotonic() < deadline
            assert job.poll() is None
            time.sleep(0.01)
        time.sleep(0.5)  # into the second chunk
        job.send_signal(number)
        shown, errors = job.communicate(timeout=60)
    assert shown == ""
    assert not Path("out.mp4").exists()
    if number == signal.SIGINT:
        assert job.returncode == 130
        assert errors.splitlines() == [
            "out.mp4: 8 frames are finished and kept: the same command goes on from there",
            "dav2: interrupted: files written until now are whole "
            "(predict goes on with --skip-existing, video as it is)",
        ]
    command[3] = "1000"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command[command.index("out.mp4")] = "straight.mp4"
    subprocess.run(command, capture_output=True, check=True)
    assert_same("out.mp4", "straight.mp4")
    assert everything() == ["in.mp4", "out.mp4", "straight.mp4"]


@pytest.mark.parametrize(("out", "limit", "kept"), [("out.mp4", 450_000, 8), ("depths", 300_000, 0)])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(out, limit, kept):
    """A limit of the kernel on file size stands for it: both make write() fail half-way."""
    noise = np.random.default_rng(0).integers(0, 256, (2 * CHUNK, 400, 400, 3), dtype=np.uint8)
    noise[:CHUNK] //= 64
    write_clip("in.mkv", noise, codec="ffv1", pix_fmt="bgra")
    program = textwrap.dedent(PROGRAM)
    small = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    flags = ["--gray", "--range", "0", "255"] if out == "out.mp4" else ["--format", "npy"]
    arguments = ["1000", "video", "in.mkv", out, *flags]
    run_it = "sys.exit(cli.main(sys.argv[2:]))"
    full = subprocess.run([sys.executable, "-c", program + small + run_it, *arguments], capture_output=True, text=True)
    note = f"{out}: {kept} frames are finished and kept: the same command goes on from there"
    line = f"dav2: error: {out}: no space left: free some and run the same command again, it goes on where it stopped"
    assert (full.stderr.splitlines(), full.returncode) == ([note, line] if kept else [line], 2)
    assert not Path(out).exists()
    done = subprocess.run([sys.executable, "-c", program + run_it, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{out}: 16 frames")


def test_a_damaged_video_is_told_and_used(capsys):
    path = Path(write_clip("in.mkv", gradients(60, 64, 96), audio="libopus"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = run(path, "out.mp4")
    assert 10 < report.frames < 50
    assert len(read_clip("out.mp4")[0]) == report.frames
    assert report.audio == "audio copied"
    shown = capsys.readouterr().err
    assert shown == f"{report.damage}\n"
    assert shown.startswith("in.mkv: damaged or cut short: ")


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("out.avi", {}, r"out\.avi: \.avi is none of \.mp4 \.m4v \.mov \.mkv \.webm: use one, or a folder"),
        ("out.mp4", {"look": Look("npz")}, r"out\.mp4: npz is one file a frame: name a folder"),
        ("out", {"look": Look("ply")}, "unknown format 'ply': use one of picture, npz"),
        ("out", {"look": Look("npz", gray=True)}, "are for pictures, and format is npz"),
        ("out.mp4", {"look": Look(limits=(5, 5))}, r"range \(--range\) is 5 to 5: give the smaller value first"),
        ("out.mp4", {"look": Look(limits=(0, float("nan")))}, r"range \(--range\) is 0 to nan"),
        ("in.mp4", {"overwrite": True}, r"in\.mp4: is the input"),
        ("there.mp4", {}, r"there\.mp4: exists: name another output, or replace it with --overwrite"),
        ("full", {"overwrite": True}, "full: the folder is not empty"),
        ("file", {}, r"file: is a file: name a folder, or a video such as file\.mp4"),
        ("file/out.mp4", {}, r"file/out\.mp4: "),
        ("out.mp4", {"fps": 0}, r"fps \(--fps\) is 0: give a number above 0"),
        ("out.mp4", {"max_frames": 0}, r"max_frames \(--max-frames\) is 0"),
        ("out.mp4", {"batch_size": -1}, r"batch_size \(--batch-size\) is -1"),
        ("out.mp4", {"max_pixels": 100}, r"in\.mp4: 48 x 32 pixels are over the limit of 100"),
    ],
)
def test_what_cannot_be_is_told_before_the_model_is_loaded(out, options, message):
    write_clip("in.mp4", gradients(3))
    Path("there.mp4").touch()
    Path("file").touch()
    Path("full").mkdir()
    Path("full/x").touch()
    before = everything()
    with pytest.raises(Dav2Error, match=message) as caught:
        depth_video(never, Path("in.mp4"), Path(out), **options)
    assert "\n" not in str(caught.value)
    assert everything() == before


def test_overwrite_replaces_when_all_is_done(clip):
    Path("out.mp4").write_text("old")
    with pytest.raises(ZeroDivisionError):
        run(clip, "out.mp4", overwrite=True, predict=fails_at(CHUNK, ZeroDivisionError()))
    assert Path("out.mp4").read_text() == "old"
    run(clip, "out.mp4", overwrite=True)
    assert len(read_clip("out.mp4")[0]) == COUNT


def test_an_error_of_the_disk_is_one_line(clip, monkeypatch):
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/x/y")

    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(video, "Work", refuse)
    with pytest.raises(Dav2Error, match=r"^out\.mp4: Permission denied \(/x/y\): check that it can be written$"):
        run(clip, "out.mp4")


def test_constant_depth_is_no_trouble(clip):
    report = run(clip, "out.mp4", predict=lambda frames: (Depth(np.ones(f.shape[:2]), "disparity", f) for f in frames))
    assert (report.frames, report.flicker) == (COUNT, 0)


def test_the_bar_is_for_terminals_only(clip, capsys, monkeypatch):
    run(clip, "a.mp4")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(clip, "b.mp4")
    assert f"{COUNT}/{COUNT}" in capsys.readouterr().err
    run(clip, "c.mp4", progress=False)
    assert capsys.readouterr().err == ""
