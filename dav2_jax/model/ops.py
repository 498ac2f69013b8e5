"""Every exact numeric in one place: what PyTorch and OpenCV compute, written out, nothing left to a default.

Tokens are [B, N, D], maps [B, H, W, C]. An op computes in the dtype of its input and accumulates in float32; float32
inputs are multiplied as float32 on every platform (TPUs and GPUs would round them otherwise). Convolutions: `conv.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dav2_jax.image.resize import ResizeTaps, linear_taps
from dav2_jax.image.resize import cubic_taps as cubic_taps  # beside the other ops for those who use it
from dav2_jax.kernels.cpu import operations as cpu
from dav2_jax.kernels.dispatch import choose, plain_only
from dav2_jax.kernels.tpu import attention as tpu
from dav2_jax.model.remat import product

PRECISION = lax.Precision.HIGHEST
LAYER_NORM_EPS = 1e-6


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., I] @ kernel [I, O] + bias [O]."""
    return product(choose(plain_linear, x, kernel, bias, cpu=cpu.linear))


def plain_linear(x: jax.Array, kernel: jax.Array, bias: jax.Array, then_gelu: bool = False) -> jax.Array:
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    dot = functools.partial(
        lax.dot_general, dimension_numbers=dims, precision=PRECISION, preferred_element_type=jnp.float32
    )
    y = float32_sums(dot, x, kernel.astype(x.dtype))
    y = (y + jnp.expand_dims(bias, range(x.ndim - 1)).astype(jnp.float32)).astype(x.dtype)
    return gelu(product(y)) if then_gelu else y


def linear_gelu(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """gelu(linear(x, kernel, bias))"""
    return choose(plain_linear, x, kernel, bias, cpu=cpu.linear, then_gelu=True)


def gelu(x: jax.Array) -> jax.Array:
    """The exact one, with erf: PyTorch's default, not JAX's."""
    return jax.nn.gelu(x, approximate=False)


def linear_residual(
    x: jax.Array, residual: jax.Array, kernel: jax.Array, bias: jax.Array, gamma: jax.Array
) -> jax.Array:
    """residual + gamma * linear(x, kernel, bias): x [..., I], residual [..., O], kernel [I, O], bias and gamma [O]."""
    return choose(plain_linear_residual, x, residual, kernel, bias, gamma, cpu=cpu.linear_residual, batched=2)


def plain_linear_residual(x, residual, kernel, bias, gamma) -> jax.Array:
    y = product(plain_linear(x, kernel, bias))
    return residual + y * jnp.expand_dims(gamma.astype(x.dtype), range(x.ndim - 1))


def float32_sums(multiply, x: jax.Array, y: jax.Array) -> jax.Array:
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
    return float32_sums(
        functools.partial(jnp.einsum, subscripts, precision=PRECISION, preferred_element_type=jnp.float32), x, y
    )


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Over the last axis, in float32. Two passes: DINOv2 has tokens of large norm, where E[x^2] - E[x]^2 cancels."""
    kernel = None if x.shape[-1] % cpu.PANEL else cpu.layer_norm
    return choose(plain_layer_norm, x, scale, bias, cpu=kernel, eps=LAYER_NORM_EPS)


def plain_layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float = LAYER_NORM_EPS) -> jax.Array:
    x32 = x.astype(jnp.float32)
    centered = x32 - x32.mean(-1, keepdims=True)
    normal = centered * lax.rsqrt((centered**2).mean(-1, keepdims=True) + eps)
    lead = range(x.ndim - 1)
    y = normal * jnp.expand_dims(scale, lead).astype(jnp.float32) + jnp.expand_dims(bias, lead).astype(jnp.float32)
    return y.astype(x.dtype)


def self_attention(qkv: jax.Array, heads: int) -> jax.Array:
    """Packed queries, keys and values [B, N, 3 D], in this order -> softmax attention [B, N, D], unmasked."""
    kernel = gradient = None
    if tpu.supports(qkv, heads):
        kernel = functools.partial(tpu.attention, heads=heads)
        gradient = functools.partial(tpu.gradient, heads=heads) if tpu.supports_gradient(qkv) else None
    return choose(plain_self_attention, qkv, cpu=cpu.attention, tpu=kernel, tpu_gradient=gradient, heads=heads)


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
    if isinstance(batch, int) and batch * heads * n * n <= scores:  # `jax.export` may leave the batch open
        return _attend(q, k, v)
    block = max(1, scores // n)
    out = lax.map(lambda head: _by_block(*head, block), [x.reshape(-1, 1, 1, n, channels) for x in (q, k, v)])
    return out.reshape(batch, heads, n, channels)


def _attention_of_all_heads(q: jax.Array, k: jax.Array, v: jax.Array, *, scores: int) -> jax.Array:
    batch, heads, n, channels = q.shape
    images = batch if isinstance(batch, int) else 1
    return _by_block(q * (channels**-0.5), k, v, max(1, scores // (images * heads * n)))


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
    if isinstance(x, np.ndarray) or plain_only():
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
