"""The C++ kernels of `dav2_jax.kernels.cpu` as ordinary operations, where they are there, and XLA's where they are not.

Each wrapper rounds its kernel to the dtype of its input, computes in float32 and returns that dtype. What it promises
is what `ops.py` says of the function that calls it; `plain` is that function in XLA's operations.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from dav2_jax.image.resize import linear_taps
from dav2_jax.kernels import cpu as native
from dav2_jax.kernels.tpu.operation import on_one_device

PANEL = 32  # columns that the kernels' tiles take at once, at most: those of AVX-512


def choose(kernel: Callable, plain: Callable, *arguments: jax.Array, maps: int = 1, **how) -> jax.Array:
    """plain(*arguments, **how), computed by kernel(*arguments, **how) on a CPU unless it is differentiated.

    Both are functions of a module, and `how` can be hashed: by these, programs are kept for calls outside of `jit`.
    maps: how many of the arguments, the first ones, have a batch as their first axis, as the result has. A `vmap` over
          these alone is a larger batch; under any other, `plain` runs.
    """
    return _native.bind(*arguments, kernel=kernel, plain=plain, maps=maps, how=tuple(sorted(how.items())))


_native = Primitive("native_or_plain")


@_native.def_abstract_eval
def _abstract(*arguments, plain, how, **_):
    out = jax.eval_shape(
        functools.partial(plain, **dict(how)), *(jax.ShapeDtypeStruct(one.shape, one.dtype) for one in arguments)
    )
    return jax.core.ShapedArray(out.shape, out.dtype)


@functools.cache
def _jitted(**parameters):
    return jax.jit(functools.partial(_native.bind, **parameters))


_native.def_impl(lambda *arguments, **parameters: _jitted(**parameters)(*arguments))


def _lower(context, *arguments, kernel, plain, how, **_):
    """Decided when the program is made for its devices: only then are they known."""
    on_cpu = context.module_context.platforms == ("cpu",)
    chosen = kernel if on_cpu and on_one_device(context) and native.available() else plain
    return mlir.lower_fun(functools.partial(chosen, **dict(how)), multiple_results=False)(context, *arguments)


mlir.register_lowering(_native, _lower)


def _jvp(primals, tangents, *, plain, how, **_):
    """As if `plain` had been written in its place: nothing is computed twice for the gradient."""
    varied = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of_varied(*some):
        every = list(primals)
        for i, one in zip(varied, some, strict=True):
            every[i] = one
        return plain(*every, **dict(how))

    return jax.jvp(of_varied, [primals[i] for i in varied], [tangents[i] for i in varied])


ad.primitive_jvps[_native] = _jvp


def _batch(arguments, axes, *, plain, maps, how, **others):
    if any(axis is not None for axis in axes[maps:]):
        return jax.vmap(functools.partial(plain, **dict(how)), axes)(*arguments), 0
    size = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None)

    def folded(a, axis):
        a = jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        return a.reshape(-1, *a.shape[2:])

    some = [folded(a, axis) for a, axis in zip(arguments[:maps], axes[:maps], strict=True)]
    out = _native.bind(*some, *arguments[maps:], plain=plain, maps=maps, how=how, **others)
    return out.reshape(size, -1, *out.shape[1:]), 0


batching.primitive_batchers[_native] = _batch


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array, *, then_gelu: bool = False) -> jax.Array:
    """x [..., I], kernel [I, O], bias [O] -> [..., O]."""
    return _call(
        "dav2_linear",
        (*x.shape[:-1], kernel.shape[1]),
        x.dtype,
        x,
        kernel.astype(x.dtype),
        bias,
        after=np.int32(then_gelu),
    )


def linear_residual(x, residual, kernel, bias, gamma) -> jax.Array:
    """residual + gamma * (x @ kernel + bias): x [..., I], residual [..., O], kernel [I, O], bias and gamma [O]."""
    return _call("dav2_linear_residual", residual.shape, x.dtype, x, residual, kernel.astype(x.dtype), bias, gamma)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float) -> jax.Array:
    """x [..., D], scale and bias [D] -> [..., D]; D a multiple of PANEL."""
    return _call("dav2_layer_norm", x.shape, x.dtype, x, scale, bias, eps=np.float32(eps))


def attention(qkv: jax.Array, *, heads: int) -> jax.Array:
    """[B, N, 3 D] -> [B, N, D]."""
    batch, n, packed = qkv.shape
    channels = packed // 3 // heads
    keys = n + 256 + 2 * PANEL * (n // 256 + 1)  # at most, each block being rounded up
    room = heads * keys * (channels + _rounded(channels))
    return _call("dav2_attention", (batch, n, packed // 3), qkv.dtype, qkv, heads=np.int32(heads), room=room)


def has_conv(kernel: jax.Array, *, stride: int, relu: bool, add: bool) -> bool:
    """Whether `conv` takes this convolution."""
    return kernel.shape[0] == 3 or (kernel.shape[0] == stride == 1 and not relu and not add)


def conv(x, *operands, stride: int, relu: bool, add: bool) -> jax.Array:
    """operands: residual [B, H', W', O] if `add`, kernel [k, k, I, O], bias [O]; x [B, H, W, I] -> [B, H', W', O]."""
    residual, kernel, bias = operands if add else (jnp.zeros(1), *operands)
    if kernel.shape[0] == 1:
        return linear(x, kernel[0, 0], bias)
    height, width = (-(-side // stride) for side in x.shape[1:3])
    shape = (x.shape[0], height, width, kernel.shape[3])
    how = {"stride": np.int32(stride), "relu": np.bool_(relu)}
    return _call(
        "dav2_conv", shape, x.dtype, x, residual, kernel.astype(x.dtype), bias, room=_kernel_room(kernel), **how
    )


def kept(x: jax.Array) -> jax.Array:
    """x, which XLA then computes once and keeps."""
    same = jax.ffi.ffi_call("dav2_kept", jax.ShapeDtypeStruct(x.shape, jnp.float32), input_output_aliases={0: 0})
    return same(x.astype(jnp.float32)).astype(x.dtype)


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [B, H, W, I], kernel [3, 3, I, O] -> [B, H, W, O]: `conv` and nothing else."""
    return conv(x, kernel, jnp.zeros(kernel.shape[3]), stride=1, relu=False, add=False)


def conv_kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """Of the sum of g * convolution(x, kernel), by the kernel: x [B, H, W, I], g [B, H, W, O] -> [3, 3, I, O]."""
    shape = (3, 3, x.shape[3], g.shape[3])
    floats = 9 * x.shape[3] * _rounded(g.shape[3])
    parts = max(2, min(32, x.shape[0] * x.shape[1], 2**24 // floats))  # up to 64 MB of sums
    return _call("dav2_conv_kernel_gradient", shape, x.dtype, x, g, parts=np.int32(parts), room=parts * floats)


def resize_conv(x, kernel, bias, *last, height: int, width: int) -> jax.Array:
    """As `ops.resize_conv`."""
    rows, columns = linear_taps(x.shape[1], height), linear_taps(x.shape[2], width)
    taps = [
        jnp.asarray(array, kind)
        for axis in (rows, columns)
        for array, kind in ((axis.index, jnp.int32), (axis.weight, jnp.float32))
    ]
    map_shape = (x.shape[0], height, width)
    if last:
        weights = jnp.concatenate([last[0].astype(x.dtype).reshape(-1), last[1].astype(jnp.float32)], dtype=jnp.float32)
        shape, dtype = map_shape, jnp.float32
    else:
        weights, shape, dtype = jnp.zeros(1), (*map_shape, kernel.shape[3]), x.dtype
    return _call(
        "dav2_conv_resized", shape, dtype, x, *taps, kernel.astype(x.dtype), bias, weights, room=_kernel_room(kernel)
    )


def _call(name: str, shape, dtype, *arguments, room: int = 0, **how) -> jax.Array:
    """room: floats that the kernel may write in; as a result of the call, they lie in XLA's own plan of the memory."""
    arguments = [one if one.dtype == jnp.int32 else one.astype(jnp.float32) for one in arguments]
    results = [jax.ShapeDtypeStruct(shape, jnp.float32)] + [jax.ShapeDtypeStruct((room,), jnp.float32)] * bool(room)
    return jax.ffi.ffi_call(name, results)(*arguments, **how)[0].astype(dtype)


def _kernel_room(kernel: jax.Array) -> int:
    return 16 * kernel.shape[2] * _rounded(kernel.shape[3])  # transformed, by Winograd


def _rounded(columns: int) -> int:
    return -(-columns // PANEL) * PANEL
