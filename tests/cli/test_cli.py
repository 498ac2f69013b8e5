"""The command line: exit codes, one line for each error, and arguments that arrive where they should."""

import importlib
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dav2_jax
from dav2_jax import __main__ as started
from dav2_jax.cli import main as cli
from dav2_jax.convert.recognize import Overrides
from dav2_jax.errors import Dav2Error
from dav2_jax.image.read import read_image
from dav2_jax.inference import pipeline
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.formats import FORMATS
from dav2_jax.inference.predictor import Model
from dav2_jax.training.loop import Outcome
from dav2_jax.training.recipe import Recipe
from dav2_jax.video.job import VideoReport
from dav2_jax.weights import hub


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def record(monkeypatch, module, name, answer):
    """Puts a recorder in place of a function, with its signature: arguments that it would not take are a TypeError."""
    module = importlib.import_module(module)
    signature = inspect.signature(getattr(module, name))
    calls = []

    def recorder(*arguments, **options):
        bound = signature.bind(*arguments, **options)
        calls.append(dict(bound.arguments))
        return answer

    monkeypatch.setattr(module, name, recorder)
    return calls


@pytest.fixture
def model(monkeypatch):
    """`load` gives a model that predicts luminance; returns the calls that reached it, checked as in `record`."""
    calls = []

    class Luminance:
        programs = "on CPU, of which 0.1 s for compiling (programs: 1)"

        def predict(self, photos, **options):
            inspect.signature(Model.predict).bind(self, photos, **options)
            calls.append(("predict", photos, options))

        def stream(self, photos, finish, **options):
            inspect.signature(Model.stream).bind(self, photos, finish, **options)

            def prepare(path):
                calls.append(("predict", Path(path).name, options))
                image, _ = read_image(path)
                return np.zeros(1), Depth(image.mean(axis=-1, dtype=np.float32), "disparity", image)

            return pipeline.run(photos, prepare, np.stack, lambda path, depth, _: finish(path, depth))

    load_signature = inspect.signature(dav2_jax.load)

    def load(name, **options):
        load_signature.bind(name, **options)
        calls.append(("load", name, options))
        if name == "gone":
            raise Dav2Error("gone: no such model: dav2 models lists them")
        return Luminance()

    monkeypatch.setattr("dav2_jax.inference.load.load", load)
    return calls


NOTHING = dict.fromkeys(("kind", "max_depth", "taps", "entry", "prefix"))
EVERYTHING = {"kind": "metric", "max_depth": 20.0, "taps": "v1", "entry": "ema", "prefix": "net"}
DEFAULTS = {"input_size": None, "max_pixels": 178_956_970, "resize": "photo", "batch_size": None, "tiles": None}


def run(line):
    return cli.main(line.split())


def write_photo(name, size=(12, 8)):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(name)


def test_predict_with_defaults(model, capsys):
    write_photo("photo.png")
    assert cli.main(["predict", "photo.png"]) == 0
    assert model == [
        ("load", "small", {"dtype": "float32", **NOTHING}),
        ("predict", "photo.png", DEFAULTS),
    ]
    assert [path.name for path in Path("depth").iterdir()] == ["photo.png.color.png"]
    assert re.fullmatch(
        r"1 written, 0 skipped, 0 failed; outputs are in depth\n"
        r"\d+\.\d s on CPU, of which 0\.1 s for compiling \(programs: 1\)\n",
        capsys.readouterr().out,
    )


def test_predict_passes_every_flag_on(model):
    write_photo("in/a.png")
    weights = "--model m.pth --dtype bfloat16 --kind metric --max-depth 20 --taps v1 --entry ema --prefix net"
    sizes = "--input-size 266 --max-pixels 1000 --resize network --batch-size 4"
    assert run(f"predict in --out o --format npz ply --fov 90 {sizes} {weights}") == 0
    assert model == [
        ("load", "m.pth", {"dtype": "bfloat16", **EVERYTHING}),
        (
            "predict",
            "a.png",
            {"input_size": 266, "max_pixels": 1000, "resize": "network", "batch_size": 4, "tiles": None},
        ),
    ]
    assert {path.name for path in Path("o").iterdir()} == {"a.png.npz", "a.png.ply"}
    assert Depth.load("o/a.png.npz").focal_length == pytest.approx(6.0)
    assert run("predict in --out o --format npz --focal-length 33.5") == 0
    assert Depth.load("o/a.png.npz").focal_length == 33.5
    model.clear()
    assert run("predict in --out o --format npz --skip-existing") == 0
    assert model == []  # nothing to do, nothing to load


@pytest.mark.parametrize(("value", "tiles"), [("3", 3), ("auto", "auto")])
def test_predict_in_tiles(model, value, tiles):
    write_photo("photo.png")
    assert run(f"predict photo.png --tiles {value} --input-size 266") == 0
    assert model[-1] == ("predict", "photo.png", DEFAULTS | {"input_size": 266, "tiles": tiles})
    model.clear()
    assert run("predict photo.png --tiles 0") == 2
    assert run("predict photo.png --tiles 2 --resize network") == 2
    assert run("predict photo.png --tiles some") == 2
    assert model == []


def test_photos_that_fail_are_exit_code_1_and_2_is_a_wrong_command_line(model, capsys):
    write_photo("good.png")
    Path("bad.png").write_bytes(b"no image")
    Path("clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(20))
    assert cli.main(["predict", "good.png", "bad.png", "clip.mp4", "missing.png"]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "missing.png: no such file or folder: check the path",
        "bad.png: not an image that Pillow can read (8 bytes)",
        "clip.mp4: is a video, not a photo: dav2 video clip.mp4 depth.mp4",
    ]
    assert shown.out.splitlines()[0] == "1 written, 0 skipped, 3 failed; outputs are in depth"
    assert cli.main(["predict", *(f"{n}.png" for n in range(2))]) == 1  # not 2
    assert cli.main(["predict"]) == 2
    assert "dav2: error: no photo given" in capsys.readouterr().err
    assert [call for call, *_ in model].count("load") == 1  # none without a photo


def test_what_is_left_out_of_a_folder_is_counted_and_fails_nothing(model, capsys):
    write_photo("in/a.png")
    for name in ("b.CR2", "c.cr2", "d.exr"):
        Path("in", name).touch()
    assert run("predict in") == 0
    assert "\nleft out: 2 .cr2, 1 .exr\n" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_cannot_be_printed_are_escaped(encoding, model, monkeypatch):
    photo, out = os.fsdecode(b"\xff\xc3\xbc.png"), "ü"
    write_photo(photo)
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert cli.main(["predict", photo, "gone.png", "--out", out, "--format", "npy"]) == 1
    for stream in streams.values():
        stream.flush()
    shown = {name: stream.buffer.getvalue().decode(encoding) for name, stream in streams.items()}
    assert f"outputs are in {out if encoding == 'utf-8' else chr(92) + 'xfc'}\n" in shown["stdout"]
    assert shown["stderr"].startswith("gone.png: no such file")
    assert Path(out, f"{photo}.npy").exists()


def test_predict_to_pictures_and_arrays_needs_no_optional_package(model, monkeypatch, capsys):
    write_photo("photo.png")
    for package in ("OpenEXR", "matplotlib", "av", "pillow_heif"):
        monkeypatch.setitem(sys.modules, package, None)
    assert run("predict photo.png --format color gray png16 npy npz side-by-side ply glb --fov 60") == 0
    capsys.readouterr()
    assert run("predict photo.png --format exr") == 2
    assert capsys.readouterr().err == "dav2: error: this needs OpenEXR: pip install 'dav2-jax[exr]'\n"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--fov 200", "--fov 200 degrees: "),
        ("--fov 60 --focal-length 500", "--focal-length"),
        ("--focal-length 0", "--focal-length"),
        ("--out photo.png", "photo.png: is a file: name another folder"),
        ("--input-size 5", "--input-size 5 is less than one patch: "),
        ("--format", "no output format: "),
        ("--batch-size 0", "--batch-size 0: give at least 1"),
        ("--processes 2", "--coordinator HOST:PORT, --processes COUNT and --process NUMBER: give all three, or none"),
        ("--coordinator localhost:1 --processes 2 --process 2", "--process 2: processes are numbered from 0 to 1"),
        ("--coordinator localhost --processes 2 --process 0", "--coordinator localhost: give HOST:PORT"),
    ],
)
def test_options_are_checked_before_the_model_is_loaded(options, line, model, capsys):
    write_photo("photo.png")
    assert run(f"predict photo.png {options}") == 2
    assert model == []
    shown = capsys.readouterr().err
    assert shown.startswith(f"dav2: error: {line}")
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        "--format npy gray a.png b.png",
        "--format=npy gray a.png b.png",
        "a.png --format npy gray b.png",
        "a.png --input-size 28 --format npy gray b.png --dtype float32",
        "--input-size 28 --format npy gray a.png b.png --skip-existing",
        "--skip-existing a.png --input-size=28 b.png --format npy gray",
        "a.png --dtype float32 b.png --format npy gray",
    ],
)
def test_photos_may_stand_anywhere(line, model):
    write_photo("a.png")
    write_photo("b.png")
    assert run(f"predict {line}") == 0
    assert [name for call, name, _ in model if call == "predict"] == ["a.png", "b.png"]
    expected = {f"{name}.png.{end}" for name in "ab" for end in ("npy", "gray.png")}
    assert {path.name for path in Path("depth").iterdir()} == expected


def test_a_folder_may_have_the_name_of_a_format(model):
    write_photo("npy/a.png")
    assert run("predict --format npy ./npy npy") == 0  # after the first photo all are photos
    assert [path.name for path in Path("depth").iterdir()] == ["a.png.npy"]


def test_an_error_of_the_user_is_one_line(model, capsys):
    write_photo("photo.png")
    assert cli.main(["predict", "photo.png", "--model", "gone"]) == 2
    assert capsys.readouterr().err == "dav2: error: gone: no such model: dav2 models lists them\n"
    assert cli.main(["--debug", "predict", "photo.png", "--model", "gone"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("dav2: error: gone: no such model: dav2 models lists them\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "dav2: interrupted: "),
        (ZeroDivisionError("by\nzero"), 70, "dav2: unexpected ZeroDivisionError: by: run again with --debug"),
        (ModuleNotFoundError("", name="h5py"), 2, "dav2: error: this needs h5py: pip install 'dav2-jax[train]'"),
        (ModuleNotFoundError("", name="av"), 2, "dav2: error: this needs av: pip install 'dav2-jax[video]'"),
        (ModuleNotFoundError("No module named 'dav2'", name="dav2"), 70, "dav2: unexpected ModuleNotFoundError: No"),
        (AssertionError(), 70, "dav2: unexpected AssertionError: no message: run again with --debug"),
    ],
)
def test_whatever_happens_is_one_line(error, code, line, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr(hub, "table", fail)
    assert cli.main(["models"]) == code
    shown = capsys.readouterr().err
    assert shown.startswith(line)
    assert shown.count("\n") == 1
    assert cli.main(["models", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_in_a_callback_is_not_lost(monkeypatch, capsys):
    """Where Python can raise nothing, as in the callbacks of JAX."""

    class Callback:
        def __del__(self):
            raise KeyboardInterrupt

    def program():
        Callback()
        time.sleep(5)

    monkeypatch.setattr(sys, "unraisablehook", cli._where_nothing_can_be_raised)
    with pytest.raises(KeyboardInterrupt):
        program()
    monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_video_passes_every_flag_on(monkeypatch, capsys):
    report = VideoReport(Path("o.mp4"), 3, "audio copied", 0.5, 2.0, None)
    calls = record(monkeypatch, "dav2_jax.video.predict", "predict_video", report)
    assert run("video in.mp4 o.mp4") == 0
    assert capsys.readouterr().out == f"{report}\n"
    weights = "--model m.pth --dtype bfloat16 --kind metric --max-depth 20 --taps v1 --entry ema --prefix net"
    sizes = "--input-size 266 --batch-size 4"
    render = "--side-by-side --gray --format npz --range 1 9 --bits 10"
    limits = "--fps 12 --max-frames 7 --max-pixels 1000 --overwrite"
    assert run(f"video frames depths {weights} {sizes} {render} {limits}") == 0
    nothing, everything = calls
    assert nothing == {
        "src": Path("in.mp4"), "dst": Path("o.mp4"), "model": "small", "side_by_side": False, "gray": False,
        "format": "picture", "limits": None, "bits": 8, "fps": None, "max_frames": None, "input_size": None,
        "batch_size": None, "max_pixels": 178_956_970, "overwrite": False,
        "load_options": {"dtype": "float32", **NOTHING},
    }  # fmt: skip
    assert everything == {
        "src": Path("frames"), "dst": Path("depths"), "model": "m.pth", "side_by_side": True, "gray": True,
        "format": "npz", "limits": (1.0, 9.0), "bits": 10, "fps": 12.0, "max_frames": 7, "input_size": 266,
        "batch_size": 4, "max_pixels": 1000, "overwrite": True,
        "load_options": {"dtype": "bfloat16", **EVERYTHING},
    }  # fmt: skip


def test_a_damaged_video_is_exit_code_1(monkeypatch, capsys):
    report = VideoReport(Path("o.mp4"), 3, "no audio", None, None, "in.mp4: damaged")
    record(monkeypatch, "dav2_jax.video.predict", "predict_video", report)
    assert run("video in.mp4 o.mp4") == 1
    assert capsys.readouterr().err == "in.mp4: damaged\n"


def test_convert_passes_every_flag_on(monkeypatch, capsys):
    calls = record(monkeypatch, "dav2_jax.weights.convert", "convert", "converted 3 tensors")
    assert run("convert small small.ckpt") == 0
    told = "--kind metric --max-depth 80 --taps v2 --entry ema --prefix net --license MIT"
    assert run(f"convert s d --to hf --dtype bfloat16 {told} --overwrite") == 0
    names = ("src", "dst", "to", "dtype", "kind", "max_depth", "taps", "entry", "prefix", "license", "overwrite")
    nothing = ("small", Path("small.ckpt"), "checkpoint", *[None] * 7, False)
    everything = ("s", Path("d"), "hf", "bfloat16", "metric", 80.0, "v2", "ema", "net", "MIT", True)
    assert calls == [dict(zip(names, values, strict=True)) for values in (nothing, everything)]
    assert capsys.readouterr().out == "converted 3 tensors\n" * 2


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_verify_passes_every_flag_on(passed, code, monkeypatch, capsys):
    calls = record(monkeypatch, "dav2_jax.convert.verify", "verify", ("stage  error", passed))
    monkeypatch.setattr("dav2_jax.weights.load.load_weights", lambda name, overrides: (name, overrides))
    assert run("verify small") == code
    weights = "--kind relative --max-depth 9 --taps v1 --entry ema --prefix net"
    assert run(f"verify s --against a --image i --save o --input-size 98 --tolerance 1e-3 {weights}") == code
    names = ("weights", "name", "against", "image", "save", "input_size", "tolerance")
    nothing = (("small", Overrides()), "small", None, None, None, None, 1e-5)
    everything = (("s", Overrides("relative", 9.0, "v1", "ema", "net")), "s", Path("a"), Path("i"), Path("o"), 98, 1e-3)
    assert calls == [dict(zip(names, values, strict=True)) for values in (nothing, everything)]
    assert capsys.readouterr().out == "stage  error\n" * 2


def test_bench_passes_every_flag_on(monkeypatch):
    calls = record(monkeypatch, "dav2_jax.bench.run", "run", None)
    assert run("bench") == 0
    assert run("bench --aot v5e-8 v6e") == 0
    assert run("bench --encoder base large --batch 2 4 --input-size 98 --dtype bfloat16 --runs 3 --json -") == 0
    names = ("encoders", "batches", "input_size", "dtype", "runs", "targets", "file")
    nothing = (("small",), (1, 8), 518, "float32", 10, (), None)
    compiled = (("small",), (1, 8), 518, "bfloat16", 10, ("v5e-8", "v6e"), None)
    everything = (("base", "large"), (2, 4), 98, "bfloat16", 3, (), "-")
    assert calls == [dict(zip(names, values, strict=True)) for values in (nothing, compiled, everything)]


def test_bench_of_a_training_step(monkeypatch, capsys):
    calls = record(monkeypatch, "dav2_jax.bench.run", "run_training", None)
    assert run("bench --aot v5e-64 --train nano") == 0
    more = "--encoder giant --batch 64 192 --input-size 98 --dtype float32 --fsdp 8 --remat none --json -"
    assert run(f"bench --aot v5e-64 v6e-64 --train relative_teacher {more}") == 0
    names = ("recipe", "targets", "encoders", "batches", "input_size", "dtype", "fsdp", "remat", "file")
    nothing = ("nano", ("v5e-64",), (), (), 518, None, None, None, None)
    targets = ("v5e-64", "v6e-64")
    everything = ("relative_teacher", targets, ("giant",), (64, 192), 98, "float32", 8, "none", "-")
    assert calls == [dict(zip(names, values, strict=True)) for values in (nothing, everything)]
    assert run("bench --train nano") == 2
    assert "--train estimates for a TPU slice: name one, as in --aot v5e-64" in capsys.readouterr().err
    assert run("bench --aot v5e --fsdp 2") == 2
    assert "--fsdp and --remat are of a training step: name a recipe" in capsys.readouterr().err


def test_train_from_random_numbers_where_the_recipe_has_weights(monkeypatch, capsys):
    calls = record(monkeypatch, "dav2_jax.training.loop", "train", Outcome(7, False, {}))
    assert run("train own_data --train procedural --out x") == 0
    assert run("train own_data --train procedural --weights none --out y") == 0
    assert [(call["recipe"].weights, call["folder"]) for call in calls] == [("small", Path("x")), (None, Path("y"))]
    assert capsys.readouterr().out.startswith("x: step 7 of ")


def test_help_of_train_has_every_flag_in_groups_with_the_values_of_its_recipe(capsys):
    assert run("train own_metric --help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: dav2 train RECIPE --out RUN")
    groups = re.findall(r"\n\n(\S.*:)\n  --", shown)
    titles = ("network", "data", "loss", "optimization", "run")
    assert groups == ["command:", *(f"{name}, as in own_metric:" for name in titles)]
    flags = re.findall(r"^  --(\S+)(?: .*?)?(?:  |\n +)(\S.*)", shown, re.MULTILINE)
    assert {flag.replace("-", "_") for flag, _ in flags} >= set(Recipe.__dataclass_fields__) | {
        "out",
        "profile",
        "process",
    }
    assert "(default: metric-indoor-small)" in shown
    assert "gradient norm. (default: 1)" in shown  # and not the class's default as well
    assert run("train --help") == 0
    assert "gradient norm (default: no clipping)" in capsys.readouterr().out


def test_models_prints_the_table(capsys):
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out == hub.table() + "\n"


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dav2 {dav2_jax.__version__}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "",
            "no command given: use one of predict, video, convert, verify, train, bench, models, data (dav2 --help",
        ),
        (
            "draw",
            "unknown command 'draw': use one of predict, video, convert, verify, train, bench, models, data (dav2",
        ),
        ("vidio a b", "unknown command 'vidio' (did you mean video?): use one of predict, "),
        (
            "data chek a",
            "unknown command 'chek' (did you mean check?): use one of preview, check, prepare, sources (dav2",
        ),
        ("predict a --formt npy", "there is no --formt (did you mean --format?): see dav2 predict --help"),
        ("predict --format tiff", "--format 'tiff': use color, gray, png16, npy, "),
        ("predict a --input-size x", "--input-size 'x': give a whole number: see dav2 predict --help"),
        ("predict a --tiles x", "--tiles 'x': give a whole number or auto: see dav2 predict --help"),
        ("video a b --range 1", "--range: expected 2 arguments (LOW HIGH): see dav2 video --help"),
        ("train nano --out x --clip much", "--clip 'much': give a number: see dav2 train --help"),
        ("bench --batch many", "--batch 'many': give a whole number: see dav2 bench --help"),
        ("convert a", "missing from dav2 convert: TARGET: see dav2 convert --help"),
        ("convert", "missing from dav2 convert: SOURCE TARGET: see dav2 convert --help"),
        ("verify a b", "'b' is one argument too many: see dav2 verify --help"),
        (
            "train --out x",
            "which recipe? dav2 train RECIPE --out RUN, with one of metric_hypersim, metric_vkitti, nano, ",
        ),
        ("train none --out x", "none: no such recipe: use one of metric_hypersim, metric_vkitti, nano, nano_182, "),
        (
            "train nano --out x --batch-sise 8",
            "--batch-sise is no field of a recipe (did you mean --batch-size?): dav2 train",
        ),
        ("train nano --out x --lr 1", "--lr is no field of a recipe (did you mean --encoder-lr?): dav2 train"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(line, message, capsys):
    assert run(line) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"dav2: error: {message}")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_reader_that_stops_ends_the_command_quietly():
    """As `dav2 models | head -1`, which may close the pipe before or after all is written: here, before."""
    program = "import sys; from dav2_jax.cli.main import main; sys.stdin.read(); sys.exit(main(['models']))"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as command:
        command.stdout.close()
        command.stdin.close()
        assert command.stderr.read() == ""
    assert command.returncode == 141


def test_ctrl_c_while_modules_are_imported_is_one_line_and_130(monkeypatch, capsys):
    class Interrupted:
        def find_spec(self, name, *_):
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "dav2_jax.cli.main")
    monkeypatch.delattr(dav2_jax.cli, "main")
    monkeypatch.setattr(sys, "meta_path", [Interrupted()])
    assert started.main() == 130
    assert capsys.readouterr().err == "dav2: interrupted\n"


def test_ctrl_c_while_xla_compiles_is_one_line_and_130():
    """Not a crash at the end of Python, with a compilation still under way."""
    program = """
        import signal, sys
        from dav2_jax.cli.main import main
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for its background jobs
        sys.exit(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(program), "data", "preview", "procedural", "--count", "1"]
    environment = os.environ | {"JAX_LOG_COMPILES": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while "conversion jit(_render)" not in (line := process.stderr.readline()):
            assert line
        time.sleep(0.2)  # compiling takes seconds
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().splitlines()[-1].startswith("dav2: interrupted")
    assert process.returncode == 130


def test_help_of_predict_explains_every_format_and_flag(capsys):
    assert cli.main(["predict", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, format in FORMATS.items():
        assert f"{name} (x.jpg{format.suffix})" in shown
        assert format.about.split(",")[0] in shown
    flags = "model out format input-size dtype focal-length fov skip-existing max-pixels kind max-depth taps"
    for flag in flags.split():
        assert f"--{flag} " in shown
    assert "$ dav2 predict photo.jpg" in shown
    assert "Exit code: 0 all is well, 1 photos failed, 2 nothing was done" in shown


def test_help_gives_every_command_one_line(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("predict", "video", "convert", "verify", "train", "bench", "models", "data"):
        assert len([line for line in shown.splitlines() if line.startswith(f"  {command} ")]) == 1
    for words in ("--debug", "--version", "photos of predict failed", "over the tolerance"):
        assert words in shown
    assert len(shown.splitlines()) <= 22  # a small screen


@pytest.mark.parametrize("line", ["--help", *(f"{command} --help" for command in cli.COMMANDS)])
def test_help_is_laid_out_for_80_columns(line, capsys):
    assert run(line) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "\n\n\n" not in shown
    assert not re.search(r" $", shown, re.MULTILINE)
    assert ("\n$ dav2 " in shown) == (line not in ("models --help", "data sources --help"))


def test_help_imports_nothing_heavy():
    """Checked in a fresh process: this one has imported everything already."""
    program = (
        "import sys; from dav2_jax.cli.main import main; code = main(['predict', '--help']);"
        "heavy = {'jax', 'flax', 'matplotlib', 'PIL', 'OpenEXR', 'torch', 'orbax'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
