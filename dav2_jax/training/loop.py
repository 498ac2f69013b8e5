"""The training loop: one function, read from top to bottom.

1  build what the recipe names
2  start: from the run's own checkpoint, else from weights, else from random numbers
3  for every step: take a batch, train on it, and check the step before (so that the device never waits)
4  report, validate and save when it is time
5  finish: at the last step, or in order on SIGTERM
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax import __version__ as version
from dav2_jax import sharding
from dav2_jax.data import strong
from dav2_jax.data.loader import Loader
from dav2_jax.data.prefetch import prefetch_to_device
from dav2_jax.errors import Dav2Error
from dav2_jax.files import held
from dav2_jax.model import depth_anything
from dav2_jax.training import recipe as recipes
from dav2_jax.training import start
from dav2_jax.training.checkpoint import Checkpoints, export
from dav2_jax.training.journal import Journal, Throughput
from dav2_jax.training.profile import Profile
from dav2_jax.training.recipe import Recipe
from dav2_jax.training.run import Run
from dav2_jax.training.step import averaged

PICTURES = 4  # rows
SHOWN = ("image", "depth", "disparity", "valid")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """step: steps done. stopped: by a signal, before the end. scores: of the last validation. hardware: in words."""

    step: int
    stopped: bool
    scores: dict[str, float]
    hardware: str = ""


def train(
    recipe: Recipe, folder: Path, *, devices=None, profile: bool = False, peak_flops: float | None = None
) -> Outcome:
    """Trains as the recipe says, in `folder`, from where that folder is; to the same result however often it is
    stopped.

    devices     None: all
    peak_flops  FLOP/s of one device, for reports of the share that is used
    profile     trace a few steps into folder/profile, for TensorBoard

    Raises Dav2Error, before the first step, for a recipe that cannot be, data or weights that are not there, data of
    which the loss counts no pixel, a folder of another run; and later for an example that cannot be read, a full disk,
    and a loss that is not finite.
    """
    # 1. Build. Nothing is written before everything fits together.
    run = Run.from_recipe(recipe, folder, devices)
    config, license = run.network.config, run.network.license
    start.settle_folder(folder, recipe, run.network)

    with contextlib.ExitStack() as stack:
        # 2. Start.
        stopping = stack.enter_context(_stop_signals())
        if sharding.is_first():
            busy = f"{folder}: another process is training there: wait for it, or choose another folder"
            stack.enter_context(held(folder / ".train.lock", busy))
        checkpoints = Checkpoints(folder)
        stack.callback(checkpoints.close)
        loader = run.loader()
        state = run.state(checkpoints, loader)
        checkpoints.refuse_full_disk(state)
        first_step = int(state.step)
        batches = stack.enter_context(prefetch_to_device(loader, run.batch_sharding))
        step, validation = run.step(), run.validation()
        journal = Journal(folder, first_step, recipe.steps, speaks=sharding.is_first())
        stack.callback(journal.close)
        profiler = Profile(folder / "profile" if profile else None, first_step)
        stack.callback(profiler.close)
        for line in (*run.facts, _opening(run, folder, first_step)):
            journal.say(line)
        about = {
            "source": f"training run {folder.name}",
            "by": f"dav2_jax {version}",
            "recipe": recipes.to_json(recipe),
        }
        scores: dict[str, float] = {}
        if run.held_out and first_step == 0 and recipe.weights:
            scores = validation(averaged(state))
            journal.note(0, scores, "validation")
            journal.say("before training: " + _summary(scores))

        # 3. Train.
        previous: tuple[dict[str, jax.Array], jax.Array] | None = None  # metrics and example indices of the step before
        throughput = Throughput(recipe.batch_size, peak_flops and peak_flops * run.mesh.size)
        for number in range(first_step + 1, recipe.steps + 1):
            batch = next(batches)
            shown = {name: batch[name] for name in SHOWN if name in batch}
            profiler.before(number)
            with jax.profiler.StepTraceAnnotation("train", step_num=number), jax.transfer_guard("disallow"):
                state, metrics = step(state, run.resized(batch, number))
            if line := profiler.after(number, state):
                journal.say(line)
            throughput.add(run.flops(number))
            _stop_if_not_finite(previous, loader, number - 1)
            previous = metrics, batch["index"]

            # 4. Report, validate, save.
            if number % recipe.log_every == 0 or number == recipe.steps:
                values = {name: float(value) for name, value in metrics.items()} | throughput.report(batches.waited)
                journal.note(number, values, "train")
                journal.step(**_shown(values))
                if values["loss"] == values["grad_norm"] == 0:
                    journal.say(f"step {number}: no pixel of its batch counts: look at the data with dav2 data check")
            else:
                journal.step()

            last = number == recipe.steps or _any(stopping.is_set(), number)
            if run.held_out and (number % recipe.validate_every == 0 or number == recipe.steps):
                _stop_if_not_finite(previous, loader, number)
                with throughput.paused():
                    scores = validation(averaged(state))
                    journal.note(number, scores, "validation")
                    journal.say(f"step {number}: " + _summary(scores))
                    _picture(journal, number, config, averaged(state), shown, jnp.dtype(recipe.dtype))
                    if _is_best(folder, number, scores):
                        export(folder / "best.ckpt", config, averaged(state), license, about | {"step": str(number)})
            if last or number % recipe.save_every == 0:
                _stop_if_not_finite(previous, loader, number)
                checkpoints.save(state, batches.state())
            if last:
                break

        # 5. Finish.
        checkpoints.wait()
        if loader.skipped:
            journal.say(f"{len(loader.skipped)} examples left out, the first: {loader.skipped[0]}")
        done = int(state.step)
        export(folder / "last.ckpt", config, averaged(state), license, about | {"step": str(done)})
    return Outcome(done, done < recipe.steps, scores, run.hardware)


def _opening(run: Run, folder: Path, first_step: int) -> str:
    """The first line of a run: on which devices, and from which step."""
    if first_step >= run.recipe.steps:
        way = f"a new run with weights={folder} and another folder trains further"
        return f"nothing left to do: step {first_step} of {run.recipe.steps} is done; {way}"
    where = f"on {run.hardware}, {run.recipe.dtype}, {run.recipe.batch_size} examples a step"
    return f"resumed at step {first_step} {where}" if first_step else f"training {where}"


def _shown(values: dict[str, float]) -> dict[str, str]:
    """What the progress bar or the line of a report shows."""
    shown = {
        "loss": f"{values['loss']:.4f}",
        "images": f"{values['images_per_second']:.1f}/s",
        "waiting": f"{values['waiting']:.0%}",
    }
    return shown | ({"mfu": f"{values['mfu']:.0%}"} if "mfu" in values else {})


def _stop_if_not_finite(previous: tuple[dict[str, jax.Array], jax.Array] | None, loader: Loader, number: int) -> None:
    if previous is None or bool(previous[0]["finite"]):
        return
    rows = np.unique(np.concatenate([np.asarray(part.data) for part in previous[1].addressable_shards]))
    names = ", ".join(loader.name(int(row)) for row in rows[:8])
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    raise Dav2Error(
        f"step {number}: the loss or its gradient is not finite. Its examples: {names}{more}. The step was not taken; "
        "look at them with dav2 data check, or lower encoder_lr"
    )


_apply = jax.jit(depth_anything.apply, static_argnums=(0, 3))


def _picture(journal: Journal, number: int, config, params, shown: dict[str, jax.Array], dtype) -> None:
    if jax.process_count() > 1:
        return  # rows lie on several hosts
    some = {name: jnp.asarray(np.asarray(array)[:PICTURES]) for name, array in shown.items()}
    maps = _apply(config, params, strong.network_input(some["image"]), dtype)
    valid = some["valid"]
    if config.kind == "metric":
        maps = 1 / jnp.maximum(maps, 1e-3)
    target = some["disparity"] if "disparity" in some else jnp.where(valid, 1 / jnp.maximum(some["depth"], 1e-3), 0)
    arrays = (strong.unit(some["image"]), target, valid, maps)
    journal.picture(number, *(np.asarray(array) for array in arrays))


def _summary(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {scores[name]:.4f}" for name in ("d1", "abs_rel") if name in scores) or "no pixel counts"


def _is_best(run: Path, number: int, scores: dict[str, float]) -> bool:
    """Whether no earlier validation of this run has a smaller abs_rel, as metrics.jsonl tells; agreed by all hosts."""
    best = np.inf
    if sharding.is_first():
        for line in (run / "metrics.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            if entry["group"] == "validation" and 0 < entry["step"] < number and entry["abs_rel"] is not None:
                best = min(best, entry["abs_rel"])
    return _agreed(bool(scores.get("abs_rel", np.inf) < best))


def _agreed(flag: bool) -> bool:
    """The first process's answer, in all processes."""
    return sharding.gather(flag)[0]


def _any(flag: bool, number: int) -> bool:
    """Whether any process was told to stop; asked every tenth step only, because all must answer together."""
    if jax.process_count() == 1:
        return flag
    return number % 10 == 0 and any(sharding.gather(flag))


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """SIGTERM, which announces the end of a preempted machine, and the first Ctrl-C ask the loop to stop in order."""
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def stop(number, frame):
        stopping.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
