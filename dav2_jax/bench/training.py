"""What a training step would need of a slice of a TPU pod, from the TPU's compiler, on a machine that has none.

As `dav2_jax.bench.aot` for the forward pass: estimates, and nothing is a measurement.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace

import jax
import jax.numpy as jnp

from dav2_jax import sharding
from dav2_jax.bench import aot, hlo
from dav2_jax.bench.chips import SLICES
from dav2_jax.errors import InvalidValueError
from dav2_jax.training.objective import optimization, step_flops, training_step
from dav2_jax.training.optimizer import make_optimizer
from dav2_jax.training.recipe import Recipe
from dav2_jax.training.step import TrainState, abstract_state


@dataclass(frozen=True)
class StepEstimate:
    """One step of one recipe on one slice; numbers are for one chip, and all chips do the same."""

    encoder: str
    chip: str
    chips: int
    fsdp: int  # chips that share one copy of the state
    batch: int  # images a step, of all chips together
    size: int
    dtype: str
    remat: str
    model_flops: float  # `objective.step_flops` of its images
    flops: float  # of the program, as its compiler counts them
    hbm_bytes: int  # what is read from and written to HBM; hlo.Traffic
    hbm_by_stage: dict[str, int]
    state_bytes: int  # of parameters, moments and batch
    temporary_bytes: int  # at the worst moment: activations, gradients, gathered parameters
    program_bytes: int
    fits: bool
    collectives: list[hlo.Collective]
    compile_seconds: float

    @property
    def hbm_peak(self) -> int:
        """Bytes of HBM in use at the worst moment; the new state takes the place of the old one."""
        return self.state_bytes + self.temporary_bytes + self.program_bytes

    @property
    def link_bytes(self) -> float:
        """What the chip sends to others."""
        return sum(one.sent for one in self.collectives)

    @property
    def seconds(self) -> dict[str, float]:
        """The least time for the arithmetic ("compute"), for HBM ("memory") and for the interconnect ("links")."""
        chip = SLICES[self.chip]
        return {
            "compute": self.flops / chip.flops,
            "memory": self.hbm_bytes / chip.bandwidth,
            "links": self.link_bytes / chip.links,
        }

    @property
    def bound(self) -> str:
        """What takes longest. The three run beside each other at best, so a step takes at least this long."""
        return max(self.seconds, key=self.seconds.get)

    def as_dict(self) -> dict:
        return asdict(self) | {
            "hbm_peak": self.hbm_peak,
            "link_bytes": self.link_bytes,
            "seconds": self.seconds,
            "bound": self.bound,
        }


def estimate_step(recipe: Recipe, target: str, *, fsdp: int | None = None) -> StepEstimate:
    """Compiles the training step of a recipe for a TPU slice such as "v5e-64", from shapes alone. Minutes of one core.

    Of a recipe with several sizes the largest, that of its crops.
    fsdp: chips that share one copy of the state, in place of the recipe's; None: `enough_fsdp`.
    Raises aot.DoesNotFit where the HBM is too small, another Dav2Error for a batch that does not divide among the
    chips, when there is no such slice, and without libtpu, which holds the compiler.
    """
    chip, chips = aot.parse_target(target)
    recipe = replace(recipe, heights=())
    config = recipe.model_config()
    optimizer = make_optimizer(optimization(recipe), config)
    frozen_encoder = recipe.feature_weight > 0
    state = abstract_state(config, optimizer, frozen_encoder=frozen_encoder)
    fsdp = enough_fsdp(state, target) if fsdp is None else fsdp
    check(recipe.batch_size, recipe.accumulate, target, fsdp)
    mesh = sharding.make_mesh(aot.devices(chip, chips), fsdp)
    step = training_step(recipe, config, optimizer, mesh)
    lowered = step.lower(state, abstract_batch(recipe))
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise aot.too_large(error, f"{target}, {recipe.encoder}, batch {recipe.batch_size}, fsdp {fsdp}") from None
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    moved = hlo.traffic(text, aot.STAGES)
    row = StepEstimate(
        encoder=recipe.encoder,
        chip=chip,
        chips=chips,
        fsdp=fsdp,
        batch=recipe.batch_size,
        size=recipe.size,
        dtype=recipe.dtype,
        remat=recipe.remat,
        model_flops=step_flops(recipe, config) / chips,
        flops=compiled.cost_analysis()["flops"],
        hbm_bytes=moved.total,
        hbm_by_stage=dict(moved.by_stage.most_common()),
        state_bytes=memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        program_bytes=memory.generated_code_size_in_bytes,
        fits=False,
        collectives=hlo.collectives(text),
        compile_seconds=seconds,
    )
    return replace(row, fits=row.hbm_peak <= SLICES[chip].memory)


def enough_fsdp(state: TrainState, target: str) -> int:
    """The least number of chips, a power of two, among which the state takes at most a quarter of the HBM of each."""
    chip, chips = aot.parse_target(target)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    fsdp = 1
    while fsdp < chips and size / fsdp > SLICES[chip].memory / 4:
        fsdp *= 2
    return fsdp


def check(batch: int, parts: int, target: str, fsdp: int | None) -> None:
    """Raises Dav2Error for a batch or an fsdp that does not divide among the chips of the slice."""
    chip, chips = aot.parse_target(target)
    if fsdp is not None and (fsdp < 1 or chips % fsdp):
        raise InvalidValueError(f"fsdp={fsdp}: must divide the {chips} chips of {target}")
    if batch % (chips * parts):
        slices = [f"{chip}-{count}" for count in SLICES[chip].shapes if batch % (count * parts) == 0]
        instead = f"take {slices[-1]}, or " if slices else ""
        raise InvalidValueError(
            f"a batch of {batch} does not divide among the {chips} chips of {target}: "
            f"{instead}a multiple of {chips * parts}"
        )


def abstract_batch(recipe: Recipe) -> dict[str, jax.ShapeDtypeStruct]:
    """What the loader gives for a step."""
    shape = (recipe.batch_size, *recipe.crop)
    shapes = {
        "image": ((*shape, 3), jnp.float32),
        "depth" if recipe.loss == "silog" else "disparity": (shape, jnp.float32),
        "valid": (shape, jnp.bool_),
        "index": (shape[:1], jnp.int32),
        "seed": (shape[:1], jnp.uint32),
    }
    return {name: jax.ShapeDtypeStruct(*one) for name, one in shapes.items()}
