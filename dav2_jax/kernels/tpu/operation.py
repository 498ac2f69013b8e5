"""Pallas kernels as ordinary operations: what XLA knows about its own operations, it has to be told about a kernel."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import mlir


def operation(kernel: Callable, plain: Callable, gradient: Callable | None = None) -> Callable:
    """f(x [B, ...], *weights) -> [B, ...] that runs `kernel`, and can be differentiated, vmapped and sharded.

    plain:    the same function in XLA's operations. It takes over where a kernel cannot go: under a `vmap` over weights
              (one over x alone is a larger batch), and in a program that XLA itself divides over devices. There,
              `jax.shard_map` over the batch keeps the kernel.
    gradient: a kernel too, (x, cotangent) -> gradient by x, of a function without weights; None: that of `plain`
    x may be a tree of arrays, each with the batch in front.
    """

    @custom_vmap
    def over_batch(*arguments):
        jaxprs = {name: jax.make_jaxpr(run)(*arguments) for name, run in (("kernel", kernel), ("plain", plain))}
        return _choice.bind(*jax.tree.leaves(arguments), **jaxprs)[0]

    @over_batch.def_vmap
    def vmap(size, batched, x, *weights):
        if any(batched[1:]):
            axes = jax.tree.map(lambda one: 0 if one else None, tuple(batched))
            return jax.vmap(plain, axes)(x, *weights), True
        x = jax.tree.map(lambda a, one: a if one else jnp.broadcast_to(a, (size, *a.shape)), x, batched[0])
        out = over_batch(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), x), *weights)
        return out.reshape(size, -1, *out.shape[1:]), True

    @jax.custom_vjp
    def differentiable(*arguments):
        return over_batch(*arguments)

    def plain_back(arguments, cotangent):
        return jax.vjp(plain, *arguments)[1](cotangent)

    back = plain_back
    if gradient is not None:
        by_x = operation(lambda pair: gradient(*pair), lambda pair: plain_back(pair[:1], pair[1])[0])

        def back(arguments, cotangent):
            return (by_x((*arguments, cotangent)),)

    differentiable.defvjp(lambda *arguments: (differentiable(*arguments), arguments), back)
    return differentiable


def on_one_device(context: mlir.LoweringRuleContext) -> bool:
    """Whether an operation that is lowered will see whole arrays: on one device, or in a shard_map over all axes."""
    over = context.module_context.axis_context
    if isinstance(over, mlir.SPMDAxisContext):
        return over.manual_axes == frozenset(over.mesh.axis_names)
    return getattr(over, "num_devices", 1) == 1


def _lower(context, *arguments, kernel, plain):
    """Decides when the program is made for its devices, and not when it is traced: only then are they known."""
    chosen = jaxpr_as_fun(kernel if on_one_device(context) else plain)
    return mlir.lower_fun(chosen, multiple_results=True)(context, *arguments)


_choice = Primitive("kernel_or_plain")
_choice.multiple_results = True
_choice.def_abstract_eval(lambda *arguments, kernel, plain: kernel.out_avals)
_choice.def_impl(lambda *arguments, **jaxprs: jax.jit(functools.partial(_choice.bind, **jaxprs))(*arguments))
mlir.register_lowering(_choice, _lower)
