"""Many photos: everything is written, one bad photo costs one line, and files are whole whatever happens."""

import errno
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.formats import FORMATS
from dav2_jax.inference.inputs import find_inputs
from dav2_jax.inference.job import explain, predict_files
from dav2_jax.inference.pipeline import run


def luminance(path):
    """A stand-in for the model: bright is near."""
    with Image.open(path) as photo:
        image = np.asarray(photo.convert("RGB"))
    return Depth(image.mean(axis=-1, dtype=np.float32), "disparity", image)


def streamed(predict):
    """`Model.stream` with a function of one path for a model."""

    def stream(photos, finish):
        return run(
            photos, lambda path: (np.zeros(1), predict(path)), np.stack, lambda path, depth, _: finish(path, depth)
        )

    return stream


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "sub/a.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


def inputs_of(folder):
    inputs, problems = find_inputs([str(folder)])
    assert problems == []
    return inputs


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_formats_of_all_photos_mirror_the_tree(photos, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    report = predict_files(lambda: streamed(luminance), inputs_of(photos), out, list(FORMATS), fov=60.0)
    names = [f"{name}{format.suffix}" for name in ("a.png", "b.png", "sub/a.png") for format in FORMATS.values()]
    sidecars = [name + ".json" for name in names if name.endswith(".png16.png")]
    assert files_in(out) == sorted(names + sidecars)
    np.testing.assert_array_equal(np.load(out / "sub/a.png.npy"), luminance(photos / "sub/a.png").values)
    assert Depth.load(out / "a.png.npz").focal_length == pytest.approx(15 * 3**0.5)
    assert (report.written, report.skipped, report.failed, report.failures) == (3, 0, 0, ())
    shown = capsys.readouterr()
    assert str(report) == f"3 written, 0 skipped, 0 failed; outputs are in {out}"
    assert report.seconds > 0
    assert shown.out == ""
    assert shown.err.count("\n") == 1  # three relative point clouds, one warning
    assert shown.err.startswith("note: relative disparity has no scale and no shift")


FAILURES = {
    "bad": (Dav2Error("damaged: download it again"), "damaged: download it again"),
    "memory": (MemoryError(), "not enough memory: use a smaller input_size or model"),
    "device": (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), "not enough memory: use a smaller input_size"),
    "bomb": (Image.DecompressionBombError("3 Gpx"), "too many pixels: raise max_pixels"),
    "unknown": (Image.UnidentifiedImageError("?"), "not an image that Pillow can read: check the file"),
    "full": (OSError(errno.ENOSPC, "No space left on device"), "no space left for its outputs"),
    "denied": (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "Permission denied (/x/y): check that"),
}


@pytest.mark.parametrize("error", FAILURES)
def test_a_photo_that_fails_costs_one_line(error, photos, tmp_path, capsys):
    def fails_once(path):
        if path.name == "b.png":
            raise FAILURES[error][0]
        return luminance(path)

    report = predict_files(lambda: streamed(fails_once), inputs_of(photos), tmp_path / "out", ["npy"])
    assert (report.written, report.failed) == (2, 1)
    assert files_in(tmp_path / "out") == ["a.png.npy", "sub/a.png.npy"]
    line = report.failures[0]
    assert line.startswith(f"{photos / 'b.png'}: {FAILURES[error][1]}")
    shown = capsys.readouterr()
    assert shown.err == line + "\n"
    assert str(report) == f"2 written, 0 skipped, 1 failed; outputs are in {tmp_path / 'out'}"


def test_the_path_is_named_once(photos, tmp_path):
    def refuse(path):
        raise Dav2Error(f"{path}: not an image: check it")

    report = predict_files(lambda: streamed(refuse), inputs_of(photos)[:1], tmp_path / "out", ["npy"])
    assert report.failures == (f"{photos / 'a.png'}: not an image: check it",)


def test_problems_of_the_arguments_count_as_failures(photos, tmp_path, capsys):
    problems = ["x: no such file: check"]
    report = predict_files(lambda: streamed(luminance), inputs_of(photos), tmp_path / "out", ["npy"], problems=problems)
    assert (report.written, report.failed) == (3, 1)
    assert capsys.readouterr().err == "x: no such file: check\n"


def test_a_bug_and_an_interrupt_come_through(photos, tmp_path, capsys):
    for error in (ZeroDivisionError("bug"), KeyboardInterrupt()):

        def fails_second(path, error=error):
            if path.name == "b.png":
                raise error
            return luminance(path)

        with pytest.raises(type(error)):
            predict_files(lambda: streamed(fails_second), inputs_of(photos), tmp_path / "out", ["npy"])
        assert {"a.png.npy"} <= set(files_in(tmp_path / "out")) <= {"a.png.npy", "sub/a.png.npy"}


def test_skip_existing_asks_for_all_formats_and_for_content(photos, tmp_path):
    out, asked = tmp_path / "out", []

    def counted(path):
        asked.append(path.relative_to(photos).as_posix())
        return luminance(path)

    inputs = inputs_of(photos)
    predict_files(lambda: streamed(counted), inputs, out, ["npy", "color"])
    (out / "a.png.npy").unlink()
    (out / "b.png.color.png").write_bytes(b"")
    kept = (out / "sub/a.png.npy").stat().st_mtime_ns
    asked.clear()
    report = predict_files(lambda: streamed(counted), inputs, out, ["npy", "color"], skip_existing=True)
    assert sorted(asked) == ["a.png", "b.png"]
    assert (report.written, report.skipped, report.failed) == (2, 1, 0)
    assert (out / "sub/a.png.npy").stat().st_mtime_ns == kept
    again = predict_files(lambda: streamed(counted), inputs, out, ["npy", "color"])  # without the flag
    assert (again.written, again.skipped) == (3, 0)


def test_nothing_is_loaded_when_there_is_nothing_to_predict(photos, tmp_path, capsys):
    def never():
        raise AssertionError("loaded")

    predict_files(lambda: streamed(luminance), inputs_of(photos), tmp_path / "out", ["npy"])
    report = predict_files(never, inputs_of(photos), tmp_path / "out", ["npy"], skip_existing=True)
    assert (report.written, report.skipped, report.failed) == (0, 3, 0)
    assert predict_files(never, [], tmp_path / "out", ["npy"], problems=["x: no such file: check"]).failed == 1


def test_a_model_that_does_not_load_is_no_failure_of_a_photo(photos, tmp_path):
    def refuse():
        raise Dav2Error("gone: no such model")

    with pytest.raises(Dav2Error, match="gone: no such model"):
        predict_files(refuse, inputs_of(photos), tmp_path / "out", ["npy"])


def test_a_photo_may_have_the_name_that_a_message_begins_with():
    assert explain(Dav2Error("a point cloud needs"), Path("a"), Path("out")) == "a: a point cloud needs"


def test_photos_that_differ_in_extension_only_do_not_meet(tmp_path):
    for name, value in (("x.png", 10), ("x.bmp", 200)):
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(tmp_path / name)
    predict_files(lambda: streamed(luminance), inputs_of(tmp_path), tmp_path / "out", ["npy"])
    assert np.load(tmp_path / "out/x.png.npy")[0, 0] == 10
    assert np.load(tmp_path / "out/x.bmp.npy")[0, 0] == 200


def test_a_constant_map_is_written_with_a_note(tmp_path, capsys):
    Image.new("RGB", (8, 6), (9, 9, 9)).save(tmp_path / "black.png")
    report = predict_files(lambda: streamed(luminance), inputs_of(tmp_path), tmp_path / "out", ["color", "png16"])
    assert (report.written, report.failed) == (1, 0)
    assert "black.png: note: the depth map is constant" in capsys.readouterr().err
    assert np.unique(Depth.load(tmp_path / "out/black.png.png16.png").values).tolist() == [9.0]


def test_a_point_cloud_takes_the_focal_length_of_the_user_before_that_of_the_photo(photos, tmp_path, capsys):
    def with_exif(path):
        depth = luminance(path)
        return Depth(depth.values + 1, "metres", depth.image, focal_length=77.0 if path.name == "a.png" else None)

    for name in ("a.png", "sub/a.png"):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = 28  # FocalLengthIn35mmFilm
        Image.open(photos / name).save(photos / name, "JPEG", exif=exif)
    report = predict_files(lambda: streamed(with_exif), inputs_of(photos), tmp_path / "out", ["npz", "ply"])
    assert (report.written, report.failed) == (2, 1)
    assert "b.png: a point cloud needs the camera's focal length" in report.failures[0]
    assert report.failures[0].endswith(" (already written: npz)")
    assert "focal_length" in report.failures[0]
    assert "fov" in report.failures[0]
    assert Depth.load(tmp_path / "out/a.png.npz").focal_length == 77.0
    report = predict_files(
        lambda: streamed(with_exif), inputs_of(photos), tmp_path / "out", ["npz", "ply"], focal_length=99.0
    )
    assert report.failed == 0
    assert Depth.load(tmp_path / "out/a.png.npz").focal_length == 99.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": []}, "no output format"),
        ({"formats": ["npy", "tiff"]}, "unknown format 'tiff'"),
        ({"focal_length": 5.0, "fov": 60.0}, "are both given"),
        ({"fov": 200.0}, "between 0 and 180"),
    ],
)
def test_impossible_requests_stop_before_the_first_photo(arguments, message, photos, tmp_path):
    def never(path):
        raise AssertionError("a photo was read")

    with pytest.raises(Dav2Error, match=message):
        predict_files(
            lambda: streamed(never), inputs_of(photos), tmp_path / "out", **({"formats": ["npy"]} | arguments)
        )
    (tmp_path / "file").touch()
    with pytest.raises(Dav2Error, match="is a file: name another folder"):
        predict_files(lambda: streamed(never), inputs_of(photos), tmp_path / "file", ["npy"])
    with pytest.raises(Dav2Error, match=r"file/below: cannot be written \(Not a directory\): choose another folder"):
        predict_files(lambda: streamed(never), inputs_of(photos), tmp_path / "file/below", ["npy"])


@pytest.mark.parametrize("name", ["ply", "glb"])
def test_a_point_cloud_is_refused_before_the_work_where_no_photo_states_a_focal_length(name, photos, tmp_path):
    (photos / "bad.png").write_bytes(b"no image")
    message = rf"^{photos / 'a.png'}: a point cloud needs .* \(nor do the other 2\): give focal_length"
    with pytest.raises(Dav2Error, match=message):
        predict_files(lambda: pytest.fail("loaded"), inputs_of(photos), tmp_path / "out", ["npy", name])
    assert not (tmp_path / "out").exists()


def test_notes_on_photos_are_lines_and_the_rest_is_summed_up(photos, tmp_path, capsys):
    def odd(path):
        depth = luminance(path)
        return Depth(depth.values + 1, "metres", depth.image, focal_length=300.0, notes=("it is cut short",))

    left_out = Counter({".cr2": 2})
    report = predict_files(
        lambda: streamed(odd), inputs_of(photos), tmp_path / "out", ["npz"], focal_length=18, left_out=left_out
    )
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "cut short" in line] == [
        f"{photos / name}: note: it is cut short" for name in ("a.png", "b.png", "sub/a.png")
    ]
    assert len([line for line in lines if "18 pixels is far from the 300" in line]) == 1  # as true of the others
    assert str(report).splitlines() == [f"3 written, 0 skipped, 0 failed; outputs are in {tmp_path / 'out'}",
                                        "left out: 2 .cr2"]  # fmt: skip


def test_a_missing_package_stops_before_the_first_photo(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(Dav2Error, match=r"this needs OpenEXR: pip install 'dav2-jax\[exr\]'"):
        predict_files(lambda: pytest.fail("loaded"), inputs_of(photos), tmp_path / "out", ["exr"])


def test_an_output_folder_blocked_by_a_file_fails_its_photos_only(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").touch()
    report = predict_files(lambda: streamed(luminance), inputs_of(photos), tmp_path / "out", ["npy"])
    assert (report.written, report.failed) == (2, 1)
    assert report.failures[0].startswith(f"{photos / 'sub/a.png'}: File exists ({tmp_path / 'out/sub'})")


PROGRAM = """
    import resource, sys, time
    from pathlib import Path
    import numpy as np
    from dav2_jax.inference.depth import Depth
    from dav2_jax.inference.inputs import Input
    from dav2_jax.inference.job import predict_files
    from dav2_jax.inference.pipeline import run

    def predict(path):
        side = 4 if path.name == "small.jpg" else 700
        return Depth(np.random.default_rng(0).random((side, side), dtype=np.float32), "disparity")

    def stream(photos, finish):
        forward, to_value = np.stack, lambda path, depth, row: finish(path, depth)
        return run(photos, lambda path: (np.zeros(1), predict(path)), forward, to_value)

    def inputs(names):
        return [Input(Path(name), Path(name)) for name in names]
"""


def test_when_nothing_fits_each_photo_costs_one_line(tmp_path):
    """A limit of the kernel on file size stands for a full disk: both make write() fail half-way."""
    program = textwrap.dedent(PROGRAM) + textwrap.dedent("""
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        photos = inputs(["large.jpg", "small.jpg", "huge.jpg"])
        report = predict_files(lambda: stream, photos, Path("out"), ["npy", "exr"])
        print(report)
        sys.exit(report.failed)
    """)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    advice = "no space left for its outputs in out: free some and run again with skip_existing"
    assert done.stderr == f"large.jpg: {advice}\nhuge.jpg: {advice}\n"
    assert done.stdout == "1 written, 0 skipped, 2 failed; outputs are in out\n"
    assert done.returncode == 2
    assert files_in(tmp_path) == ["out/small.jpg.exr", "out/small.jpg.npy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_job_that_is_stopped_leaves_whole_files_only(number, tmp_path):
    program = textwrap.dedent(PROGRAM) + textwrap.dedent("""
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for its background jobs
        predict_files(lambda: stream, inputs(f"{n}.jpg" for n in range(1_000)), Path("out"), ["npy", "npz", "png16"])
    """)
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out/2.jpg.npy").exists():
            assert time.monotonic() < deadline
            assert job.poll() is None
            time.sleep(0.01)
        job.send_signal(number)
        _, shown = job.communicate(timeout=60)
    assert job.returncode != 0
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in shown
    expected = np.random.default_rng(0).random((700, 700), dtype=np.float32)
    visible = [name for name in files_in(tmp_path / "out") if not name.startswith(".")]
    for name in visible:
        if name.endswith((".npy", ".npz")):
            np.testing.assert_array_equal(Depth.load(tmp_path / "out" / name, "disparity").values, expected)
        elif name.endswith(".png16.png"):
            np.testing.assert_allclose(Depth.load(tmp_path / "out" / name).values, expected, atol=1e-5)
            assert f"{name}.json" in visible
    if number == signal.SIGKILL:  # Python could not clean up; the next run does
        program = program.replace("range(1_000)", "range(3)")
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    assert [name for name in files_in(tmp_path / "out") if name.startswith(".")] == []


def test_the_bar_is_for_terminals_only(photos, tmp_path, capsys, monkeypatch):
    predict_files(lambda: streamed(luminance), inputs_of(photos), tmp_path / "out", ["npy"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    predict_files(lambda: streamed(luminance), inputs_of(photos), tmp_path / "out", ["npy"])
    assert "3/3" in capsys.readouterr().err
    predict_files(lambda: streamed(luminance), inputs_of(photos), tmp_path / "out", ["npy"], progress=False)
    assert capsys.readouterr().err == ""
