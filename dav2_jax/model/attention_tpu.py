"""Self-attention of a TPU in bfloat16: one Pallas kernel from the packed projection to the result.

XLA writes the float32 scores to memory and reads them back: 1.5 GB a layer at ViT-S, 518 x 518 and batch 8. Here a
block of queries meets all keys at once in the chip's own memory, so the softmax is the plain one, and what crosses to
the memory outside is the projection, read once, and the result: 34 MB. Queries, keys and values are cut out of the
projection by the block specs, two heads of 64 channels to the 128 lanes of a register; nothing is transposed.
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
SCORES = 2**19  # of one head in a block of queries: 2 MB in float32


def supports(qkv: jax.Array, heads: int) -> bool:
    """Whether `attention` takes a projection [B, N, 3 D] of this type, width and length."""
    width = qkv.shape[2] // 3
    aligned = width % LANES == 0 and LANES % (width // heads) == 0
    return qkv.dtype == jnp.bfloat16 and aligned and qkv.shape[1] <= MAX_TOKENS


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
        scores = lax.dot_general(mine, k, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)  # [Q, N]
        weights = jnp.exp(scores - scores.max(-1, keepdims=True))
        total = weights.sum(-1, keepdims=True)
        mixed = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)  # [Q, 128]
        out = jnp.where(head == index, mixed / total, out)
    out_ref[...] = out.astype(out_ref.dtype)
