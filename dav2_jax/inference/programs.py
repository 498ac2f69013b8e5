"""Compiled programs: one for each function and shape, on one device or many, with the time that compiling took."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from dav2_jax import sharding

Key = tuple[Callable, tuple[int, ...], np.dtype]


@dataclasses.dataclass
class Programs:
    """Runs functions of (params, batch): compiles once for each shape of the batch and keeps the program.

    params     tree of arrays, copied to the devices when first needed there
    devices    a batch whose size they divide is split over all of them; any other runs on the first

    compiled   seconds that compiling took, by (function, shape and dtype of the batch)
    cached     of the programs that were read from the persistent cache instead, the seconds that this took
    """

    params: dict
    devices: Sequence[jax.Device]
    compiled: dict[Key, float] = dataclasses.field(default_factory=dict)
    cached: dict[Key, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self._programs: dict[Key, Callable] = {}
        self._placed: dict[int, dict] = {}  # params, by the number of devices that hold them

    def __call__(self, function: Callable, batch: np.ndarray | jax.Array) -> jax.Array:
        """function(params, batch); returns at once, and the result waits for the device when it is read."""
        count = len(self.devices) if batch.shape[0] % len(self.devices) == 0 else 1
        mesh = sharding.make_mesh(self.devices[:count])
        if count not in self._placed:
            self._placed[count] = jax.device_put(self.params, sharding.replicated(mesh))
        batch = jax.device_put(batch, sharding.batch_sharding(mesh))
        key = (function, batch.shape, batch.dtype)
        if key not in self._programs:
            start, hits = time.perf_counter(), _cache_hits.count
            self._programs[key] = sharding.over_batch(function, mesh).lower(self._placed[count], batch).compile()
            made = self.compiled if _cache_hits.count == hits else self.cached
            made[key] = time.perf_counter() - start
        return self._programs[key](self._placed[count], batch)

    def replace(self, params: dict) -> None:
        """Other parameters from now on; programs are kept where the function is the same."""
        self.params = params
        self._placed.clear()

    def __str__(self) -> str:
        """What a summary adds after the seconds of a run: the device, and compiling where there was some."""
        compiling = f", of which {self.seconds:.1f} s for compiling (programs: {len(self.compiled)})"
        return f"on {describe(self.devices)}{compiling if self.compiled else ''}"

    @property
    def seconds(self) -> float:
        """All that was spent on compiling."""
        return sum(self.compiled.values())


def describe(devices: Sequence[jax.Device]) -> str:
    """Devices for people: "CPU", "NVIDIA H100 80GB HBM3", "8 x TPU v5e"."""
    name = "CPU" if devices[0].platform == "cpu" else devices[0].device_kind
    return name if len(devices) == 1 else f"{len(devices)} x {name}"


class _CacheHits:
    """Counts the programs that JAX reads from its persistent cache; its events are the one public trace of that."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_listener(self._listen)

    def _listen(self, event: str, **_) -> None:
        self.count += event == "/jax/compilation_cache/cache_hits"


_cache_hits = _CacheHits()


def keep_programs(folder: Path) -> None:
    """Keeps compiled programs in `folder` for later processes, unless JAX was already told where (or not) to.

    Programs are machine code: the folder is made readable and writable for its owner alone, and is to be trusted as
    much as the programs themselves.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        print(f"{folder}: cannot be made ({error.strerror}), so compiled programs are not kept", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
