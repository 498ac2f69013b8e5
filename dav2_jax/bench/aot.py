"""What a TPU would need for the forward pass, from its compiler, on a machine that has no TPU.

Everything here is an estimate of the compiler's or of this file's arithmetic, and nothing is a measurement.
"""

import functools
import os
import re
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dav2_jax import sharding
from dav2_jax.bench import hlo
from dav2_jax.bench.chips import SLICES
from dav2_jax.errors import Dav2Error, first_line
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.flops import model_flops

STAGES = ("patch embedding", "attention", "feed-forward", "head: reassemble", "head: fuse", "head: output")


class DoesNotFit(Dav2Error):
    """The compiler refused a program for its size."""


@dataclass(frozen=True)
class Estimate:
    """One program for one slice; numbers are for one chip, which all do the same."""

    encoder: str
    chip: str
    chips: int
    batch: int  # images a chip
    height: int
    width: int
    dtype: str
    model_flops: int  # of the matmuls and convolutions that the model asks for
    flops: float  # of the program, as its compiler counts them
    bytes_accessed: float  # as the compiler counts them: also in the core's own memory
    hbm_bytes: int  # of these, what leaves the chip; hlo.Traffic
    hbm_by_stage: dict[str, int]
    hbm_peak: int  # bytes of parameters, images, results and temporaries
    fits: bool
    collectives: int  # operations between chips
    compile_seconds: float

    @property
    def roofline_seconds(self) -> float:
        """The least time a batch can take: arithmetic at the peak, or HBM at its bandwidth, whichever is longer."""
        return max(self._seconds)

    @property
    def bound(self) -> str:
        """Which of the two it is: "compute" or "memory"."""
        compute, memory = self._seconds
        return "compute" if compute >= memory else "memory"

    @property
    def _seconds(self) -> tuple[float, float]:
        chip = SLICES[self.chip]
        return self.flops / chip.flops, self.hbm_bytes / chip.bandwidth


def parse_target(target: str) -> tuple[str, int]:
    """ "v5e-8" -> ("v5e", 8): a kind of chip and a number of chips, 1 if it is left out. Raises Dav2Error."""
    name, _, count = target.partition("-")
    if name not in SLICES:
        raise Dav2Error(f"{target}: no such TPU: name one of {', '.join(SLICES)}, with a number of chips as in v5e-8")
    shapes = SLICES[name].shapes
    if not re.fullmatch(r"[1-9]\d*", count or "1") or int(count or 1) not in shapes:
        raise Dav2Error(f"{target}: {name} comes in slices of {', '.join(map(str, shapes))} chips")
    return name, int(count or 1)


def estimate(
    config: ModelConfig, target: str, *, batch: int = 1, height: int = 518, width: int = 518, dtype="bfloat16"
) -> Estimate:
    """Compiles the forward pass for a TPU slice such as "v5e-8"; takes a fraction of a minute and no TPU.

    batch: images a chip; parameters are float32, as `dav2_jax.load` keeps them, and whole on every chip.
    Raises DoesNotFit where the HBM is too small, another Dav2Error when there is no such slice or no libtpu, which
    holds the compiler.
    """
    chip, chips = parse_target(target)
    mesh = sharding.make_mesh(devices(chip, chips))
    images = jax.ShapeDtypeStruct((batch * chips, height, width, 3), jnp.float32)
    lowered = forward(config, mesh, dtype).lower(depth_anything.abstract_params(config), images)
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise too_large(error, f"{config.encoder}, batch {batch}, {target}") from None
    seconds = time.perf_counter() - start
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    text = compiled.as_text()
    moved = hlo.traffic(text, STAGES)
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return Estimate(
        encoder=config.encoder,
        chip=chip,
        chips=chips,
        batch=batch,
        height=height,
        width=width,
        dtype=jnp.dtype(dtype).name,
        model_flops=batch * model_flops(config, height, width),
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        hbm_bytes=moved.total,
        hbm_by_stage=dict(moved.by_stage.most_common()),
        hbm_peak=peak,
        fits=peak <= SLICES[chip].memory,
        collectives=sum(one.count for one in hlo.collectives(text)),
        compile_seconds=seconds,
    )


def forward(config: ModelConfig, mesh: jax.sharding.Mesh, dtype):
    """fn(params, images [B, H, W, 3]) -> [B, H, W], jitted; the batch is split over the mesh."""
    return sharding.over_batch(functools.partial(depth_anything.apply, config, dtype=jnp.dtype(dtype)), mesh)


def devices(chip: str, chips: int) -> list:
    """Of a slice that need not exist. Raises Dav2Error without libtpu."""
    from jax.experimental import topologies

    # Read when libtpu is loaded: it would else look for a TPU machine, complain on stderr, and refuse to be loaded
    # by two processes, which matters to those who run something on a TPU, and not here.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=f"{chip}:{SLICES[chip].shapes[chips]}"
        ).devices
    except (RuntimeError, ImportError) as error:
        raise Dav2Error(f"no TPU compiler ({first_line(error)}): pip install libtpu, on Linux") from None


def too_large(error: Exception, what: str) -> Exception:
    """The compiler's refusal in one line, if it is that memory does not suffice."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        return error
    need = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", text)
    return DoesNotFit(f"{what}: " + (f"needs {need[1]} of {need[2]} HBM" if need else "does not fit the HBM"))
