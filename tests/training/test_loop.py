"""Runs of the training loop, as whole programs where they are stopped, on a few pictures made here."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import dav2_jax as dav2
from dav2_jax.cli import main as cli
from dav2_jax.errors import Dav2Error
from dav2_jax.files import held
from dav2_jax.model import config
from dav2_jax.model.flops import model_flops
from dav2_jax.training import recipe as recipes
from dav2_jax.training.loop import train
from dav2_jax.training.recipe import Recipe
from dav2_jax.weights.convert import convert

TINY = config.ModelConfig("tiny", 32, 2, 2, "mlp", 8, (8, 8, 8, 8), (0, 0, 1, 1), input_size=28)
PROGRAM = """
import sys
from pathlib import Path
import jax
from dav2_jax.cli.main import main
from dav2_jax.model import config
config.PRESETS["tiny"] = config.ModelConfig("tiny", 32, 2, 2, "mlp", 8, (8, 8, 8, 8), (0, 0, 1, 1), input_size=28)
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(config.PRESETS, "tiny", TINY)


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory):
    """A folder of compiled programs, for the many runs here that are alike, also in other processes."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield Path(settings["jax_compilation_cache_dir"])
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A CSV of eight pictures of slanted planes, brighter where nearer, with depth in metres."""
    folder = tmp_path_factory.mktemp("planes")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :40] / 40
    with (folder / "planes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "depth"])
        for number in range(8):
            slope = rng.uniform(-1, 1, 2)
            disparity = 1 + slope[0] * (rows - 0.4) + slope[1] * (columns - 0.5)
            bright = np.clip(disparity[..., None] * 120 + rng.normal(0, 5, (32, 40, 3)), 0, 255)
            Image.fromarray(bright.astype(np.uint8)).save(folder / f"{number}.png")
            np.save(folder / f"{number}.npy", (1 / disparity).astype(np.float32))
            table.writerow([f"{number}.png", f"{number}.npy"])
    return f"own:{folder / 'planes.csv'}"


@pytest.fixture(scope="module")
def recipe(data):
    """A loss that fixes scale and shift: else the gradient of the last bias is rounding alone, and Adam makes whole
    steps of it, so no two divisions of a batch end alike."""
    return Recipe(
        encoder="tiny", train=(data,), validate=(data,), size=28, batch_size=8, steps=24, encoder_lr=3e-4,
        loss="fixed_scale", schedule="constant", clip=1.0, ema=0.9, seed=2, workers=0, log_every=4, validate_every=8,
        save_every=4,
    )  # fmt: skip


def parameters(run: Path) -> dict:
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(dav2.load(run / "last.ckpt").params)
    }


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def entries(run: Path, group: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["group"] == group]


@pytest.fixture(scope="module")
def undisturbed(data, programs, tmp_path_factory):
    """The folder of a whole run on one device, by the command line."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    finish(run, small(data), programs)
    return run


def small(data: str) -> Recipe:
    return Recipe(
        encoder="tiny", train=(data,), validate=(data,), size=28, batch_size=4, steps=40, encoder_lr=1e-4,
        schedule="constant", ema=0.9, seed=2, workers=0, log_every=4, validate_every=20, save_every=3,
    )  # fmt: skip


def finish(run: Path, recipe: Recipe, programs: Path) -> None:
    process = start(run, recipe, programs, "--devices", "1")
    _, error = process.communicate()
    assert process.returncode == 0, error


def start(run: Path, recipe: Recipe, programs: Path, *more: str, devices: int = 8) -> subprocess.Popen:
    path = run.parent / f"{run.name}.py"
    path.write_text(f"from dav2_jax.training.recipe import Recipe\nrecipe = {recipe!r}\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=1",
    }
    command = [sys.executable, "-c", PROGRAM, str(path), "--out", str(run), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def on_eight(recipe, tmp_path_factory):
    """The folder and the outcome of a whole run on eight devices."""
    run = tmp_path_factory.mktemp("runs") / "eight"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config.PRESETS, "tiny", TINY)
        return run, train(recipe, run)


def test_a_run_learns_reports_and_leaves_a_checkpoint_that_loads(on_eight, recipe):
    run, outcome = on_eight
    assert (outcome.step, outcome.stopped) == (24, False)
    losses = [entry["loss"] for entry in entries(run, "train")]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]
    scores = entries(run, "validation")
    assert [entry["step"] for entry in scores] == [8, 16, 24]
    assert outcome.scores == pytest.approx({name: scores[-1][name] for name in outcome.scores})
    assert scores[-1]["abs_rel"] < scores[0]["abs_rel"]
    assert recipes.from_json((run / "recipe.json").read_text()) == recipe
    with Image.open(run / "pictures" / "00000024.png") as picture:
        assert picture.size == (3 * 28, 4 * 28)
    best = dav2.load(run / "best.ckpt")
    assert best.config == TINY
    assert best.predict(np.zeros((32, 40, 3), np.uint8)).unit == "disparity"
    assert dav2.load(run).config == TINY  # the folder of the run itself
    for target, name in (("official", "out.pth"), ("hf", "folder")):
        assert f"training run {run.name}" in convert(run, run.parent / name, to=target)
    assert dav2.load(run.parent / "folder").config.width == TINY.width


def test_two_processes_train_and_another_number_of_devices_goes_on_with_their_run(on_eight, recipe, programs, tmp_path):
    run = tmp_path / "run"
    where = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process")
    jobs = [start(run, recipe, programs, *where, str(number), devices=4) for number in range(2)]
    while all(job.poll() is None for job in jobs) and reached(run) < 12:
        time.sleep(0.01)
    for job in jobs:
        job.kill()
    said = [job.communicate() for job in jobs]
    assert [job.returncode for job in jobs] == [-signal.SIGKILL] * 2, said
    assert 12 <= reached(run) < 24
    assert (run / "best.ckpt").is_dir()
    assert train(recipe, run, devices=jax.devices()[:4]).step == 24
    assert_alike(run, *on_eight)


def assert_alike(run: Path, other: Path, outcome) -> None:
    """The same run but for the order of sums, which 24 steps make larger."""
    scores = entries(run, "validation")[-1]
    for name, value in outcome.scores.items():
        assert scores[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    ours, theirs = ([entry["loss"] for entry in entries(path, "train")] for path in (run, other))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    one, two = parameters(run), parameters(other)
    distance = sum(np.sum((one[name] - two[name]) ** 2) for name in one)
    assert distance < 1e-8 * sum(np.sum(value**2) for value in one.values())


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_killed_at_any_moment_it_ends_with_the_same_parameters(undisturbed, data, programs, tmp_path):
    run, rng, kills = tmp_path / "killed", np.random.default_rng(0), 0
    while kills < 2:
        process = start(run, small(data), programs, "--devices", "1")
        wanted = (kills + 1) * 12 + int(rng.integers(0, 5))
        while process.poll() is None and reached(run) < wanted:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        for step in steps(run):
            whole = run / "checkpoints" / str(step) / "state"
            assert whole.is_dir(), "a checkpoint that is not whole has a name of its own"
    assert kills == 2
    finish(run, small(data), programs)
    assert_same(parameters(run), parameters(undisturbed))
    kept = ("step", "loss", "grad_norm", "lr")
    ours, theirs = ([{k: e[k] for k in kept} for e in entries(path, "train")] for path in (run, undisturbed))
    assert ours == theirs


def reached(run: Path) -> int:
    return max(steps(run), default=0)


def steps(run: Path) -> list[int]:
    """Of the checkpoints that are whole; one that is being written is called 12.orbax-checkpoint-tmp."""
    return [int(folder.name) for folder in (run / "checkpoints").glob("[0-9]*") if folder.name.isdecimal()]


def test_ctrl_c_saves_and_stops_and_the_same_command_goes_on(undisturbed, data, programs, tmp_path):
    run = tmp_path / "stopped"
    process = start(run, small(data), programs, "--devices", "1", "--save-every", "1000")
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.01)
    while process.poll() is None and len(entries(run, "train")) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate()
    assert process.returncode == 143, error
    assert "stopped; the same command goes on" in out
    assert 12 <= reached(run) < 40
    finish(run, small(data), programs)
    assert_same(parameters(run), parameters(undisturbed))


def test_images_of_two_sizes_in_turn_and_on_in_the_same_turn(recipe, tmp_path):
    one = {"devices": jax.devices()[:1]}
    mixed = dataclasses.replace(recipe, width=56, heights=(28, 14, 14), steps=8, log_every=1, validate=())
    train(mixed, tmp_path / "whole", **one)
    shutil.copytree(tmp_path / "whole", tmp_path / "on")
    shutil.rmtree(tmp_path / "on" / "checkpoints" / "8")  # goes on from step 4, whose turn is the last
    (tmp_path / "on" / "metrics.jsonl").unlink()
    shutil.rmtree(tmp_path / "on" / "last.ckpt")
    train(mixed, tmp_path / "on", **one)
    assert_same(parameters(tmp_path / "on"), parameters(tmp_path / "whole"))
    runs = [[entry["loss"] for entry in entries(tmp_path / name, "train")] for name in ("whole", "on")]
    assert runs[0][4:] == runs[1]
    work = [entry["tflops"] / entry["images_per_second"] for entry in entries(tmp_path / "whole", "train")]
    whole, quarter = (3 * model_flops(TINY, *size) / 1e12 for size in ((28, 56), (14, 28)))
    np.testing.assert_allclose(work, [whole, quarter, quarter, whole, quarter, quarter, whole, quarter], rtol=1e-6)


def test_what_is_not_finite_stops_with_the_step_and_its_examples(recipe, data, tmp_path, monkeypatch):
    from dav2_jax.training import objective

    monkeypatch.setattr(
        objective, "make_loss", lambda recipe: lambda prediction, batch: (prediction.sum() * np.nan, {})
    )
    with pytest.raises(Dav2Error, match=r"^step 1: the loss or its gradient is not finite. Its examples: own \d: \d"):
        train(recipe, tmp_path / "run")


def test_a_full_disk_is_one_line_before_the_first_step(recipe, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(Dav2Error, match=r"run: no space left: checkpoints need \d+ MB and 1 MB are free$"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_folder_in_which_nothing_was_saved_takes_any_recipe(recipe, tmp_path):
    with pytest.raises(Dav2Error, match="/no/where"):
        train(dataclasses.replace(recipe, weights="/no/where.pth"), tmp_path / "run")
    assert train(dataclasses.replace(recipe, steps=2, validate=()), tmp_path / "run").step == 2


def test_a_folder_of_another_run_is_refused(recipe, tmp_path):
    train(dataclasses.replace(recipe, steps=2, validate=()), tmp_path / "run")
    message = (
        r"run: holds a run of another recipe \(steps was 2; encoder_lr was 0.0003\): .*; weights=.*run with another"
    )
    with pytest.raises(Dav2Error, match=message):
        train(dataclasses.replace(recipe, steps=3, encoder_lr=1e-5), tmp_path / "run")
    assert train(dataclasses.replace(recipe, steps=2, log_every=1, validate=()), tmp_path / "run").step == 2


def test_beside_a_frozen_encoder_and_on_without_its_file(undisturbed, recipe, tmp_path):
    """It stays out of what is shipped, and is in the run's own checkpoints."""
    weights = tmp_path / "weights.ckpt"
    shutil.copytree(undisturbed / "last.ckpt", weights)
    changed = dataclasses.replace(
        recipe, steps=8, weights=str(weights), feature_weight=1.0, encoder_lr=1e-3, validate=()
    )
    assert train(changed, tmp_path / "run", devices=jax.devices()[:1]).step == 8
    assert entries(tmp_path / "run", "train")[-1]["features"] > 0
    before = parameters(tmp_path / "run")
    assert not any("frozen" in name for name in before)
    shutil.rmtree(weights)
    shutil.rmtree(tmp_path / "run" / "last.ckpt")
    assert train(changed, tmp_path / "run", devices=jax.devices()[:1]).step == 8
    assert_same(parameters(tmp_path / "run"), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ()}, "no training source"),
        ({"size": 30}, "size=30: crops are a multiple of 14"),
        ({"width": 30}, "width=30: crops are a multiple of 14"),
        ({"heights": (14, 42)}, "heights=42: give multiples of 14 up to size=28"),
        ({"heights": (14,), "width": 42}, "heights=14: .* the width, 42 at full size, is a multiple of 14 as well"),
        ({"loss": "silog"}, "loss=silog is for kind=metric"),
        ({"kind": "metric"}, "loss=fixed_scale is for kind=relative"),
        ({"mix": (1.0, 2.0)}, "the mix has 2 shares for 1 sources"),
        ({"encoder": "tinny"}, "encoder 'tinny': use one of"),
        ({"batch_size": 3}, "batch_size=3 does not divide among 8 devices"),
        ({"freeze": "all"}, "freeze=all: give encoder, positions, or a number of blocks"),
        ({"flip": 2.0}, "flip=2.0: give a share of 0 to 1"),
        ({"train": ("own:/no/where.csv",)}, "/no/where.csv: no such file"),
        ({"weights": "/no/where.pth"}, "/no/where.pth: no such file or folder"),
        ({"feature_weight": 1.0}, "feature_weight needs features or weights"),
        ({"features": "nano"}, "features=nano is for a feature_weight above 0"),
        ({"features": "nano", "feature_weight": 1.0}, "nano: is a nano model, and the recipe says encoder=tiny"),
        ({"fsdp": 3}, "fsdp=3: must divide the number of devices, 8"),
        ({"workers": -1}, "workers=-1: give 0 or more"),
        ({"warmup": 24}, "warmup=24: the run has 24 steps: give warmup=1"),
        ({"steps": 0, "size": 30, "loss": "silog"}, "steps=0: .*; size=30: .*: give 28; loss=silog is for"),
        ({"max_depth": 20.0}, "max_depth=20 is for kind=metric"),
        ({"label": "sensor"}, "has no sensor_depth: train with label=depth"),
    ],
)
def test_what_cannot_be_is_one_line_before_the_first_step(recipe, changes, message, tmp_path):
    with pytest.raises(Dav2Error, match=message.replace("(", r"\(")) as caught:
        train(dataclasses.replace(recipe, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not entries(tmp_path / "run", "train")


def test_disparity_of_any_scale_teaches_no_metres(recipe, data, tmp_path):
    metric = dataclasses.replace(recipe, kind="metric", max_depth=20.0, loss="silog")
    for changes in ({"train": (f"{data}?unit=disparity",)}, {"validate": (f"{data}?unit=disparity",)}):
        with pytest.raises(Dav2Error, match=r"unit=disparity: kind=metric needs depth in metres.* is disparity$"):
            train(dataclasses.replace(metric, **changes), tmp_path / "run")


@pytest.mark.parametrize("where", ["train", "validate"])
def test_depth_in_millimetres_stops_before_the_first_step(recipe, data, tmp_path, where):
    metric = dataclasses.replace(
        recipe, kind="metric", max_depth=20.0, loss="silog", **{where: (f"{data}?scale=1000",)}
    )
    with pytest.raises(Dav2Error, match=r"^own: the loss counts no pixel of the 8 .* raise max_depth"):
        train(metric, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_at_once_in_a_folder_are_refused(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    with (
        held(tmp_path / "run" / ".train.lock", ""),
        pytest.raises(Dav2Error, match="run: another process is training there: wait for it, or choose another folder"),
    ):
        train(recipe, tmp_path / "run")


def test_what_is_left_out_is_said(recipe, data, tmp_path, capsys):
    """Rows whose files are not there, and examples that cannot be read."""
    folder = Path(data.removeprefix("own:")).parent
    shutil.copytree(folder, tmp_path / "planes")
    (tmp_path / "planes" / "3.png").unlink()
    (tmp_path / "planes" / "5.png").write_bytes(b"no picture")
    short = dataclasses.replace(
        recipe, train=(f"own:{tmp_path / 'planes' / 'planes.csv'}",), validate=(), steps=2, on_error="skip"
    )
    train(short, tmp_path / "run", devices=jax.devices()[:1])
    said = capsys.readouterr()
    said = said.out + said.err
    assert "own: 1 rows whose files are not there left out" in said
    assert "examples left out, the first: " in said
    assert "5.png" in said


def test_a_damaged_checkpoint_is_named_with_a_way_on(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", cli._where_nothing_can_be_raised)  # Orbax's reads, as in the program
    one = {"devices": jax.devices()[:1]}
    short = dataclasses.replace(recipe, validate=(), steps=8)
    train(short, tmp_path / "run", **one)
    (tmp_path / "run" / "checkpoints" / "8" / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(Dav2Error, match=r"step 8 cannot be read .*delete .*checkpoints/8 to go on from step 4, or"):
        train(short, tmp_path / "run", **one)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    assert train(short, tmp_path / "run", **one).step == 8
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith(("training", "resumed"))] == [
        "training on 1 x cpu, float32, 8 examples a step",
        "resumed at step 4 on 1 x cpu, float32, 8 examples a step",
    ]
    reports = [line.partition(",")[0] for line in said if " left: loss " in line]
    assert reports == ["step 4 of 8", "step 8 of 8", "step 8 of 8"]
    assert train(short, tmp_path / "run", **one).hardware == "1 x cpu"
    assert "nothing left to do: step 8 of 8 is done; a new run with weights=" in capsys.readouterr().out
