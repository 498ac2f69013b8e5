"""Frames from files and folders: each once, upright, at its time, in the right colors; damage is told in one line."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import MATRICES, gradients, remux, set_matrix, write_clip
from PIL import Image

from dav2_jax.errors import Dav2Error
from dav2_jax.video.probe import tag_seconds
from dav2_jax.video.source import open_source


def read(path, start=0, **options):
    source = open_source(path, **options)
    frames = list(source.frames(start))
    return source, [frame.pts for frame in frames], np.stack([frame.image for frame in frames])


def test_every_frame_at_its_time(tmp_path):
    frames = gradients(40)
    write_clip(tmp_path / "a.mp4", frames)
    source, times, images = read(tmp_path / "a.mp4")
    assert [time * source.time_base for time in times] == [Fraction(n, 24) for n in range(40)]
    assert (source.rate, source.total, source.aspect, source.damage) == (24, 40, 1, None)
    assert images.shape == (40, 32, 48, 3)
    assert np.abs(images.astype(int) - frames).mean() < 6  # chroma has half the resolution
    assert source.name(7) == "000007"


def test_times_may_be_irregular(tmp_path):
    times = [3, 5, 6, 100, 101, 7777]
    write_clip(tmp_path / "a.mkv", gradients(6), times=times, time_base=Fraction(1, 1000))
    source, read_times, _ = read(tmp_path / "a.mkv")
    assert [time * source.time_base for time in read_times] == [Fraction(t, 1000) for t in times]


def test_starting_later_gives_the_same_frames(tmp_path):
    write_clip(tmp_path / "a.mp4", gradients(30))
    _, times, images = read(tmp_path / "a.mp4")
    _, late_times, late = read(tmp_path / "a.mp4", start=17)
    assert late_times == times[17:]
    np.testing.assert_array_equal(late, images[17:])
    assert list(open_source(tmp_path / "a.mp4").frames(30)) == []


def test_raw_streams_without_timestamps_are_counted(tmp_path):
    write_clip(tmp_path / "a.mp4", gradients(10))
    with av.open(str(tmp_path / "a.mp4")) as container, (tmp_path / "a.h264").open("wb") as raw:
        stream = container.streams.video[0]
        to_annex_b = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in container.demux(stream):
            for filtered in to_annex_b.filter(packet if packet.size else None):
                raw.write(bytes(filtered))
    source, times, images = read(tmp_path / "a.h264")
    assert images.shape == (10, 32, 48, 3)
    steps = np.diff(times) * source.time_base * source.rate
    assert (steps == 1).all()


PATCHES = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]], np.uint8)


@pytest.mark.parametrize(
    ("height", "matrix", "full_range"),
    [(48, "ITU709", False), (48, "ITU709", True), (48, "ITU601", False), (48, "ITU601", True), (48, None, False)],
)
def test_colors_are_right(height, matrix, full_range, tmp_path):
    image = PATCHES.repeat(16, axis=0)[None].repeat(height, axis=0)
    write_clip(tmp_path / "a.mp4", [image] * 2, matrix=matrix, full_range=full_range)
    _, _, images = read(tmp_path / "a.mp4")
    assert np.abs(images[1].astype(int) - image)[:, 8::16].max() <= 4


def test_untagged_high_definition_is_bt709(tmp_path):
    image = PATCHES.repeat(16, axis=0)[None].repeat(720, axis=0)
    write_clip(tmp_path / "a.mp4", [image], matrix=None)  # written by BT.601, so read with other colors
    _, _, images = read(tmp_path / "a.mp4")
    error = np.abs(images[0].astype(int) - image)[0, 8::16].max(axis=-1)
    assert error[:3].min() > 10
    assert error[3:5].max() <= 3  # white and black are the same in both


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264", "yuv422p10le"), ("ffv1", "gray"), ("ffv1", "bgra")])
def test_other_pixel_formats(codec, pix_fmt, tmp_path):
    image = np.full((32, 48, 3), 90, np.uint8)
    image[:, 24:] = 180
    write_clip(tmp_path / "a.mkv", [image], codec=codec, pix_fmt=pix_fmt)
    _, _, images = read(tmp_path / "a.mkv")
    assert np.abs(images[0].astype(int) - image)[:, [8, 40]].max() <= 3


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_and_mirrored_as_players_show_them(name, suffix, tmp_path):
    image = gradients(1)[0] // 2
    image[:8, :12] = 255  # the upper left corner
    path = write_clip(tmp_path / f"a{suffix.replace('mkv', 'mp4')}", [image] * 2, aspect=Fraction(4, 3))
    set_matrix(path, name)
    path = remux([path], tmp_path / "a.mkv") if suffix == ".mkv" else path
    source, _, images = read(path)
    expected = MATRICES[name][1](image)
    assert images.shape[1:] == expected.shape
    assert np.abs(images[0].astype(int) - expected).mean() < 4
    assert source.aspect == (Fraction(4, 3) if expected.shape == image.shape else Fraction(3, 4))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:01.042000000", 1.042),
        ("00:00:01,042", 1.042),
        ("1:02:03", 3723),
        ("02:03.5", 123.5),
        ("1.00:00:02.5", 86402.5),
        ("1 day, 00:00:02", 86402),
        ("2d 00:00:02", 172802),
        ("5.04", 5.04),
        ("5,04 s", 5.04),
        *((text, None) for text in ("N/A", "", "  ", "nan", "-1", "00:00:10;12", "01:00:00:10", "PT5S", "\0")),
    ],
)
def test_duration_tags_in_any_spelling(text, seconds):
    assert tag_seconds(text) == (None if seconds is None else Fraction(str(seconds)))


def test_a_tag_is_read_from_the_file_and_never_damage(tmp_path):
    path = write_clip(tmp_path / "a.mkv", gradients(10))
    data = path.read_bytes()
    for text in (b"00:00:00,417", b"N/A", b"9 days", b"00:00:09.000000000"):
        path.write_bytes(data.replace(b"00:00:00.417000000", text.ljust(18, b"\0")))
        source = open_source(path)
        assert sum(frame.duration for frame in source.frames()) * source.time_base == Fraction(416, 1000)
        assert source.damage is None


@pytest.mark.parametrize(("default", "used"), [((0, 1), 1), ((0,), 0), ((1,), 1)])
def test_of_several_videos_the_default_or_else_the_largest_is_used(default, used, tmp_path):
    small = write_clip(tmp_path / "small.mp4", gradients(3))
    large = write_clip(tmp_path / "large.mp4", gradients(5, 64, 96))
    both = remux([small, large], tmp_path / "both.mkv", default)
    source, _, images = read(both)
    assert images.shape == [(3, 32, 48, 3), (5, 64, 96, 3)][used]
    assert source.note == f"{both}: holds 2 video streams, 0 (48 x 32), 1 (96 x 64): stream {used} is used"
    assert open_source(small).note is None


def test_an_animated_webp(tmp_path):
    frames = gradients(6)
    durations = [100, 50, 0, 200, 100, 900]
    first, *others = map(Image.fromarray, frames)
    path = tmp_path / "a.webp"
    first.save(path, save_all=True, append_images=others, duration=durations, lossless=True)
    source, times, images = read(path)
    np.testing.assert_array_equal(images, frames)
    assert times == [0, 100, 150, 250, 450, 550]  # 0 is shown as 100
    assert (source.total, source.rate, source.aspect) == (6, Fraction(6000, 1450), 1)
    assert [frame.duration for frame in source.frames(4)] == [100, 900]
    assert [frame.pts for frame in open_source(path, fps=4).frames()] == [0, 250, 550]
    with pytest.raises(Dav2Error, match="48 x 32 pixels are over the limit of 100"):
        open_source(path, max_pixels=100)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(Dav2Error, match=r"a\.webp: cannot be opened as an animated WebP: check the file"):
        open_source(path)


def test_fewer_frames_a_second(tmp_path):
    write_clip(tmp_path / "a.mp4", gradients(48))
    source, times, _ = read(tmp_path / "a.mp4", fps=6)
    assert [time * source.time_base for time in times] == [Fraction(n, 6) for n in range(12)]
    assert (source.total, source.rate) == (12, 6)
    assert len(read(tmp_path / "a.mp4", fps=1000)[1]) == 48
    _, late, _ = read(tmp_path / "a.mp4", start=5, fps=6)
    assert late == times[5:]


def test_a_stream_may_change_its_size(tmp_path):
    for name, (height, width) in {"a": (32, 48), "b": (64, 96)}.items():
        write_clip(tmp_path / f"{name}.ts", gradients(5, height, width))
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    source, times, images = read(tmp_path / "both.ts")
    assert images.shape == (10, 32, 48, 3)
    assert (np.diff(times) > 0).all()
    assert source.damage is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_damaged_file_gives_what_can_be_decoded(name, tmp_path):
    path = write_clip(tmp_path / name, gradients(60, 64, 96))
    whole = read(path)[2]
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(data) // 3, len(data) // 2, 20):
        data[at : at + 50] = rng.bytes(50)
    path.write_bytes(data)
    source, _, images = read(path)
    assert 10 < len(images) <= 60
    np.testing.assert_array_equal(images[:5], whole[:5])
    assert source.damage is not None
    assert source.damage.startswith(f"{path}: damaged or cut short: {len(images)} ")
    assert "\n" not in source.damage


@pytest.mark.parametrize("share", [0.4, 0.55, 0.9])
@pytest.mark.parametrize(("name", "options"), [("a.mkv", {}), ("a.mp4", {"movflags": "faststart"}), ("a.flv", {})])
def test_a_file_that_was_cut_off(name, options, share, tmp_path):
    path = write_clip(tmp_path / name, gradients(60, 64, 96), audio="aac", options=options)
    whole = read(path)[2]
    assert len(whole) == 60
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    source, _, images = read(path)
    assert 60 * share / 2 < len(images) < 60
    np.testing.assert_array_equal(images[:-1], whole[: len(images) - 1])
    assert source.damage.startswith(f"{path}: damaged or cut short: {len(images)} ")


def test_without_its_index_a_file_is_refused(tmp_path):
    path = write_clip(tmp_path / "a.mp4", gradients(60, 64, 96))  # its index is at the end
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Dav2Error, match=r"a\.mp4: cannot be opened as a video \("):
        open_source(path)


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    other = write_clip(tmp_path / "other.mp4", gradients(1)).read_bytes()
    (tmp_path / "other.mp4").write_bytes(other.replace(b"avc1", b"zzz1"))
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.txt").touch()
    for name, words in {
        "empty.mp4": "cannot be opened as a video",
        "text.mp4": "cannot be opened as a video",
        "sound.wav": "holds no video stream",
        "other.mp4": "this build of FFmpeg (PyAV) has no decoder for its video",
        "gone.mp4": "no such file or folder",
        "none": "the folder holds no picture",
    }.items():
        with pytest.raises(Dav2Error) as caught:
            open_source(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {words}")
        assert "\n" not in str(caught.value)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    write_clip(tmp_path / "a.mp4", gradients(1))
    with pytest.raises(Dav2Error, match=r"48 x 32 pixels are over the limit of 1,535: raise max_pixels"):
        open_source(tmp_path / "a.mp4", max_pixels=48 * 32 - 1)
    open_source(tmp_path / "a.mp4", max_pixels=48 * 32)


def test_a_folder_is_sorted_as_people_count(tmp_path):
    for name, value in {"f10.png": 10, "f2.png": 2, "f9.bmp": 9, "F1.png": 1}.items():
        Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "sub/f3.png")
    source, times, images = read(tmp_path)
    assert images[:, 0, 0, 0].tolist() == [1, 2, 9, 10]
    assert (times, source.rate, source.total, source.time_base) == ([0, 1, 2, 3], 24, 4, Fraction(1, 24))
    assert source.name(2) == "f9.bmp"
    for fps, rate in {
        29.97: Fraction(30000, 1001),
        23.976: Fraction(24000, 1001),
        12.5: Fraction(25, 2),
        30: 30,
    }.items():
        assert open_source(tmp_path, fps=fps).rate == rate
    assert read(tmp_path, start=2)[2][:, 0, 0, 0].tolist() == [9, 10]


def test_pictures_of_one_folder_have_one_size(tmp_path):
    for number, width in enumerate((6, 6, 7)):
        Image.new("RGB", (width, 4)).save(tmp_path / f"{number}.png")
    for start in (0, 2):
        with pytest.raises(Dav2Error, match=r"2\.png: 7 x 4 pixels where the first frame has 6 x 4"):
            read(tmp_path, start)


def test_fingerprints_tell_inputs_apart(tmp_path):
    write_clip(tmp_path / "a.mp4", gradients(2))
    before = open_source(tmp_path / "a.mp4").fingerprint()
    assert open_source(tmp_path / "a.mp4").fingerprint() == before
    write_clip(tmp_path / "a.mp4", gradients(3))
    assert open_source(tmp_path / "a.mp4").fingerprint() != before
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / os.fsdecode(b"\xff1.png"))  # a name in no encoding
    before = open_source(folder).fingerprint()
    Image.new("RGB", (4, 4)).save(folder / "2.png")
    assert open_source(folder).fingerprint() != before
