"""The training loop: one function, read from top to bottom.

1  settle what begins: an own checkpoint, then weights to start from, then random numbers
2  data, step and validation
3  for every step: take a batch, train on it, and look at the step before (so that the device never waits)
4  report, validate and save when it is time; on SIGTERM save and stop
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax import __version__ as version
from dav2_jax import sharding
from dav2_jax.data import strong
from dav2_jax.data.augment import Geometry
from dav2_jax.data.loader import Loader
from dav2_jax.data.prefetch import prefetch_to_device
from dav2_jax.errors import Dav2Error
from dav2_jax.files import held
from dav2_jax.kernels import cpu
from dav2_jax.model import depth_anything
from dav2_jax.model.flops import peak
from dav2_jax.training import recipe as recipes
from dav2_jax.training import sizes, start
from dav2_jax.training.checkpoint import Checkpoints, export
from dav2_jax.training.journal import Journal
from dav2_jax.training.objective import make_augment, make_loss, optimization, step_flops
from dav2_jax.training.optimizer import make_optimizer
from dav2_jax.training.recipe import Recipe
from dav2_jax.training.step import abstract_state, averaged, init_state, make_step
from dav2_jax.training.validate import Validation

PICTURES = 4  # rows


@dataclasses.dataclass(frozen=True)
class Outcome:
    """step: how far the run is. stopped: by a signal, before its end. scores: of the last validation, if any."""

    step: int
    stopped: bool
    scores: dict[str, float]


def train(recipe: Recipe, run: Path, *, devices=None) -> Outcome:
    """Trains as the recipe says, in the folder `run`, from where that folder is; to the same result however often it
    is stopped.

    Raises Dav2Error, before the first step, for a recipe that cannot be, data or weights that are not there, a folder
    of another run; and later for an example that cannot be read, a full disk, and a loss that is not finite.
    """
    recipe.check()
    network = start.network(recipe, run)
    config = network.config
    devices = jax.devices() if devices is None else devices
    if len(devices) % recipe.fsdp:
        raise Dav2Error(f"--fsdp {recipe.fsdp}: must divide the number of devices, {len(devices)}")
    mesh = sharding.make_mesh(devices, recipe.fsdp)
    if devices[0].platform == "cpu":
        cpu.available()  # compiles the kernels, and says so, before anything waits for them
    if recipe.batch_size % (mesh.size * recipe.accumulate):
        raise Dav2Error(
            f"--batch-size {recipe.batch_size} does not divide among {mesh.size} devices x {recipe.accumulate} parts"
        )
    optimizer = make_optimizer(optimization(recipe), config)
    frozen_encoder = recipe.feature_weight > 0
    sources, held_out = start.sources(recipe, recipe.train), start.sources(recipe, recipe.validate)
    facts = [f"{source.name}: {fact}" for source in sources + held_out for fact in source.about]
    sources = tuple(start.labeled_by(recipe.label, source) for source in sources)
    if recipe.cache:
        sources = tuple(map(start.kept_in_memory, sources))
    start.settle_folder(run, recipe, network)

    with contextlib.ExitStack() as stack:
        stopping = stack.enter_context(_sigterm())
        if sharding.is_first():
            busy = f"{run}: another process is training there: wait for it, or choose another --out"
            stack.enter_context(held(run / ".train.lock", busy))
        checkpoints = Checkpoints(run)
        stack.callback(checkpoints.close)
        split = sharding.batch_sharding(mesh)
        loader = Loader(
            sources, recipe.batch_size, transform=_geometry(recipe), seed=recipe.seed, weights=recipe.mix or None,
            workers=0 if recipe.cache else recipe.workers, on_error=recipe.on_error, sharding=split,
        )  # fmt: skip
        if checkpoints.latest() is not None:
            abstract = abstract_state(config, optimizer, frozen_encoder=frozen_encoder)
            state, position = checkpoints.restore(abstract, mesh)
            loader.restore(position)
        else:
            state = init_state(
                config, optimizer, mesh, jax.random.key(recipe.seed), network.params,
                frozen_encoder=frozen_encoder,
            )  # fmt: skip
        checkpoints.refuse_full_disk(state)
        begun = int(state.step)
        batches = stack.enter_context(prefetch_to_device(loader, split))
        dtype = jnp.dtype(recipe.dtype)
        step = make_step(
            make_loss(recipe), config, optimizer, mesh, dtype=dtype, remat=recipe.remat,
            accumulation=recipe.accumulate, augment=make_augment(recipe), seed=recipe.seed,
            frozen_encoder=frozen_encoder,
        )  # fmt: skip
        validation = Validation(
            config, mesh, held_out, recipe.size, recipe.validate_examples, recipe.batch_size, dtype, recipe.min_depth,
            recipe.width,
        )  # fmt: skip
        journal = Journal(run, begun, recipe.steps, speaks=sharding.is_first())
        stack.callback(journal.close)
        for fact in dict.fromkeys(facts):
            journal.say(fact)
        about = {"source": f"training run {run.name}", "by": f"dav2_jax {version}", "recipe": recipes.to_json(recipe)}
        ceiling = peak(mesh.devices.flat[0].device_kind)

        scores: dict[str, float] = {}
        if held_out and begun == 0 and recipe.weights:
            scores = validation(averaged(state))
            journal.note(0, scores, "validation")
            journal.say("before training: " + _summary(scores))
        behind: tuple[dict[str, jax.Array], Any] | None = None  # the step before: its metrics, and which examples
        since, waited, flops = time.perf_counter(), 0.0, 0
        for number in range(begun + 1, recipe.steps + 1):
            batch = next(batches)
            shown = {name: batch[name] for name in ("image", "depth", "disparity", "valid") if name in batch}
            if recipe.heights:
                batch = sizes.shrunk(batch, sizes.of_step(recipe, number))
            state, metrics = step(state, batch)
            flops += step_flops(recipe, config, number)
            _stop_if_not_finite(behind, loader, number - 1)
            behind = metrics, batch["index"]

            if number % recipe.log_every == 0 or number == recipe.steps:
                values = {name: float(value) for name, value in metrics.items()}
                now, steps = time.perf_counter(), (number - 1) % recipe.log_every + 1
                steps = min(steps, number - begun)
                values["images_per_second"] = steps * recipe.batch_size / (now - since)
                values["tflops"] = flops / (now - since) / 1e12
                if ceiling is not None:
                    values["mfu"] = values["tflops"] * 1e12 / (ceiling * mesh.size)
                values["waiting"] = (batches.waited - waited) / (now - since)
                since, waited, flops = now, batches.waited, 0
                journal.note(number, values, "train")
                journal.step(
                    loss=f"{values['loss']:.4f}", images=f"{values['images_per_second']:.1f}/s",
                    waiting=f"{values['waiting']:.0%}", **({"mfu": f"{values['mfu']:.0%}"} if "mfu" in values else {}),
                )  # fmt: skip
            else:
                journal.step()

            last = number == recipe.steps or _any(stopping.is_set(), number)
            if held_out and (number % recipe.validate_every == 0 or number == recipe.steps):
                _stop_if_not_finite(behind, loader, number)
                scores = validation(averaged(state))
                journal.note(number, scores, "validation")
                journal.say(f"step {number}: " + _summary(scores))
                _picture(journal, number, config, averaged(state), shown, dtype)
                if _is_best(run, number, scores):
                    export(run / "best.ckpt", config, averaged(state), network.license, about | {"step": str(number)})
                since = time.perf_counter()
            if last or number % recipe.save_every == 0:
                _stop_if_not_finite(behind, loader, number)
                checkpoints.save(state, batches.state())
            if last:
                break
        checkpoints.wait()
        if loader.skipped:
            journal.say(f"{len(loader.skipped)} examples left out, the first: {loader.skipped[0]}")
        done = int(state.step)
        export(run / "last.ckpt", config, averaged(state), network.license, about | {"step": str(done)})
    return Outcome(done, done < recipe.steps, scores)


def _geometry(recipe: Recipe) -> Geometry:
    target = "depth" if recipe.loss == "silog" else "disparity"
    return Geometry(recipe.size, target, flip=recipe.flip, width=recipe.width)


def _stop_if_not_finite(behind: tuple[dict[str, jax.Array], jax.Array] | None, loader: Loader, number: int) -> None:
    if behind is None or bool(behind[0]["finite"]):
        return
    rows = np.unique(np.concatenate([np.asarray(part.data) for part in behind[1].addressable_shards]))
    names = ", ".join(loader.name(int(row)) for row in rows[:8])
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    raise Dav2Error(
        f"step {number}: the loss or its gradient is not finite. Its examples: {names}{more}. The step was not taken; "
        "look at them with dav2 data check, or lower --encoder-lr"
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
    return ", ".join(f"{name} {scores[name]:.4f}" for name in ("d1", "abs_rel"))


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
def _sigterm() -> Iterator[threading.Event]:
    """SIGTERM, which announces the end of a preempted machine, and the first Ctrl-C ask the loop to stop in order."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def tell(number, frame):
        told.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
