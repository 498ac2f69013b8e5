"""Convolutions of the head, alone and after a resize. Maps are channels last: [B, H, W, C]."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from dav2_jax.image.resize import linear_taps
from dav2_jax.kernels.cpu import operations as cpu
from dav2_jax.kernels.dispatch import choose, plain_only
from dav2_jax.kernels.tpu import resize_conv as tpu
from dav2_jax.model.ops import PRECISION, float32_sums, linear, plain_linear, resize_bilinear
from dav2_jax.model.remat import product


def conv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    *,
    stride: int = 1,
    relu: bool = False,
    add: jax.Array | None = None,
) -> jax.Array:
    """Square convolution with PyTorch's padding (k - 1) / 2 on every side; kernel [k, k, I, O].

    relu: of x first; add: something of the shape of the result, which is added to it.
    Written-out padding, because "SAME" pads (0, 1) where PyTorch pads (1, 1) when the stride is 2 and the side even.
    """
    if bias is not None and kernel.shape[0] == kernel.shape[3] == stride == 1:
        return linear(x, kernel[0, 0], bias)  # as a convolution, 25 ms and not 11 with jax 0.10.2 on a CPU
    operands = (kernel, jnp.zeros(kernel.shape[3], kernel.dtype) if bias is None else bias)
    operands = operands if add is None else (add, *operands)
    how = {"stride": stride, "relu": relu, "add": add is not None}
    kernel_of_cpu = cpu.conv if cpu.has_conv(kernel, **how) else None
    return choose(plain_conv, x, *operands, cpu=kernel_of_cpu, batched=1 + how["add"], **how)


def plain_conv(x: jax.Array, *operands: jax.Array, stride: int, relu: bool, add: bool) -> jax.Array:
    """operands: what is added, if `add`; kernel [k, k, I, O]; bias [O]."""
    kernel, bias = operands[add:]
    x, kernel = jax.nn.relu(x) if relu else x, kernel.astype(x.dtype)
    own_gradient = stride == 1 and kernel.shape[0] == 3 and not plain_only()
    y = _convolution(x, kernel) if own_gradient else _convolve(x, kernel, stride)
    y = product((y.astype(jnp.float32) + bias.astype(jnp.float32)[None, None, None]).astype(x.dtype))
    return y + operands[0] if add else y


@jax.custom_vjp
def _convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3 x 3, stride 1: both of its gradients are kernels on a CPU, where XLA's by the kernel took most of a step."""
    return choose(_convolve, x, kernel, cpu=cpu.convolution)


def _convolution_back(residuals, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    back = kernel[::-1, ::-1].swapaxes(2, 3)
    by_x = choose(_convolve, g, back, cpu=cpu.convolution)
    return by_x, choose(_conv_kernel_gradient, x, g, cpu=cpu.conv_kernel_gradient, batched=0)


_convolution.defvjp(lambda x, kernel: (_convolution(x, kernel), (x, kernel)), _convolution_back)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    pad = (kernel.shape[0] - 1) // 2

    def convolve(x_, kernel_):
        y = lax.conv_general_dilated(
            x_,
            kernel_,
            window_strides=(stride, stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=PRECISION,
            preferred_element_type=x_.dtype,  # not wider: a TPU would store the wider map; sums are in float32 anyway
        )
        return y.astype(x.dtype)

    return float32_sums(convolve, x, kernel)


def _conv_kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[3], g.shape[3]), x.dtype)
    return jax.linear_transpose(functools.partial(_convolve, x), kernel)(g)[0]


def conv_transpose(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Transposed convolution whose stride equals its kernel size: every pixel becomes its own k x k tile.

    kernel [k, k, I, O], not flipped: out[h k + i, w k + j] = x[h, w] @ kernel[i, j] + bias, as in PyTorch.
    """
    batch, height, width, _ = x.shape
    k, _, _, out = kernel.shape
    channels = kernel.shape[2]
    tiles = linear(x, kernel.transpose(2, 0, 1, 3).reshape(channels, k * k * out), jnp.tile(bias, k * k))
    tiles = tiles.reshape(batch, height, width, k, k, out).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(batch, height * k, width * k, out)


def resize_conv(x: jax.Array, height: int, width: int, kernel: jax.Array, bias: jax.Array, *last: jax.Array):
    """`resize_bilinear`, then `conv` with kernel [3, 3, I, O]: [B, h, w, I] -> [B, height, width, O].

    last: kernel [1, 1, O, 1] and bias [1] of another `conv` after a ReLU; the result is [B, height, width] float32.
    """
    plan = tpu.plan(x, linear_taps(x.shape[1], height), linear_taps(x.shape[2], width), kernel.shape[3])
    kernel_of_tpu = plan and functools.partial(tpu.resize_conv, plan=plan)
    size = {"height": height, "width": width}
    return choose(plain_resize_conv, x, kernel, bias, *last, cpu=cpu.resize_conv, tpu=kernel_of_tpu, **size)


def plain_resize_conv(x: jax.Array, *weights: jax.Array, height: int, width: int) -> jax.Array:
    how = {"stride": 1, "relu": False, "add": False}
    y = plain_conv(resize_bilinear(x, height, width), *weights[:2], **how)
    if not weights[2:]:
        return y
    kernel, bias = weights[2:]
    return plain_linear(jax.nn.relu(y), kernel[0, 0], bias)[..., 0].astype(jnp.float32)
