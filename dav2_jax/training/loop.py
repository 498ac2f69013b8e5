"""The training loop: one function, read from top to bottom.

1  settle what begins: an own checkpoint, then weights to start from, then random numbers
2  data, step and validation
3  for every step: take a batch, train on it, and look at the step before (so that the device never waits)
4  report, validate and save when it is time; on SIGTERM save and stop
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax import sharding
from dav2_jax.data import strong
from dav2_jax.data.augment import Geometry
from dav2_jax.data.example import Example
from dav2_jax.data.loader import Loader
from dav2_jax.data.prefetch import prefetch_to_device
from dav2_jax.data.source import Source
from dav2_jax.data.sources import open_source
from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic
from dav2_jax.model import depth_anything
from dav2_jax.model.flops import model_flops
from dav2_jax.training import recipe as recipes
from dav2_jax.training.checkpoint import Checkpoints, export
from dav2_jax.training.journal import Journal
from dav2_jax.training.objective import make_augment, make_loss
from dav2_jax.training.optimizer import OptimizerConfig, make_optimizer
from dav2_jax.training.recipe import Recipe
from dav2_jax.training.step import abstract_state, averaged, init_state, make_step
from dav2_jax.training.validate import Validation

# Fields that may differ when a run goes on: they change its speed or its reports, and not its result.
FREE = {"workers", "remat", "fsdp", "log_every", "validate_every", "save_every", "validate", "validate_examples"}
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
    config = recipe.model_config()
    mesh = sharding.make_mesh(jax.devices() if devices is None else devices, recipe.fsdp)
    if recipe.batch_size % (mesh.size * recipe.accumulate):
        raise Dav2Error(
            f"--batch-size {recipe.batch_size} does not divide among {mesh.size} devices x {recipe.accumulate} parts"
        )
    optimizer = make_optimizer(_optimisation(recipe), config)
    sources = tuple(_labelled_by(recipe.label, open_source(text)) for text in recipe.train)
    held_out = tuple(map(open_source, recipe.validate))
    _settle_folder(run, recipe)

    with contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(run)
        stack.callback(checkpoints.close)
        split = sharding.batch_sharding(mesh)
        loader = Loader(
            sources, recipe.batch_size, transform=_geometry(recipe), seed=recipe.seed, weights=recipe.mix or None,
            workers=recipe.workers, on_error=recipe.on_error, sharding=split,
        )  # fmt: skip
        if checkpoints.latest() is not None:
            state, position = checkpoints.restore(abstract_state(config, optimizer), mesh)
            loader.restore(position)
        else:
            state = init_state(config, optimizer, mesh, jax.random.key(recipe.seed), _weights(recipe))
        start = int(state.step)
        batches = stack.enter_context(prefetch_to_device(loader, split))
        dtype = jnp.dtype(recipe.dtype)
        step = make_step(
            make_loss(recipe), config, optimizer, mesh, dtype=dtype, remat=recipe.remat,
            accumulation=recipe.accumulate, augment=make_augment(recipe), seed=recipe.seed,
        )  # fmt: skip
        validation = Validation(
            config, mesh, held_out, recipe.size, recipe.validate_examples, recipe.batch_size, dtype, recipe.min_depth
        )
        journal = Journal(run, start, recipe.steps, speaks=sharding.is_first())
        stack.callback(journal.close)
        stopping = stack.enter_context(_sigterm())
        about = {"recipe": recipes.to_json(recipe)}
        flops = 3 * model_flops(config, recipe.size, recipe.size) * recipe.batch_size

        scores: dict[str, float] = {}
        behind: tuple[dict[str, jax.Array], Any] | None = None  # the step before: its metrics, and which examples
        since, waited = time.perf_counter(), 0.0
        for number in range(start + 1, recipe.steps + 1):
            batch = next(batches)
            shown = {name: batch[name] for name in ("image", "depth", "disparity", "valid") if name in batch}
            state, metrics = step(state, batch)
            _stop_if_not_finite(behind, loader, number - 1)
            behind = metrics, batch["index"]

            if number % recipe.log_every == 0 or number == recipe.steps:
                values = {name: float(value) for name, value in metrics.items()}
                now, steps = time.perf_counter(), (number - 1) % recipe.log_every + 1
                steps = min(steps, number - start)
                values["images_per_second"] = steps * recipe.batch_size / (now - since)
                values["tflops"] = steps * flops / (now - since) / 1e12
                values["waiting"] = (batches.waited - waited) / (now - since)
                since, waited = now, batches.waited
                journal.note(number, values, "train")
                journal.step(
                    loss=f"{values['loss']:.4f}", images=f"{values['images_per_second']:.1f}/s",
                    waiting=f"{values['waiting']:.0%}",
                )  # fmt: skip
            else:
                journal.step()

            last = number == recipe.steps or _any(stopping.is_set(), number)
            if held_out and (number % recipe.validate_every == 0 or number == recipe.steps):
                _stop_if_not_finite(behind, loader, number)
                scores = validation(averaged(state))
                journal.note(number, scores, "validation")
                journal.say(f"step {number}: " + ", ".join(f"{name} {scores[name]:.4f}" for name in ("d1", "abs_rel")))
                _picture(journal, number, config, averaged(state), shown, dtype)
                if _is_best(run, number, scores):
                    export(run / "best.ckpt", config, averaged(state), _licence(recipe), about | {"step": str(number)})
                since = time.perf_counter()
            if last or number % recipe.save_every == 0:
                _stop_if_not_finite(behind, loader, number)
                checkpoints.save(state, batches.state())
            if last:
                break
        checkpoints.wait()
        done = int(state.step)
        export(run / "last.ckpt", config, averaged(state), _licence(recipe), about | {"step": str(done)})
    return Outcome(done, done < recipe.steps, scores)


def _optimisation(recipe: Recipe) -> OptimizerConfig:
    freeze = recipe.freeze if recipe.freeze == "encoder" else int(recipe.freeze or 0)
    same = ("steps", "encoder_lr", "head_factor", "schedule", "warmup", "weight_decay", "decay", "clip", "ema")
    return OptimizerConfig(freeze=freeze, **{name: getattr(recipe, name) for name in same})


def _geometry(recipe: Recipe) -> Geometry:
    return Geometry(recipe.size, "depth" if recipe.loss == "silog" else "disparity", flip=recipe.flip)


def _labelled_by(label: str, source: Source) -> Source:
    return source if label == "depth" else dataclasses.replace(source, read=functools.partial(_sensed, source.read))


def _sensed(read: Callable[[Any], Example], item: Any) -> Example:
    """The example with what a depth camera would have measured in place of its depth."""
    example = read(item)
    if "sensor_depth" not in example:
        raise Dav2Error(f"{example['id']}: has no sensor_depth: train with --label depth")
    return example | {"depth": example["sensor_depth"], "valid": example["sensor_depth"] > 0}


def _settle_folder(run: Path, recipe: Recipe) -> None:
    """Makes the folder of a run, or makes sure that it is one of this recipe."""
    path = run / "recipe.json"
    try:
        if path.exists():
            before, now = (dataclasses.asdict(one) for one in (recipes.from_json(path.read_text("utf-8")), recipe))
            differ = [f"{name} was {before[name]!r}" for name in now if name not in FREE and before[name] != now[name]]
            if differ:
                raise Dav2Error(
                    f"{run}: holds a run of another recipe ({'; '.join(differ)}): choose another --out, or delete it"
                )
        if sharding.is_first():
            run.mkdir(parents=True, exist_ok=True)
            with atomic(path) as temporary:
                temporary.write_text(recipes.to_json(recipe), encoding="utf-8")
    except OSError as error:
        raise Dav2Error(f"{run}: cannot be written ({error.strerror}): choose another --out") from error
    except (ValueError, TypeError) as error:
        raise Dav2Error(f"{path}: is not a recipe of this version ({error}): choose another --out") from error


def _weights(recipe: Recipe) -> dict[str, Any] | None:
    """What training starts from: all parameters, the encoder's, or none."""
    if recipe.weights is None:
        return None
    from dav2_jax import hub

    model = hub.load(recipe.weights)
    if model.config.encoder != recipe.encoder:
        raise Dav2Error(f"{recipe.weights}: is a {model.config.encoder} model, and the recipe says {recipe.encoder}")
    parts = ["pretrained"] if recipe.head == "fresh" or "depth_head" not in model.params else list(model.params)
    return {part: jax.tree.map(np.asarray, model.params[part]) for part in parts}


def _licence(recipe: Recipe) -> str:
    if recipe.weights is None:
        return "yours: trained from random numbers"
    return f"that of {recipe.weights}, from which it was trained"


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


def _picture(journal: Journal, number: int, config, params, shown: dict[str, jax.Array], dtype) -> None:
    if jax.process_count() > 1:
        return  # rows lie on several hosts
    some = {name: jnp.asarray(np.asarray(array)[:PICTURES]) for name, array in shown.items()}
    maps = depth_anything.apply(config, params, strong.network_input(some["image"]), dtype)
    valid = some["valid"]
    if config.kind == "metric":
        maps = 1 / jnp.maximum(maps, 1e-3)
    target = some["disparity"] if "disparity" in some else jnp.where(valid, 1 / jnp.maximum(some["depth"], 1e-3), 0)
    arrays = (strong.unit(some["image"]), target, valid, maps)
    journal.picture(number, *(np.asarray(array) for array in arrays))


def _is_best(run: Path, number: int, scores: dict[str, float]) -> bool:
    """Whether no earlier validation of this run has a smaller abs_rel, as metrics.jsonl tells; agreed by all hosts."""
    best = np.inf
    if sharding.is_first():
        for line in (run / "metrics.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            if entry["group"] == "validation" and entry["step"] < number and entry["abs_rel"] is not None:
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
