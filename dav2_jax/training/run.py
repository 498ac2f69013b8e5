"""What a recipe stands for: devices, sources, optimizer, step and validation, each built once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from dav2_jax import sharding
from dav2_jax.data.augment import Geometry
from dav2_jax.data.loader import Loader
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.kernels import cpu
from dav2_jax.training import sizes, start
from dav2_jax.training.checkpoint import Checkpoints
from dav2_jax.training.objective import Step, optimization, step_flops, training_step
from dav2_jax.training.optimizer import Optimizer, make_optimizer
from dav2_jax.training.preflight import check_counts
from dav2_jax.training.recipe import Recipe
from dav2_jax.training.step import Batch, TrainState, abstract_state, init_state
from dav2_jax.training.validate import Validation


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything of a run but its state.

    sources, held_out   for training, as labeled, and for validation
    facts               lines about the data that the user should read
    """

    recipe: Recipe
    network: start.Network
    mesh: jax.sharding.Mesh
    optimizer: Optimizer
    sources: tuple[Source, ...]
    held_out: tuple[Source, ...]
    facts: tuple[str, ...]

    @classmethod
    def from_recipe(cls, recipe: Recipe, folder: Path, devices=None) -> Run:
        """Writes nothing. Raises Dav2Error for settings that do not fit together, for data or weights that are not
        there, and for data of which the loss counts no pixel.

        folder    of the run: one that goes on does not need the weights that it started from
        devices   None: all
        """
        recipe.check()
        network = start.network(recipe, folder)
        devices = jax.devices() if devices is None else devices
        if len(devices) % recipe.fsdp:
            raise Dav2Error(f"fsdp={recipe.fsdp}: must divide the number of devices, {len(devices)}")
        mesh = sharding.make_mesh(devices, recipe.fsdp)
        if devices[0].platform == "cpu":
            cpu.available()  # compiles the kernels, and says so, before anything waits for them
        if recipe.batch_size % (mesh.size * recipe.accumulate):
            raise Dav2Error(
                f"batch_size={recipe.batch_size} does not divide among {mesh.size} devices x {recipe.accumulate} parts"
            )
        optimizer = make_optimizer(optimization(recipe), network.config)
        sources, held_out = start.sources(recipe, recipe.train), start.sources(recipe, recipe.validate)
        facts = [f"{source.name}: {fact}" for source in sources + held_out for fact in source.about]
        sources = tuple(start.labeled_by(recipe.label, source) for source in sources)
        limits = (recipe.min_depth, recipe.max_depth) if recipe.kind == "metric" else None
        for group, random in ((sources, True), (held_out, False)):
            transform = dataclasses.replace(_geometry(recipe), random=random)
            facts += [line for source in group for line in check_counts(source, transform, limits)]
        if recipe.cache:
            sources = tuple(map(start.kept_in_memory, sources))
        return cls(recipe, network, mesh, optimizer, sources, held_out, tuple(dict.fromkeys(facts)))

    @property
    def hardware(self) -> str:
        """The devices in words: "8 x TPU v5 lite"."""
        return f"{self.mesh.size} x {self.mesh.devices.flat[0].device_kind}"

    @property
    def batch_sharding(self) -> jax.sharding.Sharding:
        return sharding.batch_sharding(self.mesh)

    def loader(self) -> Loader:
        """Training batches, endless."""
        recipe = self.recipe
        return Loader(
            self.sources, recipe.batch_size, _geometry(recipe), seed=recipe.seed, weights=recipe.mix or None,
            workers=0 if recipe.cache else recipe.workers, on_error=recipe.on_error, sharding=self.batch_sharding,
        )  # fmt: skip

    def state(self, checkpoints: Checkpoints, loader: Loader) -> TrainState:
        """That of the last checkpoint, to whose position the loader goes, or that before the first step."""
        frozen_encoder = self.recipe.feature_weight > 0
        if checkpoints.latest() is not None:
            abstract = abstract_state(self.network.config, self.optimizer, frozen_encoder=frozen_encoder)
            state, position = checkpoints.restore(abstract, self.mesh)
            loader.restore(position)
            return state
        return init_state(
            self.network.config, self.optimizer, self.mesh, jax.random.key(self.recipe.seed), self.network.params,
            frozen_encoder=frozen_encoder,
        )  # fmt: skip

    def step(self) -> Step:
        return training_step(self.recipe, self.network.config, self.optimizer, self.mesh)

    def resized(self, batch: Batch, number: int) -> Batch:
        """The loader's batch at the size of step `number`, in multi-scale training."""
        return sizes.shrunk(batch, sizes.of_step(self.recipe, number)) if self.recipe.heights else batch

    def flops(self, number: int) -> int:
        """Of step `number`, of the whole batch."""
        return step_flops(self.recipe, self.network.config, number)

    def validation(self) -> Validation:
        recipe = self.recipe
        return Validation(
            self.network.config, self.mesh, self.held_out, recipe.size, recipe.validate_examples, recipe.batch_size,
            jnp.dtype(recipe.dtype), recipe.min_depth, recipe.width,
        )  # fmt: skip


def _geometry(recipe: Recipe) -> Geometry:
    target = "depth" if recipe.loss == "silog" else "disparity"
    return Geometry(recipe.size, target, flip=recipe.flip, width=recipe.width)
