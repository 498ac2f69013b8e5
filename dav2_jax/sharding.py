"""Devices and hosts: the mesh, how arrays are sharded over it, and how several processes share a list of work.

The only file that knows meshes. Everything is `jit` over global arrays with a `NamedSharding`; one device is a mesh of
one. Hosts work on their own devices and meet only to agree on the work and to put their reports together.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
import zlib
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dav2_jax.errors import Dav2Error, InvalidValueError, first_line

AXES = ("data", "fsdp")  # examples are split over both, parameters over "fsdp" alone

# How parameters are sharded, by their dotted names: exactly one rule for each. Kernels are split by their outputs;
# vectors, a thousandth of the bytes, are whole, and so is the very last layer, which has one output.
PARAMETERS = (
    (r"(frozen\.)?pretrained\.(cls_token|mask_token)", P()),
    (r"(frozen\.)?pretrained\.pos_embed", P(None, None, "fsdp")),
    (r"(frozen\.)?pretrained\..*\.kernel", P(None, "fsdp")),
    (r"depth_head\.(?!scratch\.output_conv2\.2\.).*\.kernel", P(None, None, None, "fsdp")),
    (r"depth_head\.scratch\.output_conv2\.2\.kernel", P()),
    (r".*\.(bias|scale|gamma)", P()),
)

Item = TypeVar("Item")


def make_mesh(devices: Sequence[jax.Device], fsdp: int = 1) -> jax.sharding.Mesh:
    """Devices as a grid [len(devices) / fsdp, fsdp] with axes ("data", "fsdp")."""
    shape = (len(devices) // fsdp, fsdp)
    # jax.make_mesh refuses to split an axis of a v5p's or v6e's torus, as fsdp 2 does on 16 x 16 chips.
    grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)


def batch_sharding(mesh: jax.sharding.Mesh, axis: int = 0) -> NamedSharding:
    """One axis, the first, over all devices."""
    return NamedSharding(mesh, P(*[None] * axis, AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, P())


def parameter_name(path) -> str:
    """The dotted name of a parameter from its path in a tree, also where that tree is a part of another.

    Parameters are trees of dicts, and what is built around them (an optimizer's state) is not: `mu` of a parameter has
    its name, and a step counter the name "".
    """
    return ".".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def parameter_spec(name: str, shape: Sequence[int], fsdp: int) -> P:
    """How the parameter of this name is split; whole where the axis does not divide into `fsdp` parts.

    Raises ValueError when not exactly one rule of PARAMETERS holds.
    """
    specs = [spec for pattern, spec in PARAMETERS if re.fullmatch(pattern, name)]
    if len(specs) != 1:
        raise ValueError(f"{len(specs)} rules, not one, say where parameter {name!r} lies")
    return specs[0] if all(shape[i] % fsdp == 0 for i, axis in enumerate(specs[0]) if axis) else P()


def state_sharding(mesh: jax.sharding.Mesh, tree):
    """A NamedSharding for each leaf: of a parameter, or of what is kept for one, by its rule; of all else, whole."""

    def of(path, leaf):
        name = parameter_name(path)
        return NamedSharding(mesh, parameter_spec(name, leaf.shape, mesh.shape["fsdp"]) if name else P())

    return jax.tree.map_with_path(of, tree)


def over_batch(function: Callable, mesh: jax.sharding.Mesh, params=None) -> Callable:
    """function(params, batch) under `jit`: parameters whole on every device, batch and results split over all.

    params: their shardings, if not whole, a tree of NamedSharding. The function then gets its device's parts of them,
            which `collect` puts together.

    Each device runs the function on its share, by `jax.shard_map`: where XLA itself divides a program, it takes plain
    operations in place of the TPU kernels (`kernels.dispatch`), and with split parameters splits activations too.
    """
    whole, split = replicated(mesh) if params is None else params, batch_sharding(mesh)
    if mesh.size > 1:
        specs = {"in_specs": (jax.tree.map(lambda one: one.spec, whole), split.spec), "out_specs": split.spec}
        function = jax.shard_map(function, mesh=mesh, check_vma=False, **specs)
    return jax.jit(function, in_shardings=(whole, split), out_shardings=split)


def on_any_mesh(function: Callable) -> Callable:
    """function(params, images), also with images on a mesh of explicit axes, as `jax.make_mesh` makes them.

    Inside, XLA decides how intermediate results are sharded; the result is split along its batch as the images are.
    """

    @functools.wraps(function)
    def apply(params, images):
        where = getattr(jax.typeof(images), "sharding", None)
        if where is None or AxisType.Explicit not in where.mesh.axis_types:
            return function(params, images)
        split = NamedSharding(where.mesh, P(where.spec[0] if where.spec else None))
        return jax.sharding.auto_axes(function, out_sharding=split)(params, images)

    return apply


def collect(params, shardings, dtype):
    """All-gathers FSDP shards inside `over_batch`. shardings: tree of NamedSharding.

    Kernels travel in `dtype`, that of the network, which would round them anyway; their gradient is added up over the
    devices in float32, each part on the device that holds it.
    """

    def one(path, part, where):
        axis = next((axis for axis, name in enumerate(where.spec) if name), None)
        if axis is None or where.mesh.shape["fsdp"] == 1:
            return part
        return _gathered(part, axis, dtype if parameter_name(path).endswith(".kernel") else part.dtype)

    return jax.tree.map_with_path(one, params, shardings)


def _gathered(part: jax.Array, axis: int, dtype) -> jax.Array:
    @jax.custom_vjp
    def gathered(part):
        return jax.lax.all_gather(part.astype(dtype), "fsdp", axis=axis, tiled=True)

    def add_up(_, gradient):
        gradient = gradient.astype(part.dtype)
        return (jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=axis, tiled=True),)

    gathered.defvjp(lambda part: (gathered(part), None), add_up)
    return gathered(part)


def inference_devices() -> list[jax.Device]:
    """All accelerators of this host, or one CPU device: virtual ones share the same cores."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return devices
    _say_if_a_gpu_is_left_out()
    return devices[:1]


@functools.cache
def _say_if_a_gpu_is_left_out() -> None:
    """On stderr, where a plugin of another version than jaxlib is installed: JAX ignores it, and the GPU, silently."""
    version = metadata.version("jaxlib")
    for package, extra in (("jax-cuda12-plugin", "cuda12"), ("jax-cuda13-plugin", "cuda13")):
        with contextlib.suppress(metadata.PackageNotFoundError):
            if (found := metadata.version(package)) != version:
                print(
                    f"the GPU is not used: {package} {found} does not go with jaxlib {version}: "
                    f"pip install --upgrade 'jax[{extra}]'",
                    file=sys.stderr,
                )


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the processes of one run; must come before anything touches a device.

    coordinator  "host:port" of process 0, with the number of processes and this one's number, from 0. Without any of
                 the three, Cloud TPU, Slurm, Open MPI and Kubernetes tell by themselves.

    Raises Dav2Error when only some are given, or the processes do not find each other.
    """
    given = [value is not None for value in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise InvalidValueError("coordinator=HOST:PORT, processes=COUNT and process=NUMBER: give all three, or none")
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise InvalidValueError(f"coordinator={coordinator}: give HOST:PORT, such as 10.0.0.1:9876")
    if all(given) and not 0 <= process < processes:
        raise InvalidValueError(f"process={process}: processes are numbered from 0 to {processes - 1}")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        raise Dav2Error(
            f"the processes of this run did not find each other ({first_line(error)}): "
            "give coordinator=HOST:PORT, processes=COUNT and process=NUMBER"
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
