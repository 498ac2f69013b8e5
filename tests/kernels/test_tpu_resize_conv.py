"""The kernel of TPUs that resizes and convolves, run by Pallas' interpreter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav2_jax.kernels.tpu import resize_conv as resize_conv_tpu
from dav2_jax.model import conv, ops

rng = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def kernel(x, height, width, *weights):
    rows, columns = ops.linear_taps(x.shape[1], height), ops.linear_taps(x.shape[2], width)
    plan = resize_conv_tpu.plan(x, rows, columns, weights[0].shape[3])
    return resize_conv_tpu.resize_conv(x, *weights, plan=plan, interpret=True), plan.strip


def both(x, height, width, *weights):
    """(the kernel's, the plain one in bfloat16), relative L2 errors against the plain one in float32"""
    ours, _ = kernel(x, height, width, *weights)
    plain = conv.plain_resize_conv(x, *weights, height=height, width=width)
    exact = conv.resize_conv(x.astype(jnp.float32), height, width, *weights)
    assert (ours.shape, ours.dtype) == (plain.shape, plain.dtype)
    return [np.linalg.norm(np.float32(y) - exact) / np.linalg.norm(exact) for y in (ours, plain)]


@pytest.mark.parametrize(
    ("source", "target", "channels", "outputs"),
    [
        ((8, 12), (14, 21), 32, 32),
        ((24, 30), (70, 84), 32, 16),  # three strips, the last not full
        ((2, 3), (3, 3), 16, 32),
        ((2, 1), (2, 2), 16, 16),
        ((40, 16), (80, 128), 48, 32),  # the width a multiple of the lanes
    ],
)
def test_numbers(source, target, channels, outputs):
    x = normal(2, *source, channels).astype(jnp.bfloat16)
    weights = normal(3, 3, channels, outputs), normal(outputs)
    ours, plain = both(x, *target, *weights)
    assert ours <= plain + 1e-5 < 5e-3
    ours, plain = both(x, *target, *weights, normal(1, 1, outputs, 1), normal(1))
    assert ours <= plain + 1e-5 < 1e-2


def test_less_memory_is_more_strips(monkeypatch):
    x, weights = normal(1, 24, 12, 16).astype(jnp.bfloat16), (normal(3, 3, 16, 16), normal(16))
    few, strip = kernel(x, 42, 21, *weights)
    assert strip == 32
    monkeypatch.setattr(resize_conv_tpu, "MEMORY", 400_000)
    many, strip = kernel(x, 42, 21, *weights)
    assert strip == 16
    np.testing.assert_array_equal(few, many)


@pytest.mark.parametrize(
    ("shape", "dtype", "outputs", "kernel"),
    [
        ((2, 8, 8, 32), jnp.bfloat16, 32, True),
        ((2, 8, 8, 32), jnp.float32, 32, False),  # stays exact
        ((2, 8, 8, 24), jnp.bfloat16, 32, False),  # half a register
        ((2, 1, 8, 32), jnp.bfloat16, 32, False),  # a single row
        ((2, 8, 20_000, 384), jnp.bfloat16, 192, False),  # would not fit on the chip
    ],
)
def test_where_the_kernel_is_used(shape, dtype, outputs, kernel):
    def apply(x, kernel, bias):
        return conv.resize_conv(x, 2 * x.shape[1], 2 * x.shape[2], kernel, bias)

    weights = jnp.zeros((3, 3, shape[3], outputs)), jnp.zeros(outputs)
    traced = jax.jit(apply).trace(jax.ShapeDtypeStruct(shape, dtype), *weights)
    assert ("tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()) == kernel
    for other in ("cpu", "cuda"):
        assert "tpu_custom_call" not in traced.lower(lowering_platforms=(other,)).as_text()
