"""The C++ kernels as operations of JAX, for `dispatch.choose`.

Each rounds its weights to the dtype of its input, computes in float32 and returns that dtype. What it promises is what
its plain twin in `model.ops` and `model.conv` does. They can be traced where `build.library()` is there.
"""

import ctypes

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.image.resize import linear_taps
from dav2_jax.kernels.cpu import build

PANEL = 32  # a whole number of vectors on every processor


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
    scratch = _scratch("attention", n, heads, packed // 3 // heads)
    return _call("dav2_attention", (batch, n, packed // 3), qkv.dtype, qkv, heads=np.int32(heads), scratch=scratch)


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
    scratch = _scratch("conv", *kernel.shape[2:], stride)
    return _call("dav2_conv", shape, x.dtype, x, residual, kernel.astype(x.dtype), bias, scratch=scratch, **how)


def optimization_barrier(x: jax.Array) -> jax.Array:
    """x. XLA computes it once, because it does not look behind this call."""
    result = jax.ShapeDtypeStruct(x.shape, jnp.float32)
    barrier = jax.ffi.ffi_call("dav2_optimization_barrier", result, input_output_aliases={0: 0})
    return barrier(x.astype(jnp.float32)).astype(x.dtype)


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [B, H, W, I], kernel [3, 3, I, O] -> [B, H, W, O]: `conv` and nothing else."""
    return conv(x, kernel, jnp.zeros(kernel.shape[3]), stride=1, relu=False, add=False)


def conv_kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """Of the sum of g * convolution(x, kernel), by the kernel: x [B, H, W, I], g [B, H, W, O] -> [3, 3, I, O]."""
    shape = (3, 3, x.shape[3], g.shape[3])
    scratch = _scratch("conv_kernel_gradient", x.shape[0] * x.shape[1], x.shape[3], g.shape[3])
    return _call("dav2_conv_kernel_gradient", shape, x.dtype, x, g, scratch=scratch)


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
        "dav2_conv_resized",
        shape,
        dtype,
        x,
        *taps,
        kernel.astype(x.dtype),
        bias,
        weights,
        scratch=_scratch("conv", *kernel.shape[2:], 1),
    )


def _call(name: str, shape, dtype, *arguments, scratch: int | None = None, **how) -> jax.Array:
    """scratch: floats that the kernel writes in, a second result of the call and so part of XLA's memory plan."""
    arguments = [one if one.dtype == jnp.int32 else one.astype(jnp.float32) for one in arguments]
    shapes = [shape, (scratch,)] if scratch is not None else [shape]
    results = [jax.ShapeDtypeStruct(one, jnp.float32) for one in shapes]
    return jax.ffi.ffi_call(name, results)(*arguments, **how)[0].astype(dtype)


def _scratch(operation: str, *sizes: int) -> int:
    """Floats of scratch that the kernel needs for these sizes, by its own formula."""
    formula = getattr(build.library(), f"dav2_{operation}_scratch")
    formula.restype = ctypes.c_size_t
    return formula(*map(ctypes.c_size_t, sizes))
