"""Pallas kernels as ordinary operations: what XLA knows about its own operations, it has to be told about a kernel."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


def operation(kernel: Callable, plain: Callable, tables: tuple[np.ndarray, ...] = ()) -> Callable:
    """f(x [B, ...], *weights) -> [B, ...] that runs `kernel` and can be differentiated, vmapped and sharded.

    kernel: (x, *tables, *weights) -> result.
    plain:  (x, *weights) -> the same in XLA's operations. Its gradient serves as the gradient, and it takes over under
            a `vmap` over weights; a `vmap` over x alone is a larger batch.
    tables: constants of the kernel, which must not close over arrays.
    Over many devices each runs the kernel on its share of the batch, with all of the weights.
    """
    over_devices = custom_partitioning(lambda *arguments: kernel(*arguments))  # which takes no keywords

    def partition(mesh, arguments, result):
        batch = NamedSharding(mesh, PartitionSpec(*arguments[0].sharding.spec[:1]))
        whole = NamedSharding(mesh, PartitionSpec())
        return mesh, kernel, batch, (batch, *(whole for _ in arguments[1:]))

    over_devices.def_partition(partition=partition, sharding_rule=_batch_only)

    @custom_vmap
    def over_batch(x, *weights):
        return over_devices(x, *map(jnp.asarray, tables), *weights)

    @over_batch.def_vmap
    def vmap(size, batched, x, *weights):
        if any(batched[1:]):
            return jax.vmap(plain, in_axes=[0 if one else None for one in batched])(x, *weights), True
        out = over_batch(x.reshape(-1, *x.shape[2:]), *weights)
        return out.reshape(size, -1, *out.shape[1:]), True

    @jax.custom_vjp
    def differentiable(*arguments):
        return over_batch(*arguments)

    differentiable.defvjp(
        lambda *arguments: (over_batch(*arguments), arguments),
        lambda arguments, cotangent: jax.vjp(plain, *arguments)[1](cotangent),
    )
    return differentiable


def _batch_only(mesh, arguments, results):
    """Shardy's rule: the first axes of x and of the result are one, and no other axis may be split."""
    names = map("d{}".format, itertools.count())
    axes = [[next(names) for _ in value.shape] for value in (*arguments, *results)]
    axes[0][0] = axes[-1][0] = "batch"
    whole = tuple(name for value in axes for name in value if name != "batch")
    *inputs, output = map(" ".join, axes)
    return f"{', '.join(inputs)} -> {output}", {"need_replication_factors": whole}
