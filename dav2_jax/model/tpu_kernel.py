"""Pallas kernels as ordinary operations: what XLA knows about its own operations, it has to be told about a kernel."""

import functools
from collections.abc import Callable

import jax
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import mlir


def operation(kernel: Callable, plain: Callable) -> Callable:
    """f(x [B, ...], *weights) -> [B, ...] that runs `kernel`, and can be differentiated, vmapped and sharded.

    plain: the same function in XLA's operations. Its gradient serves as the gradient, and it takes over where a kernel
           cannot go: under a `vmap` over weights (one over x alone is a larger batch), and in a program that XLA itself
           divides over devices. There, `jax.shard_map` over the batch keeps the kernel.
    """

    @custom_vmap
    def over_batch(*arguments):
        jaxprs = {name: jax.make_jaxpr(run)(*arguments) for name, run in (("kernel", kernel), ("plain", plain))}
        return _choice.bind(*arguments, **jaxprs)[0]

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


def _lower(context, *arguments, kernel, plain):
    """Decides when the program is made for its devices, and not when it is traced: only then are they known."""
    over = context.module_context.axis_context
    if isinstance(over, mlir.SPMDAxisContext):
        alone = over.manual_axes == frozenset(over.mesh.axis_names)  # in a shard_map over all axes
    else:
        alone = getattr(over, "num_devices", 1) == 1
    chosen = jaxpr_as_fun(kernel if alone else plain)
    return mlir.lower_fun(chosen, multiple_results=True)(context, *arguments)


_choice = Primitive("kernel_or_plain")
_choice.multiple_results = True
_choice.def_abstract_eval(lambda *arguments, kernel, plain: kernel.out_avals)
_choice.def_impl(lambda *arguments, **jaxprs: jax.jit(functools.partial(_choice.bind, **jaxprs))(*arguments))
mlir.register_lowering(_choice, _lower)
