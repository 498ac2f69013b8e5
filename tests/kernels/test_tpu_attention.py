"""The attention kernel of TPUs, run by Pallas' interpreter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav2_jax.kernels.tpu import attention as attention_tpu
from dav2_jax.model import ops


def packed(*shape):
    return jnp.asarray(2 * np.random.default_rng(0).standard_normal(shape), jnp.bfloat16)


def error(ours, qkv, heads):
    exact = ops.self_attention(qkv.astype(jnp.float32), heads)
    assert ours.shape == exact.shape
    return np.linalg.norm(np.float32(ours) - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("n", "width", "heads"),
    [(1, 128, 2), (17, 256, 4), (200, 128, 1), (200, 128, 4), (750, 128, 2)],  # 750: two blocks, the second not full
)
def test_numbers(n, width, heads):
    qkv = packed(2, n, 3 * width)
    ours = attention_tpu.attention(qkv, heads=heads, interpret=True)
    assert ours.dtype == jnp.bfloat16
    assert error(ours, qkv, heads) <= 1.05 * error(ops.plain_self_attention(qkv, heads), qkv, heads) < 5e-3


@pytest.mark.parametrize(
    ("n", "width", "heads"),
    [(1, 128, 2), (17, 256, 4), (200, 128, 1), (200, 128, 4), (750, 128, 2)],
)
def test_numbers_of_the_gradient(n, width, heads):
    """Of queries, keys and values: as near to float32 as XLA's operations in bfloat16, or the rounding of bfloat16."""
    qkv, cotangent = packed(2, n, 3 * width), packed(2, n, width)[..., ::-1]
    ours = attention_tpu.gradient(qkv, cotangent, heads=heads, interpret=True)
    assert ours.dtype == jnp.bfloat16
    attend = functools.partial(ops.self_attention, heads=heads)
    theirs = jax.vjp(attend, qkv)[1](cotangent)[0]
    exact = jax.vjp(attend, qkv.astype(jnp.float32))[1](cotangent.astype(jnp.float32))[0]
    for part in range(3):
        a, b, c = (np.float32(x[..., part * width : (part + 1) * width]) for x in (ours, theirs, exact))
        size = np.linalg.norm(np.float32(cotangent))
        assert np.linalg.norm(a - c) <= max(np.linalg.norm(b - c), 2**-7 * np.linalg.norm(c)) + 1e-6 * size


def test_large_scores_do_not_overflow():
    qkv = packed(1, 40, 3 * 128) * 60
    assert error(attention_tpu.attention(qkv, heads=2, interpret=True), qkv, 2) < 5e-3


@pytest.mark.parametrize(
    ("shape", "dtype", "heads", "kernel"),
    [
        ((2, 20, 3 * 128), jnp.bfloat16, 2, True),
        ((2, 20, 3 * 128), jnp.float32, 2, False),  # stays exact
        ((2, 20, 3 * 192), jnp.bfloat16, 3, False),  # no whole number of lanes
        ((2, 6000, 3 * 128), jnp.bfloat16, 2, False),  # would not fit on the chip
    ],
)
def test_where_the_kernel_is_used(shape, dtype, heads, kernel):
    traced = jax.jit(functools.partial(ops.self_attention, heads=heads)).trace(jax.ShapeDtypeStruct(shape, dtype))
    assert ("tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()) == kernel
    for other in ("cpu", "cuda"):
        assert "tpu_custom_call" not in traced.lower(lowering_platforms=(other,)).as_text()


@pytest.mark.parametrize(("n", "kernels"), [(20, 2), (3000, 1)])  # 3000: all that the gradient holds would not fit
def test_where_the_gradient_is_a_kernel(n, kernels):
    def total(qkv):
        return (ops.self_attention(qkv, 2).astype(jnp.float32) ** 2).sum()

    traced = jax.jit(jax.grad(total)).trace(jax.ShapeDtypeStruct((1, n, 3 * 128), jnp.bfloat16))
    assert traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") == kernels
