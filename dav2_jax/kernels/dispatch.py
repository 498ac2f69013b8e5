"""The ONE way from an operation to the kernel that computes it: chosen when a program is made for its devices.

    y = choose(plain_self_attention, qkv, cpu=cpu.attention, tpu=partial(tpu.attention, heads=6), heads=6)

`plain` is the operation in XLA's own terms and defines the result; kernels are exact twins of it. It takes over
wherever a kernel cannot go: on another platform, in a program that XLA itself divides over devices (`jax.shard_map`
over the batch keeps the kernel), in one that is exported, and in whatever runs under `plain_operations`.
"""

import contextvars
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from dav2_jax.kernels import cpu
from dav2_jax.kernels.tpu.operation import on_one_device, operation

_plain_only = contextvars.ContextVar("plain_only", default=False)


def plain_operations(function: Callable) -> Callable:
    """`function` without any kernel or custom gradient, in XLA's operations alone: the same numbers, to rounding.

    For what kernels do not support: `jax.jvp` and forward mode, interception of operations (quantization libraries).
    It holds for what is traced inside, so wrap the function before `jax.jit`: `jax.jit(plain_operations(model.fn))`.
    """

    @functools.wraps(function)
    def plain(*args, **options):
        token = _plain_only.set(True)
        try:
            return function(*args, **options)
        finally:
            _plain_only.reset(token)

    return plain


def plain_only() -> bool:
    """Whether what is traced now runs under `plain_operations`."""
    return _plain_only.get()


def choose(
    plain: Callable,
    *arguments: jax.Array,
    cpu: Callable | None = None,
    tpu: Callable | None = None,
    tpu_gradient: Callable | None = None,
    batched: int = 1,
    **how,
) -> jax.Array:
    """plain(*arguments, **how), computed by cpu(*arguments, **how) on a CPU and by tpu(*arguments) on a TPU.

    plain, cpu:   functions of a module, and `how` hashable: (cpu, plain, how) is the key of the eager compile cache.
                  Where the call is differentiated the CPU kernel is left out: `plain` may have kernels inside
    tpu:          None where the TPU kernel does not take these shapes. Differentiated, its gradient is `tpu_gradient`,
                  (x, cotangent) -> gradient by x, of an operation without weights, or else that of `plain`
    batched:      how many of the arguments, the first ones, have a batch as their first axis, as the result has. A
                  `vmap` over these alone is a larger batch; under any other, `plain` runs
    """
    if plain_only() or (cpu is None and tpu is None):
        return plain(*arguments, **how)
    usual = functools.partial(plain, **how)
    if cpu is not None:
        usual = functools.partial(_cpu.bind, kernel=cpu, plain=plain, batched=batched, how=tuple(sorted(how.items())))
    if tpu is None:
        return usual(*arguments)
    kernel = operation(tpu, functools.partial(plain, **how), tpu_gradient)
    return lax.platform_dependent(*arguments, tpu=kernel, default=usual)


_cpu = Primitive("cpu_kernel_or_plain")


@_cpu.def_abstract_eval
def _abstract(*arguments, plain, how, **_):
    out = jax.eval_shape(
        functools.partial(plain, **dict(how)), *(jax.ShapeDtypeStruct(one.shape, one.dtype) for one in arguments)
    )
    return jax.core.ShapedArray(out.shape, out.dtype)


@functools.cache
def _jitted(**parameters):
    return jax.jit(functools.partial(_cpu.bind, **parameters))


_cpu.def_impl(lambda *arguments, **parameters: _jitted(**parameters)(*arguments))


def _lower(context, *arguments, kernel, plain, how, **_):
    """Decided when the program is made for its devices: only then are they known."""
    module = context.module_context
    on_cpu = module.platforms == ("cpu",) and not module.lowering_parameters.for_export
    chosen = kernel if on_cpu and on_one_device(context) and cpu.available() else plain
    return mlir.lower_fun(functools.partial(chosen, **dict(how)), multiple_results=False)(context, *arguments)


mlir.register_lowering(_cpu, _lower)


def _jvp(primals, tangents, *, plain, how, **_):
    """As if `plain` had been written in its place: nothing is computed twice for the gradient."""
    varied = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of_varied(*some):
        every = list(primals)
        for i, one in zip(varied, some, strict=True):
            every[i] = one
        return plain(*every, **dict(how))

    return jax.jvp(of_varied, [primals[i] for i in varied], [tangents[i] for i in varied])


ad.primitive_jvps[_cpu] = _jvp


def _batch(arguments, axes, *, plain, batched, how, **others):
    if any(axis is not None for axis in axes[batched:]):
        return jax.vmap(functools.partial(plain, **dict(how)), axes)(*arguments), 0
    size = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None)

    def folded(a, axis):
        a = jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        return a.reshape(-1, *a.shape[2:])

    some = [folded(a, axis) for a, axis in zip(arguments[:batched], axes[:batched], strict=True)]
    out = _cpu.bind(*some, *arguments[batched:], plain=plain, batched=batched, how=how, **others)
    return out.reshape(size, -1, *out.shape[1:]), 0


batching.primitive_batchers[_cpu] = _batch
