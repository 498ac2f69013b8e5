"""How fast the model runs on this machine, and what a TPU's compiler expects of one: the engine of `dav2 bench`."""

import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax import sharding
from dav2_jax.bench import aot
from dav2_jax.errors import InvalidValueError, NotFoundError
from dav2_jax.files import atomic
from dav2_jax.image.resize import check_input_size
from dav2_jax.kernels import cpu as native
from dav2_jax.model import depth_anything, ops
from dav2_jax.model.config import PATCH, PRESETS, ModelConfig
from dav2_jax.model.flops import model_flops

CEILING_SIDES = {"cpu": 2048}  # of the square matmul; 8192 elsewhere
COLUMNS = "{:8} {:>5} {:>10} {:>10} {:>10} {:>9} {:>8} {:>8} {:>9}"
AOT_COLUMNS = "{:8} {:8} {:>5} {:>7} {:>7} {:>8} {:>7} {:>7} {:>9} {:>11} {:>8} {:>5}"
AOT_NAMES = ("TPU", "encoder", "batch", "model T", "FLOP T", "bytes GB", "HBM GB", "peak GB", "compile s")
AOT_NAMES += ("roofline ms", "bound", "links")
STEP_COLUMNS = "{:8} {:8} {:>4} {:>5} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>10} {:>8} {:>8} {:>7}"
STEP_NAMES = ("TPU", "encoder", "fsdp", "batch", "model T", "FLOP T", "HBM GB", "sent GB", "peak GB", "compile s")
STEP_NAMES += ("compute ms", "HBM ms", "links ms", "bound")


@dataclass(frozen=True)
class Timing:
    """One encoder at one batch size on this machine; the network alone, its input on the devices already."""

    encoder: str
    batch: int  # images a device
    devices: int
    size: int  # pixels a side
    dtype: str
    compile_seconds: float
    median_ms: float  # of a batch on every device
    min_ms: float
    images_per_second: float  # of all devices
    tflops: float  # per second and device: the operations of `model_flops`
    ceiling_share: float  # of the highest rate seen: a large matmul, or this (Winograd saves products that are counted)
    memory_bytes: int | None  # most that was ever in use on a device, where the backend counts it


def run(
    encoders: Sequence[str],
    batches: Sequence[int],
    *,
    input_size: int = 518,
    dtype: str = "float32",
    runs: int = 10,
    targets: Sequence[str] = (),
    file: str | None = None,
) -> None:
    """Prints the table, row by row, and writes it as JSON.

    targets: TPU slices such as "v5e-8", to compile for them in place of running here.
    file:    for JSON; a path, or "-" to print JSON and no table.
    Raises Dav2Error on sizes and counts that cannot be.
    """
    check_input_size(input_size)
    refuse_file(file)
    if min([*batches, runs]) < 1:
        raise InvalidValueError(f"batch sizes and runs must be 1 or more, not {min([*batches, runs])}")
    size = max(1, round(input_size / PATCH)) * PATCH
    show = (lambda line: None) if file == "-" else (lambda line: print(line, flush=True))
    cases = [(PRESETS[encoder], batch) for encoder in encoders for batch in batches]
    if targets:
        head, rows = _estimates(cases, targets, size, dtype, show)
    else:
        head, rows = _timings(cases, size, dtype, runs, show)
    _write_json(head | {"rows": rows}, file)


def run_training(
    recipe: str,
    targets: Sequence[str],
    *,
    encoders: Sequence[str] = (),
    batches: Sequence[int] = (),
    input_size: int | None = None,
    dtype: str | None = None,
    fsdp: int | None = None,
    remat: str | None = None,
    file: str | None = None,
) -> None:
    """Compiles the training step of a recipe for TPU slices; prints the table, row by row, and writes it as JSON.

    batches: images a step on all chips; what is left out (empty or None) is the recipe's, `fsdp` what the HBM asks for.
    Raises Dav2Error, before the first row, on what does not divide among the chips.
    """
    from dav2_jax.bench import training as training_aot
    from dav2_jax.training import recipe as recipes

    refuse_file(file)
    base = recipes.load(recipe)
    given = {"size": input_size, "dtype": dtype, "remat": remat}
    base = dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})
    cases = [
        (target, dataclasses.replace(base, encoder=encoder, batch_size=batch))
        for target in targets
        for encoder in encoders or (base.encoder,)
        for batch in batches or (base.batch_size,)
    ]
    for target, case in cases:
        case.check()
        training_aot.check(case.batch_size, case.accumulate, target, fsdp)
    show = (lambda line: None) if file == "-" else (lambda line: print(line, flush=True))
    show(
        f"compiler estimates, not measurements: jax {jax.__version__}, a training step of {recipe}, {base.dtype}, "
        f"{base.crop[0]} x {base.crop[1]} pixels, remat {base.remat}\n"
        "batch is of all chips, and all other numbers are for one chip; below each row, what chips exchange"
    )
    show(STEP_COLUMNS.format(*STEP_NAMES))
    rows = []
    for target, case in cases:
        try:
            row = training_aot.estimate_step(case, target, fsdp=fsdp)
        except aot.DoesNotFit as error:
            rows.append({"target": target, "encoder": case.encoder, "batch": case.batch_size, "error": str(error)})
            show(str(error))
            continue
        rows.append({"target": target} | row.as_dict())
        giga = [f"{count / 1e9:.2f}" for count in (row.hbm_bytes, row.link_bytes, row.hbm_peak)]
        tera = [f"{count / 1e12:.2f}" for count in (row.model_flops, row.flops)]
        times = [f"{seconds * 1e3:.1f}" for seconds in row.seconds.values()]
        head = (target, row.encoder, row.fsdp, row.batch)
        show(STEP_COLUMNS.format(*head, *tera, *giga, f"{row.compile_seconds:.0f}", *times, row.bound))
        exchanged = (f"{one.count} {one.kind} among {one.chips}, {one.bytes / 1e9:.3f} GB" for one in row.collectives)
        show("    " + "; ".join(exchanged) + ("" if row.fits else "; does not fit the HBM"))
    _write_json({"kind": "compiler estimates", "jax": jax.__version__, "recipe": recipe, "rows": rows}, file)


def time_model(config: ModelConfig, batch: int, size: int, dtype: str, runs: int, ceiling: float) -> Timing:
    """Times the forward pass with random weights on all local devices, `batch` images on each.

    ceiling: FLOP/s of `matmul_ceiling`.
    """
    devices = jax.local_devices()
    mesh = sharding.make_mesh(devices)
    whole, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    params = jax.jit(depth_anything.init, static_argnums=0, out_shardings=whole)(config, jax.random.key(0))
    images = jax.device_put(np.ones((batch * len(devices), size, size, 3), np.float32), split)

    start = time.perf_counter()
    compiled = aot.forward(config, mesh, dtype).lower(params, images).compile()
    compile_seconds = time.perf_counter() - start
    seconds = _seconds(lambda: compiled(params, images), runs)
    median = statistics.median(seconds)
    flops = model_flops(config, size, size) * batch / median
    return Timing(
        encoder=config.encoder,
        batch=batch,
        devices=len(devices),
        size=size,
        dtype=dtype,
        compile_seconds=compile_seconds,
        median_ms=median * 1e3,
        min_ms=min(seconds) * 1e3,
        images_per_second=len(images) / median,
        tflops=flops / 1e12,
        ceiling_share=flops / max(ceiling, flops),
        memory_bytes=(devices[0].memory_stats() or {}).get("peak_bytes_in_use"),
    )


def matmul_ceiling(dtype: str, side: int | None = None, runs: int = 5) -> float:
    """FLOP/s of one device in the product of two square matrices, as the model multiplies: the best of some runs."""
    side = side or CEILING_SIDES.get(jax.default_backend(), 8192)
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(lambda a: ops.linear(a, a, jnp.zeros(side, dtype)))
    return 2 * side**3 / min(_seconds(lambda: product(a), runs))


def _seconds(call, runs: int) -> list[float]:
    """Of each run, after one that does not count."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds


def _timings(cases, size: int, dtype: str, runs: int, show: Callable) -> tuple[dict, list[dict]]:
    devices = jax.local_devices()
    ceiling = matmul_ceiling(dtype)
    kernels = ""
    if devices[0].platform == "cpu":
        kernels = " with kernels in C++" if native.available() else " with XLA's kernels"
    show(
        f"{len(devices)} x {devices[0].device_kind}{kernels}, jax {jax.__version__}, {dtype}, {size} x {size} pixels, "
        f"median and minimum of {runs} runs\n"
        f"a large {dtype} matmul reaches {ceiling / 1e12:.2f} TFLOP/s here; batch is for each device"
    )
    show(
        COLUMNS.format(
            "encoder", "batch", "compile s", "median ms", "min ms", "images/s", "TFLOP/s", "of max", "memory"
        )
    )
    rows = []
    for config, batch in cases:
        row = time_model(config, batch, size, dtype, runs, ceiling)
        rows.append(dataclasses.asdict(row))
        numbers = (row.compile_seconds, row.median_ms, row.min_ms, row.images_per_second)
        show(
            COLUMNS.format(
                row.encoder,
                row.batch,
                *(f"{number:.1f}" for number in numbers),
                f"{row.tflops:.3f}",
                f"{row.ceiling_share:.0%}",
                "-" if row.memory_bytes is None else f"{row.memory_bytes / 1e9:.2f} GB",
            )
        )
    head = {"kind": "measured", "device": devices[0].device_kind, "jax": jax.__version__, "runs": runs}
    return head | {"matmul_tflops": ceiling / 1e12}, rows


def _estimates(cases, targets: Sequence[str], size: int, dtype: str, show: Callable) -> tuple[dict, list[dict]]:
    for target in targets:
        aot.parse_target(target)  # all, before the first is compiled
    show(
        f"compiler estimates, not measurements: jax {jax.__version__}, {dtype}, {size} x {size} pixels\n"
        "numbers are for one chip, as is batch; below each row, the GB that it reads from and writes to HBM, by stage"
    )
    show(AOT_COLUMNS.format(*AOT_NAMES))
    rows = []
    for target, (config, batch) in itertools.product(targets, cases):
        case = {"target": target, "encoder": config.encoder, "batch": batch}
        try:
            row = aot.estimate(config, target, batch=batch, height=size, width=size, dtype=dtype)
        except aot.DoesNotFit as error:
            rows.append(case | {"error": str(error)})
            show(str(error))
            continue
        rows.append(case | dataclasses.asdict(row) | {"roofline_seconds": row.roofline_seconds, "bound": row.bound})
        giga = [f"{count / 1e9:.2f}" for count in (row.bytes_accessed, row.hbm_bytes, row.hbm_peak)]
        tera = [f"{count / 1e12:.2f}" for count in (row.model_flops, row.flops)]
        seconds = f"{row.compile_seconds:.0f}", f"{row.roofline_seconds * 1e3:.2f}"
        show(AOT_COLUMNS.format(target, row.encoder, batch, *tera, *giga, *seconds, row.bound, row.collectives))
        stages = (
            f"{name} {count / 1e9:.2f}" for name, count in row.hbm_by_stage.items() if count > 0.01 * row.hbm_bytes
        )
        show("    " + ", ".join(stages))
    return {"kind": "compiler estimates", "jax": jax.__version__}, rows


def refuse_file(file: str | None) -> None:
    """Raises Dav2Error for a report that could not be written: asked before the time is spent."""
    if file not in (None, "-") and not Path(file).absolute().parent.is_dir():
        raise NotFoundError(f"{file}: there is no folder {Path(file).parent}: make it first")


def _write_json(report: dict, file: str | None) -> None:
    text = json.dumps(report, indent=1) + "\n"
    if file == "-":
        sys.stdout.write(text)
    elif file:
        with atomic(Path(file)) as temporary:
            temporary.write_text(text)
