"""Self-attention of a TPU in bfloat16: a Pallas kernel from the packed projection to the result, one for the gradient.

XLA writes the float32 scores to memory and reads them back: 1.5 GB a layer at ViT-S, 518 x 518 and batch 8. Here a
block of queries meets all keys at once in the chip's own memory, so the softmax is the plain one, and what crosses to
the memory outside is the projection, read once, and the result: 34 MB. Queries, keys and values are cut out of the
projection by the block specs, two heads of 64 channels to the 128 lanes of a register.

The gradient keeps nothing but the projection: the scores of a block of queries are computed again, where all keys are
at hand, so neither the result nor the sums of the softmax are needed.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128  # of a vector register: the granularity of the minor dimension
ROWS = 16  # the granularity of bfloat16 in the dimension before
MAX_TOKENS = 5632  # 1036 x 1036 pixels; keys, values and scores then take 11 MB of the 16 that every TPU core has
MAX_TOKENS_OF_GRADIENT = 2560  # 700 x 700 pixels; it also holds the gradients of keys and values, in float32
SCORES = 2**19  # of one head in a block of queries: 2 MB in float32


def supports(qkv: jax.Array, heads: int) -> bool:
    """Whether `attention` takes a projection [B, N, 3 D] of this type, width and length."""
    width = qkv.shape[2] // 3
    aligned = width % LANES == 0 and LANES % (width // heads) == 0
    return qkv.dtype == jnp.bfloat16 and aligned and qkv.shape[1] <= MAX_TOKENS


def supports_gradient(qkv: jax.Array) -> bool:
    """Whether `gradient` takes a projection that `attention` takes."""
    return qkv.shape[1] <= MAX_TOKENS_OF_GRADIENT


def attention(qkv: jax.Array, *, heads: int, interpret: bool = False) -> jax.Array:
    """Packed queries, keys and values [B, N, 3 D] bfloat16 -> softmax attention [B, N, D] bfloat16.

    interpret: run on any machine, slowly, to check the numbers.
    """
    batch, n, packed = qkv.shape
    width = packed // 3
    groups = width // LANES  # of heads that share the lanes
    blocks = -(-n * n // SCORES)
    block = min(n, -(-n // blocks // ROWS) * ROWS)  # blocks of about the same size
    queries = pl.BlockSpec((None, block, LANES), lambda b, g, i: (b, i, g))
    keys = pl.BlockSpec((None, n, LANES), lambda b, g, i: (b, 0, groups + g))
    values = pl.BlockSpec((None, n, LANES), lambda b, g, i: (b, 0, 2 * groups + g))
    return pl.pallas_call(
        functools.partial(_attend, channels=width // heads),
        grid=(batch, groups, pl.cdiv(n, block)),  # blocks of queries innermost: keys and values are read once
        in_specs=[queries, keys, values],
        out_specs=queries,
        out_shape=jax.ShapeDtypeStruct((batch, n, width), qkv.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=4 * batch * n * n * width,
            transcendentals=batch * heads * n * n,
            bytes_accessed=batch * n * 4 * width * qkv.dtype.itemsize,
        ),
        interpret=interpret,
        name="attention",
    )(qkv, qkv, qkv)


def _attend(q_ref, k_ref, v_ref, out_ref, *, channels: int):
    """q [Q, 128], k and v [N, 128] -> [Q, 128]; `channels` lanes a head.

    To pick a head, the lanes of the others are zeroed in the queries: the matrix unit takes 128 lanes in the time of
    64, and nothing has to be shifted.
    """
    head = lax.div(lax.broadcasted_iota(jnp.int32, q_ref.shape, 1), channels)
    q, k, v = q_ref[...] * (channels**-0.5), k_ref[...], v_ref[...]
    out = jnp.zeros(q.shape, jnp.float32)
    for index in range(LANES // channels):
        mine = jnp.where(head == index, q, 0)
        scores = _product(mine, k, 1, 1)  # [Q, N]
        weights = jnp.exp(scores - scores.max(-1, keepdims=True))
        total = weights.sum(-1, keepdims=True)
        mixed = _product(weights.astype(v.dtype), v, 1, 0)  # [Q, 128]
        out = jnp.where(head == index, mixed / total, out)
    out_ref[...] = out.astype(out_ref.dtype)


def gradient(qkv: jax.Array, cotangent: jax.Array, *, heads: int, interpret: bool = False) -> jax.Array:
    """Of `attention`, by its argument: [B, N, 3 D] bfloat16, from the cotangent [B, N, D] of its result."""
    batch, n, packed = qkv.shape
    width = packed // 3
    groups = width // LANES
    blocks = -(-n * n // SCORES)
    block = min(n, -(-n // blocks // LANES) * LANES)  # here queries lie along the lanes
    queries = pl.BlockSpec((None, block, LANES), lambda b, g, i: (b, i, g))
    keys = pl.BlockSpec((None, n, LANES), lambda b, g, i: (b, 0, groups + g))
    values = pl.BlockSpec((None, n, LANES), lambda b, g, i: (b, 0, 2 * groups + g))
    whole = pl.BlockSpec((None, n, LANES), lambda b, g, i: (b, 0, g))
    parts = pl.pallas_call(
        functools.partial(_attend_back, n=n, channels=width // heads),
        grid=(batch, groups, pl.cdiv(n, block)),
        in_specs=[queries, keys, values, queries],
        out_specs=[queries, whole, whole],
        out_shape=[jax.ShapeDtypeStruct((batch, n, width), qkv.dtype)] * 3,
        scratch_shapes=[pltpu.VMEM((n, LANES), jnp.float32)] * 2,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=10 * batch * n * n * width,
            transcendentals=batch * heads * n * n,
            bytes_accessed=batch * n * 7 * width * qkv.dtype.itemsize,
        ),
        interpret=interpret,
        name="attention_gradient",
    )(qkv, qkv, qkv, cotangent)
    return jnp.concatenate(parts, axis=2)


def _attend_back(
    q_ref, k_ref, v_ref, out_bar_ref, q_bar_ref, k_bar_ref, v_bar_ref, k_sum_ref, v_sum_ref, *, n, channels
):
    """q and the cotangent [Q, 128], k and v [N, 128] -> the gradients of all three; `channels` lanes a head.

    Scores are kept as keys x queries, so that of five products only that for q has to turn a factor round, and the
    smaller one. As in `_attend`, the lanes of other heads are zero in one factor of each product.
    """
    step, steps = pl.program_id(2), pl.num_programs(2)
    scale = channels**-0.5
    k, v = k_ref[...], v_ref[...]
    row = step * q_ref.shape[0] + lax.broadcasted_iota(jnp.int32, q_ref.shape, 0)
    q = jnp.where(row < n, q_ref[...] * scale, 0)  # beyond the last query, anything may lie
    out_bar = jnp.where(row < n, out_bar_ref[...], 0)

    @pl.when(step == 0)
    def _():
        k_sum_ref[...] = jnp.zeros_like(k_sum_ref)
        v_sum_ref[...] = jnp.zeros_like(v_sum_ref)

    head = lax.div(lax.broadcasted_iota(jnp.int32, q_ref.shape, 1), channels)
    q_bar = jnp.zeros(q.shape, jnp.float32)
    for index in range(LANES // channels):
        mine, mine_bar = (jnp.where(head == index, x, 0) for x in (q, out_bar))
        scores = _product(k, mine, 1, 1)  # [N, Q]
        weights = jnp.exp(scores - scores.max(0, keepdims=True))
        weights *= 1 / weights.sum(0, keepdims=True)
        v_sum_ref[...] += _product(weights.astype(v.dtype), mine_bar, 1, 0)
        weights_bar = _product(v, mine_bar, 1, 1)
        scores_bar = weights * (weights_bar - (weights * weights_bar).sum(0, keepdims=True))
        scores_bar = scores_bar.astype(k.dtype)
        k_sum_ref[...] += _product(scores_bar, mine, 1, 0)
        q_bar = jnp.where(head == index, _product(k, scores_bar, 0, 0).T, q_bar)
    q_bar_ref[...] = (q_bar * scale).astype(q_bar_ref.dtype)

    @pl.when(step == steps - 1)
    def _():
        k_bar_ref[...] = k_sum_ref[...].astype(k_bar_ref.dtype)
        v_bar_ref[...] = v_sum_ref[...].astype(v_bar_ref.dtype)


def _product(x: jax.Array, y: jax.Array, axis_of_x: int, axis_of_y: int) -> jax.Array:
    """Summed over these axes, in float32."""
    return lax.dot_general(x, y, (((axis_of_x,), (axis_of_y,)), ((), ())), preferred_element_type=jnp.float32)
