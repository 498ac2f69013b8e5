"""Every exact numeric in one place: what PyTorch and OpenCV compute, written out, nothing left to a default.

Maps are channels last: [B, H, W, C]; tokens are [B, N, D]. An op computes in the dtype of its input and accumulates
in float32; float32 inputs are multiplied as float32 on every platform (TPUs and GPUs would round them otherwise).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dav2_jax.image.resize import ResizeTaps, linear_taps
from dav2_jax.image.resize import cubic_taps as cubic_taps  # beside the other ops for those who use it
from dav2_jax.kernels.cpu import operations as cpu_kernel
from dav2_jax.kernels.tpu import attention as attention_tpu
from dav2_jax.kernels.tpu import operation as tpu_kernel
from dav2_jax.kernels.tpu import resize_conv as resize_conv_tpu
from dav2_jax.model import remat

PRECISION = lax.Precision.HIGHEST
LAYER_NORM_EPS = 1e-6


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., I] @ kernel [I, O] + bias [O]."""
    return remat.product(cpu_kernel.choose(cpu_kernel.linear, plain_linear, x, kernel, bias))


def plain_linear(x: jax.Array, kernel: jax.Array, bias: jax.Array, then_gelu: bool = False) -> jax.Array:
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    dot = functools.partial(
        lax.dot_general, dimension_numbers=dims, precision=PRECISION, preferred_element_type=jnp.float32
    )
    y = _product(dot, x, kernel.astype(x.dtype))
    y = (y + jnp.expand_dims(bias, range(x.ndim - 1)).astype(jnp.float32)).astype(x.dtype)
    return gelu(remat.product(y)) if then_gelu else y


def linear_gelu(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """gelu(linear(x, kernel, bias))"""
    return cpu_kernel.choose(cpu_kernel.linear, plain_linear, x, kernel, bias, then_gelu=True)


def gelu(x: jax.Array) -> jax.Array:
    """The exact one, with erf: PyTorch's default, not JAX's."""
    return jax.nn.gelu(x, approximate=False)


def linear_residual(
    x: jax.Array, residual: jax.Array, kernel: jax.Array, bias: jax.Array, gamma: jax.Array
) -> jax.Array:
    """residual + gamma * linear(x, kernel, bias): x [..., I], residual [..., O], kernel [I, O], bias and gamma [O]."""
    arguments = (x, residual, kernel, bias, gamma)
    return cpu_kernel.choose(cpu_kernel.linear_residual, plain_linear_residual, *arguments, maps=2)


def plain_linear_residual(x, residual, kernel, bias, gamma) -> jax.Array:
    y = remat.product(plain_linear(x, kernel, bias))
    return residual + y * jnp.expand_dims(gamma.astype(x.dtype), range(x.ndim - 1))


def _product(multiply, x: jax.Array, y: jax.Array) -> jax.Array:
    """multiply(x, y) accumulated in float32; a CPU first widens the operands to float32, which changes no value.

    XLA's products of bfloat16 are slow there: 165 (jax 0.10.2) and 220 GFLOP/s (0.12), against 285 of float32, on two
    cores with AVX-512. ViT-S takes 0.63 and 0.57 CPU seconds a core so, not 0.85 and 0.68; in float32 0.55 and 0.51.
    """
    if x.dtype == jnp.float32:
        return multiply(x, y)
    return lax.platform_dependent(
        x, y, cpu=lambda x, y: multiply(x.astype(jnp.float32), y.astype(jnp.float32)), default=multiply
    )


def _einsum(subscripts: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return _product(
        functools.partial(jnp.einsum, subscripts, precision=PRECISION, preferred_element_type=jnp.float32), x, y
    )


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Over the last axis, in float32. Two passes: DINOv2 has tokens of large norm, where E[x^2] - E[x]^2 cancels."""
    if x.shape[-1] % cpu_kernel.PANEL:
        return plain_layer_norm(x, scale, bias)
    return cpu_kernel.choose(cpu_kernel.layer_norm, plain_layer_norm, x, scale, bias, eps=LAYER_NORM_EPS)


def plain_layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float = LAYER_NORM_EPS) -> jax.Array:
    x32 = x.astype(jnp.float32)
    centered = x32 - x32.mean(-1, keepdims=True)
    normal = centered * lax.rsqrt((centered**2).mean(-1, keepdims=True) + eps)
    lead = range(x.ndim - 1)
    y = normal * jnp.expand_dims(scale, lead).astype(jnp.float32) + jnp.expand_dims(bias, lead).astype(jnp.float32)
    return y.astype(x.dtype)


def self_attention(qkv: jax.Array, heads: int) -> jax.Array:
    """Packed queries, keys and values [B, N, 3 D], in this order -> softmax attention [B, N, D], unmasked."""
    usual = functools.partial(cpu_kernel.choose, cpu_kernel.attention, plain_self_attention, heads=heads)
    if not attention_tpu.supports(qkv, heads):
        return usual(qkv)
    plain = functools.partial(plain_self_attention, heads=heads)
    kernel = functools.partial(attention_tpu.attention, heads=heads)
    gradient = functools.partial(attention_tpu.gradient, heads=heads) if attention_tpu.supports_gradient(qkv) else None
    return lax.platform_dependent(qkv, tpu=tpu_kernel.operation(kernel, plain, gradient), default=usual)


def plain_self_attention(qkv: jax.Array, heads: int) -> jax.Array:
    """`self_attention` in XLA's operations."""
    batch, n, packed = qkv.shape
    q, k, v = qkv.reshape(batch, n, 3, heads, packed // 3 // heads).transpose(2, 0, 3, 1, 4)  # [3, B, K, N, C]
    return attention(q, k, v).transpose(0, 2, 1, 3).reshape(batch, n, packed // 3)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Softmax attention, unmasked; q, k, v and the result are [B, K, N, C].

    The scores in memory at once are bounded, at any resolution: 8 MB on a CPU, where they stay in the cache and one
    head is taken at a time, and 2 GB elsewhere, which at ordinary sizes is all of them.
    """
    return lax.platform_dependent(
        q,
        k,
        v,
        cpu=functools.partial(_attention_by_head, scores=2**21),
        default=functools.partial(_attention_of_all_heads, scores=2**29),
    )


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """q [..., Q, C], already scaled; k, v [..., N, C] -> [..., Q, C]."""
    scores = _einsum("...qc,...nc->...qn", q, k)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    # Divided after the product: one pass less over the scores.
    return (_einsum("...qn,...nc->...qc", weights.astype(v.dtype), v) / total).astype(v.dtype)


def _attention_by_head(q: jax.Array, k: jax.Array, v: jax.Array, *, scores: int) -> jax.Array:
    """A loop over heads, and over blocks of queries where one head has more than `scores` scores.

    Measured on two cores with 6 heads of 1370 tokens: 17 ms a layer with jax 0.10.2 and 14 ms with 0.12, against 22
    and 17 ms for blocks of 229 queries of all heads. The product, the maximum and the exponential are one XLA fusion.
    """
    batch, heads, n, channels = q.shape
    q = q * (channels**-0.5)
    if batch * heads * n * n <= scores:
        return _attend(q, k, v)
    block = max(1, scores // n)
    out = lax.map(lambda head: _by_block(*head, block), [x.reshape(-1, 1, 1, n, channels) for x in (q, k, v)])
    return out.reshape(batch, heads, n, channels)


def _attention_of_all_heads(q: jax.Array, k: jax.Array, v: jax.Array, *, scores: int) -> jax.Array:
    batch, heads, n, channels = q.shape
    return _by_block(q * (channels**-0.5), k, v, max(1, scores // (batch * heads * n)))


def _by_block(q: jax.Array, k: jax.Array, v: jax.Array, block: int) -> jax.Array:
    """`_attend` for [B, K, N, C], `block` queries at a time."""
    batch, heads, n, channels = q.shape
    blocks = -(-n // block)
    if blocks == 1:
        return _attend(q, k, v)
    size = -(-n // blocks)  # even blocks: at most `blocks - 1` queries of padding
    q = jnp.pad(q, ((0, 0), (0, 0), (0, blocks * size - n), (0, 0)))
    q = q.reshape(batch, heads, blocks, size, channels).transpose(2, 0, 1, 3, 4)
    out = lax.map(lambda q_block: _attend(q_block, k, v), q).transpose(1, 2, 0, 3, 4)
    return out.reshape(batch, heads, blocks * size, channels)[:, :, :n]


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
    if not cpu_kernel.has_conv(kernel, **how):
        return plain_conv(x, *operands, **how)
    return cpu_kernel.choose(cpu_kernel.conv, plain_conv, x, *operands, maps=1 + how["add"], **how)


def plain_conv(x: jax.Array, *operands: jax.Array, stride: int, relu: bool, add: bool) -> jax.Array:
    """operands: what is added, if `add`; kernel [k, k, I, O]; bias [O]."""
    kernel, bias = operands[add:]
    x, kernel = jax.nn.relu(x) if relu else x, kernel.astype(x.dtype)
    y = _convolution(x, kernel) if stride == 1 and kernel.shape[0] == 3 else _convolve(x, kernel, stride)
    y = remat.product((y.astype(jnp.float32) + bias.astype(jnp.float32)[None, None, None]).astype(x.dtype))
    return y + operands[0] if add else y


@jax.custom_vjp
def _convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3 x 3, stride 1: both of its gradients are kernels on a CPU, where XLA's by the kernel took most of a step."""
    return cpu_kernel.choose(cpu_kernel.convolution, _convolve, x, kernel)


def _convolution_back(residuals, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    back = kernel[::-1, ::-1].swapaxes(2, 3)
    by_x = cpu_kernel.choose(cpu_kernel.convolution, _convolve, g, back)
    return by_x, cpu_kernel.choose(cpu_kernel.conv_kernel_gradient, _conv_kernel_gradient, x, g, maps=0)


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

    return _product(convolve, x, kernel)


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


def patches(images: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] -> [B, h, w, size * size * C]: the pixels of each patch, row by row, channels last."""
    batch, height, width, channels = images.shape
    h, w = height // size, width // size
    x = images.reshape(batch, h, size, w, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, h, w, size * size * channels)


def resample(x, taps: ResizeTaps, axis: int):
    """Resizes one axis of a NumPy or a JAX array, in the dtype of the array (at least float32 weights).

    The gradient gathers too: JAX's own would scatter, one number after another on a CPU, in no fixed order on a GPU.
    """
    if isinstance(x, np.ndarray):
        return _gather(x, taps, axis)
    forward = jax.custom_vjp(functools.partial(_gather, taps=taps, axis=axis))
    back = taps.transposed(x.shape[axis])
    forward.defvjp(lambda x: (_gather(x, taps, axis), None), lambda _, g: (_gather(g, back, axis),))
    return forward(x)


def _gather(x, taps: ResizeTaps, axis: int):
    shape = [1] * x.ndim
    shape[axis] = -1
    terms = (
        x.take(taps.index[:, t], axis=axis) * taps.weight[:, t].reshape(shape).astype(x.dtype)
        for t in range(taps.index.shape[1])
    )
    return functools.reduce(lambda total, term: total + term, terms)


def resize_bilinear(x: jax.Array, height: int, width: int) -> jax.Array:
    """[B, h, w, C] -> [B, height, width, C], corners aligned."""
    if x.shape[1:3] == (height, width):
        return x
    x = resample(x, linear_taps(x.shape[1], height), axis=1)
    return resample(x, linear_taps(x.shape[2], width), axis=2)


def resize_conv(x: jax.Array, height: int, width: int, kernel: jax.Array, bias: jax.Array, *last: jax.Array):
    """`resize_bilinear`, then `conv` with kernel [3, 3, I, O]: [B, h, w, I] -> [B, height, width, O].

    last: kernel [1, 1, O, 1] and bias [1] of another `conv` after a ReLU; the result is [B, height, width] float32.
    """
    size = {"height": height, "width": width}
    usual = functools.partial(cpu_kernel.choose, cpu_kernel.resize_conv, plain_resize_conv, **size)
    rows, columns = linear_taps(x.shape[1], height), linear_taps(x.shape[2], width)
    plan = resize_conv_tpu.plan(x, rows, columns, kernel.shape[3])
    if plan is None:
        return usual(x, kernel, bias, *last)
    plain = functools.partial(plain_resize_conv, **size)
    kernel_of_tpu = tpu_kernel.operation(functools.partial(resize_conv_tpu.resize_conv, plan=plan), plain)
    return lax.platform_dependent(x, kernel, bias, *last, tpu=kernel_of_tpu, default=usual)


def plain_resize_conv(x: jax.Array, *weights: jax.Array, height: int, width: int) -> jax.Array:
    how = {"stride": 1, "relu": False, "add": False}
    y = plain_conv(resize_bilinear(x, height, width), *weights[:2], **how)
    if not weights[2:]:
        return y
    kernel, bias = weights[2:]
    return plain_linear(jax.nn.relu(y), kernel[0, 0], bias)[..., 0].astype(jnp.float32)
