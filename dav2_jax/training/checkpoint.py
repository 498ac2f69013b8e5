"""Checkpoints of a run: all that it needs to go on as if it had never stopped, on any number of devices.

RUN/checkpoints/1200/     an Orbax checkpoint: the training state (parameters, optimizer, EMA, step) and the loader's
                          position, written beside the training and complete or not there
RUN/last.ckpt, best.ckpt  the parameters alone, as `dav2 convert` writes them: for dav2.load, predict and convert
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from dav2_jax import sharding
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error, first_line
from dav2_jax.model.config import ModelConfig
from dav2_jax.training.step import TrainState
from dav2_jax.weights import checkpoint

KEPT = 2  # checkpoints; the one before the last is there while the last is being written


class Checkpoints:
    """The checkpoints of a run. Saving copies the state to the host and goes on in the background.

    Raises Dav2Error where the folder cannot be written.
    """

    def __init__(self, run: Path):
        self.folder = (run / "checkpoints").absolute()
        try:
            self._manager = ocp.CheckpointManager(
                self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=True)
            )
        except OSError as error:
            raise Dav2Error(f"{self.folder}: cannot be written ({error.strerror}): choose another folder") from error

    def refuse_full_disk(self, state: TrainState) -> None:
        """Raises Dav2Error if the disk has no room for what this run will write: asked before the first step."""
        kept, params = (sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (state, state.params))
        run = self.folder.parent
        held = 0
        for file in run.rglob("*"):
            with contextlib.suppress(OSError):  # what a killed run left may just be going
                held += file.stat().st_size
        need = (KEPT + 1) * kept + 3 * params - held  # one of each is written before another goes
        free = shutil.disk_usage(run).free
        if free < need:
            raise Dav2Error(
                f"{run}: no space left: checkpoints need {need / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free"
            )

    def latest(self) -> int | None:
        """The step of the last whole checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, position: dict[str, Any]) -> None:
        """Begins to write `state` as it is now; waits only for an earlier one that is not written yet."""
        step = int(state.step)
        if step == self.latest():
            return
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position))
        try:
            self._manager.save(step, args=arguments, force=True)
        except Exception as error:  # Orbax raises whatever its layers do, also for the one before
            raise _cannot_write(self.folder, error) from error

    def restore(self, abstract: TrainState, mesh: jax.sharding.Mesh) -> tuple[TrainState, dict[str, Any]]:
        """The last state, laid out on this mesh, and the loader's position there.

        Raises Dav2Error where the checkpoint is of another network or optimizer, or damaged.
        """
        shardings = sharding.state_sharding(mesh, abstract)
        wanted = jax.tree.map(
            lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), abstract, shardings
        )
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), position=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(self.latest(), args=arguments)
        except Exception as error:
            last, *earlier = sorted(self._manager.all_steps(), reverse=True)
            way = f"delete {self.folder / str(last)} to go on from step {earlier[0]}, or " if earlier else ""
            raise Dav2Error(
                f"{self.folder}: step {last} cannot be read as this run's ({first_line(error, 200)}): "
                f"{way}choose another folder"
            ) from error
        return found.state, found.position

    def wait(self) -> None:
        """Until everything is written. Raises Dav2Error where that failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise _cannot_write(self.folder, error) from error

    def close(self) -> None:
        self._manager.close()


def export(path: Path, config: ModelConfig, params, license: str, about: dict[str, Any]) -> None:
    """Parameters alone, as a checkpoint folder of ours, in place of an earlier one. All processes call it.

    about  for its provenance: what was trained, on what, for how long
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        params = multihost_utils.process_allgather(params, tiled=True)
    if sharding.is_first():
        provenance = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
        checkpoint.save(path, Weights(config, params, license, provenance), overwrite=True)


def _cannot_write(folder: Path, error: Exception) -> Dav2Error:
    reason = first_line(error, 200)
    return Dav2Error(f"{folder}: a checkpoint cannot be written ({reason}): free some space; the same command goes on")
