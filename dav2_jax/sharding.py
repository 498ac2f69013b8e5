"""Devices and hosts: the mesh, where arrays lie on it, and how several processes share a list of work.

The only file that knows meshes. Everything is `jit` over global arrays with a `NamedSharding`; one device is a mesh of
one. Hosts work on their own devices and meet only to agree on the work and to put their reports together.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dav2_jax.errors import Dav2Error

AXES = ("data", "fsdp")  # examples are split over both, parameters over "fsdp" alone

Item = TypeVar("Item")


def make_mesh(devices: Sequence[jax.Device], fsdp: int = 1) -> jax.sharding.Mesh:
    """Devices as a grid [len(devices) / fsdp, fsdp] with axes ("data", "fsdp")."""
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The first axis over all devices."""
    return NamedSharding(mesh, P(AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, P())


def over_batch(function: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """function(params, batch) under `jit`: parameters whole on every device, batch and results split over all.

    Each device runs the function on its share, by `jax.shard_map`: where XLA itself divides a program, it takes plain
    operations in place of the TPU kernels (`model.tpu_kernel`).
    """
    whole, split = replicated(mesh), batch_sharding(mesh)
    if mesh.size > 1:
        specs = {"in_specs": (whole.spec, split.spec), "out_specs": split.spec}
        function = jax.shard_map(function, mesh=mesh, check_vma=False, **specs)
    return jax.jit(function, in_shardings=(whole, split), out_shardings=split)


def inference_devices() -> list[jax.Device]:
    """All accelerators of this host, or one CPU device: virtual ones share the same cores."""
    devices = jax.local_devices()
    return devices[:1] if devices[0].platform == "cpu" else devices


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the processes of one run; must come before anything touches a device.

    coordinator  "host:port" of process 0, with the number of processes and this one's number, from 0. Without any of
                 the three, Cloud TPU, Slurm, Open MPI and Kubernetes tell by themselves.

    Raises Dav2Error when only some are given, or the processes do not find each other.
    """
    given = [value is not None for value in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise Dav2Error("--coordinator, --processes and --process belong together: give all three, or none")
    if all(given) and not 0 <= process < processes:
        raise Dav2Error(f"--process {process}: processes are numbered from 0 to {processes - 1}")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Dav2Error(
            f"the processes of this run did not find each other ({reason}): "
            "give --coordinator HOST:PORT, --processes COUNT and --process NUMBER"
        ) from error


def my_share(items: Sequence[Item]) -> list[Item]:
    """Every n-th item, beginning with this process's number: the shares of all n processes make up the list."""
    return list(items[jax.process_index() :: jax.process_count()])


def is_first() -> bool:
    """Whether this process speaks for all."""
    return jax.process_index() == 0


def check_same(what: str, texts: Sequence[str]) -> None:
    """Raises Dav2Error, in every process, unless all processes have the same texts."""
    if len(set(gather(zlib.crc32("\n".join(texts).encode())))) > 1:
        raise Dav2Error(f"the processes of this run see different {what}: give all of them the same files")


def gather(value) -> list:
    """What every process passed in (anything that JSON can hold), in the order of their numbers."""
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
