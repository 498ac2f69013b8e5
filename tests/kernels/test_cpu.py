"""The C++ kernels for CPUs, against float64 and against XLA's operations, and where which of the two runs."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.special import erf

from dav2_jax.kernels import cpu as native
from dav2_jax.kernels import dispatch
from dav2_jax.model import conv, ops, remat

TOLERANCE = 1e-6  # relative L2, as of every op


@pytest.fixture(autouse=True)
def built():
    assert native.available(), "the tests need a C++ compiler"


def normal(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def error(ours, exact) -> float:
    ours, exact = np.asarray(ours, np.float64), np.asarray(exact, np.float64)
    assert ours.shape == exact.shape
    return np.linalg.norm(ours - exact) / np.linalg.norm(exact)


def torch64(x: np.ndarray) -> torch.Tensor:
    """Channels first, float64."""
    return torch.from_numpy(np.asarray(x, np.float64)).movedim(-1, 1)


def conv64(x, kernel, bias, stride=1) -> np.ndarray:
    weight = torch.from_numpy(kernel.astype(np.float64)).permute(3, 2, 0, 1)
    y = F.conv2d(torch64(x), weight, torch.from_numpy(bias.astype(np.float64)), stride, kernel.shape[0] // 2)
    return y.movedim(1, -1).numpy()


# Rows, depths and columns that fill tiles, chunks, passes and blocks, and that do not.
SHAPES = [(1, 1, 1), (5, 7, 3), (96, 384, 96), (97, 385, 97), (300, 800, 33), (1370, 96, 128), (14, 4096, 192)]


@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
def test_linear(rows, depth, columns):
    x, kernel, bias = normal(2, rows, depth), normal(depth, columns, seed=1), normal(columns, seed=2)
    kernel /= np.float32(depth**0.5)
    exact = x.astype(np.float64) @ kernel + bias
    assert error(ops.linear(x, kernel, bias), exact) < TOLERANCE
    assert error(ops.linear_gelu(x, kernel, bias), exact / 2 * (1 + erf(exact / 2**0.5))) < TOLERANCE
    residual, gamma = normal(2, rows, columns, seed=3), normal(columns, seed=4)
    assert error(ops.linear_residual(x, residual, kernel, bias, gamma), residual + gamma * exact) < TOLERANCE


def test_gelu_of_every_size():
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, 1e-30, -1e-30, 1e30, -1e30]]).astype(np.float32)
    ours = np.asarray(ops.linear_gelu(x[:, None], np.ones((1, 1), np.float32), np.zeros(1, np.float32)))[:, 0]
    x = x.astype(np.float64)
    np.testing.assert_allclose(ours, x / 2 * (1 + erf(x / 2**0.5)), rtol=5e-7, atol=1e-6)


@pytest.mark.parametrize("width", [32, 384, 1536])
def test_layer_norm(width):
    x, scale, bias = 3 * normal(2, 70, width) + 100, normal(width, seed=1), normal(width, seed=2)
    x64 = x.astype(np.float64)
    exact = (x64 - x64.mean(-1, keepdims=True)) / np.sqrt(x64.var(-1, keepdims=True) + ops.LAYER_NORM_EPS)
    assert (
        error(ops.layer_norm(x, scale, bias), exact * scale + bias) < 1e-5
    )  # of an offset of 100, two digits are lost
    assert error(ops.layer_norm(x - 100, scale, bias), exact * scale + bias) < TOLERANCE


@pytest.mark.parametrize(
    ("batch", "n", "heads", "channels"),
    [(1, 1, 1, 8), (2, 17, 3, 16), (1, 96, 2, 64), (1, 257, 2, 64), (2, 530, 1, 40), (1, 1370, 1, 64)],
)
def test_attention(batch, n, heads, channels):
    qkv = 2 * normal(batch, n, 3 * heads * channels)
    q, k, v = qkv.astype(np.float64).reshape(batch, n, 3, heads, channels).transpose(2, 0, 3, 1, 4)
    exact = F.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v))).movedim(1, 2).reshape(batch, n, -1)
    assert error(ops.self_attention(qkv, heads), exact) < TOLERANCE


@pytest.mark.parametrize("order", [1, -1])
def test_attention_of_scores_that_rise_or_fall(order):
    """Blocks of keys whose largest score grows have to fade what was summed before; exp must not overflow."""
    n, channels = 600, 16
    q, k = np.ones((n, channels), np.float32), np.linspace(-40, 40, n, dtype=np.float32)[::order, None]
    qkv = np.concatenate([q, k * np.ones_like(q), normal(n, channels)], -1)[None]
    parts = (torch.from_numpy(x.astype(np.float64))[None] for x in np.split(qkv, 3, -1))
    exact = F.scaled_dot_product_attention(*parts)[0]
    assert error(ops.self_attention(qkv, 1), exact) < 2e-5  # a score of 160 is rounded by as much as 8e-6


# Winograd and not, odd sides, channels that are no whole vectors, one row, one pixel.
MAPS = [
    (1, 37, 37, 64, 64),
    (2, 5, 7, 32, 48),
    (1, 2, 1, 32, 33),
    (1, 9, 12, 16, 8),
    (1, 6, 101, 384, 64),
    (1, 1, 1, 3, 5),
]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("batch", "height", "width", "inputs", "outputs"), MAPS)
def test_conv(batch, height, width, inputs, outputs, stride):
    x, kernel, bias = normal(batch, height, width, inputs), normal(3, 3, inputs, outputs, seed=1), normal(outputs)
    exact = conv64(x, kernel, bias, stride)
    assert error(conv.conv(x, kernel, bias, stride=stride), exact) < TOLERANCE
    assert error(conv.conv(x, kernel, None, stride=stride), exact - bias) < TOLERANCE
    add = normal(*exact.shape, seed=2)
    ours = conv.conv(x, kernel, bias, stride=stride, relu=True, add=add)
    assert error(ours, conv64(np.maximum(x, 0), kernel, bias, stride) + add) < TOLERANCE


@pytest.mark.parametrize(("batch", "height", "width", "inputs", "outputs"), [*MAPS, (40, 3, 3, 7, 20)])
def test_gradient_of_conv(batch, height, width, inputs, outputs):
    x, kernel = normal(batch, height, width, inputs), normal(3, 3, inputs, outputs, seed=1)
    bias, g = normal(outputs), normal(batch, height, width, outputs, seed=2)
    leaves = torch64(x).requires_grad_(), torch.from_numpy(kernel.astype(np.float64)).requires_grad_()
    y = F.conv2d(leaves[0].relu(), leaves[1].permute(3, 2, 0, 1), padding=1)
    exact = torch.autograd.grad(y, leaves, torch64(g))
    total = lambda x, kernel: (conv.conv(x, kernel, bias, relu=True) * g).sum()  # noqa: E731
    by_x, by_kernel = jax.jit(jax.grad(total, (0, 1)))(x, kernel)
    assert error(by_x, exact[0].movedim(1, -1)) < TOLERANCE
    assert error(by_kernel, exact[1]) < TOLERANCE


def test_gradient_of_conv_is_made_by_kernels_on_a_cpu_alone():
    x, kernel, bias = normal(1, 5, 5, 8), normal(3, 3, 8, 8), normal(8)
    traced = jax.jit(jax.grad(lambda kernel: conv.conv(x, kernel, bias).sum())).trace(kernel)
    assert "dav2_conv_kernel_gradient" in traced.lower(lowering_platforms=("cpu",)).as_text()
    for other in ("tpu", "cuda"):
        assert "dav2" not in traced.lower(lowering_platforms=(other,)).as_text()


def test_a_barrier_is_there_in_gradients_on_a_cpu_alone():
    traced = jax.jit(jax.grad(lambda x: (remat.optimization_barrier(x) ** 3).sum())).trace(X)
    np.testing.assert_allclose(traced.lower().compile()(X), 3 * X**2, rtol=1e-6)
    assert "dav2_optimization_barrier" in traced.lower(lowering_platforms=("cpu",)).as_text()
    for other in ("tpu", "cuda"):
        assert "dav2_optimization_barrier" not in traced.lower(lowering_platforms=(other,)).as_text()


def test_gradient_of_conv_in_bfloat16_and_of_each_image_and_of_a_gradient():
    x, kernel, bias = normal(3, 6, 5, 8), normal(3, 3, 8, 4), normal(4)

    def total(x, kernel):
        return (conv.conv(x, kernel, bias).astype(jnp.float32) ** 2).sum()

    by_kernel = jax.grad(total, 1)
    whole = by_kernel(x, kernel)
    rounded = by_kernel(*(jnp.asarray(a, jnp.bfloat16) for a in (x, kernel)))
    assert rounded.dtype == jnp.bfloat16
    assert error(rounded, whole) < 0.01
    each = jax.jit(jax.vmap(lambda one: by_kernel(one[None], kernel)))(x)
    assert error(each.sum(0), whole) < TOLERANCE
    way = normal(3, 3, 8, 4, seed=3)  # total is a square of the kernel: its second derivative does not depend on it
    second = jax.grad(lambda kernel: (by_kernel(x, kernel) * way).sum())
    assert error(second(kernel), second(0 * kernel)) < TOLERANCE
    assert error(second(kernel), by_kernel(x, kernel + way) - whole) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(10, 21), (5, 7), (3, 2)])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 32), (16, 8)])
def test_conv_of_a_resized_map(height, width, inputs, outputs):
    x, kernel, bias = normal(2, 5, 7, inputs), normal(3, 3, inputs, outputs, seed=1), normal(outputs)
    large = F.interpolate(torch64(x), (height, width), mode="bilinear", align_corners=True).movedim(1, -1).numpy()
    exact = conv64(large, kernel, bias)
    assert error(conv.resize_conv(x, height, width, kernel, bias), exact) < TOLERANCE
    last = normal(1, 1, outputs, 1), normal(1)
    exact = np.maximum(exact, 0) @ last[0][0, 0, :, 0].astype(np.float64) + last[1]
    assert error(conv.resize_conv(x, height, width, kernel, bias, *last), exact) < TOLERANCE


def test_bfloat16_is_computed_in_float32():
    x, kernel, bias = (jnp.asarray(a, jnp.bfloat16) for a in (normal(20, 64), normal(64, 32), normal(32)))
    ours = ops.linear(x, kernel, bias)
    assert ours.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64) + np.asarray(bias, np.float64)
    np.testing.assert_allclose(np.asarray(ours, np.float64), exact, rtol=2**-8)


def test_not_a_number_stays_one():
    x = normal(1, 4, 4, 32)
    x[0, 1, 2, 3] = np.nan
    kernel, bias = normal(3, 3, 32, 32), normal(32)
    assert np.isnan(conv.conv(x, kernel, bias, relu=True)[0, 1, 2]).all()
    assert np.isnan(conv.resize_conv(x, 8, 8, kernel, bias, normal(1, 1, 32, 1), normal(1))).any()
    assert np.isnan(ops.linear_gelu(x, kernel[0, 0], bias)[0, 1, 2]).all()
    assert np.isnan(ops.self_attention(np.tile(x.reshape(1, 16, 32), 3), 1)).all()
    assert np.isnan(ops.layer_norm(x, bias, bias)[0, 1, 2]).all()


def test_two_runs_give_the_same_bits():
    qkv, (x, kernel, bias) = normal(1, 400, 192), (normal(2, 30, 40, 32), normal(3, 3, 32, 64), normal(64))
    of_kernel = jax.grad(lambda kernel: (conv.conv(x, kernel, bias) ** 2).sum())
    run = jax.jit(
        lambda: (
            ops.self_attention(qkv, 2),
            conv.conv(x, kernel, bias),
            of_kernel(kernel),
            ops.linear(x, kernel[0, 0], bias),
        )
    )
    first = run()
    for _ in range(5):
        jax.tree.map(np.testing.assert_array_equal, run(), first)


TAPS = np.int32([[0, 1], [1, 1], [1, 2]]), np.full((3, 2), 0.5, np.float32)  # from three rows or columns to three
KERNEL, MAP = normal(3, 3, 8, 4), normal(2, 3, 3, 8)


@pytest.mark.parametrize(
    ("kernel", "operands", "results", "how", "fault"),
    [
        ("linear", [(2, 5), (3,), (4,)], [(2, 4)], {"after": 0}, "kernel must be [*, *], not [3]"),
        ("linear", [(2, 5), (3, 4), (4,)], [(2, 4)], {"after": 0}, "x must be [..., 3], not [2, 5]"),
        ("linear", [(), (3, 4), (4,)], [(4,)], {"after": 0}, "x must be [..., 3], not []"),
        ("linear", [(2, 3), (3, 4), (1,)], [(2, 4)], {"after": 0}, "bias must be [4], not [1]"),
        ("linear", [(2, 3), (3, 4), (4,)], [(2, 3)], {"after": 0}, "the result must be [2, 4], not [2, 3]"),
        ("linear", [(2, 3), (3, 4), (4,)], [(2, 4)], {"after": 2}, "after must be 0 (nothing) or 1 (GELU), not 2"),
        ("linear", [(2, 0), (0, 4), (4,)], [(2, 4)], {"after": 0}, "x must have channels"),
        ("linear_residual", [(2, 3), (1, 4), (3, 4), (4,), (4,)], [(2, 4)], {}, "residual must be [2, 4], not [1, 4]"),
        ("linear_residual", [(2, 3), (2, 4), (3, 4), (4,), (1,)], [(2, 4)], {}, "gamma must be [4], not [1]"),
        ("attention", [(5, 12)], [(5, 4), (10000,)], {"heads": 2}, "qkv must be [*, *, *], not [5, 12]"),
        ("attention", [(1, 5, 12)], [(1, 5, 4), (10000,)], {"heads": 0}, "divided into q, k and v of 0 heads"),
        ("attention", [(1, 5, 12)], [(1, 5, 4), (10000,)], {"heads": 3}, "divided into q, k and v of 3 heads"),
        ("attention", [(1, 5, 12)], [(1, 5, 12), (10000,)], {"heads": 2}, "the result must be [1, 5, 4]"),
        ("attention", [(1, 5, 12)], [(1, 5, 4), (1,)], {"heads": 2}, "scratch must have at least"),
        ("conv", [MAP, (1,), (3, 3, 7, 4), (4,)], [MAP, (9999,)], {}, "kernel must be [3, 3, 8, *], not [3, 3, 7, 4]"),
        ("conv", [MAP, (1,), KERNEL, (4,)], [MAP, (9999,)], {}, "the result must be [2, 3, 3, 4], not [2, 3, 3, 8]"),
        ("conv", [MAP, (1,), KERNEL, (3,)], [(2, 3, 3, 4), (9999,)], {}, "bias must be [4], not [3]"),
        ("conv", [MAP, (4,), KERNEL, (4,)], [(2, 3, 3, 4), (9999,)], {}, "residual must be [1], not [4]"),
        ("conv", [MAP, MAP, KERNEL, (4,)], [(2, 3, 3, 4), (9999,)], {}, "residual must be [2, 3, 3, 4]"),
        ("conv", [MAP, (1,), KERNEL, (4,)], [(2, 3, 3, 4), (9,)], {}, "scratch must have at least"),
        ("conv", [MAP, (1,), KERNEL, (4,)], [(2, 3, 3, 4), (9999,)], {"stride": 0}, "stride must be positive, not 0"),
        ("conv_resized", [MAP, TAPS[0] - 1, TAPS[1], *TAPS], [], {}, "rows must be from 0 to 2, not -1"),
        ("conv_resized", [MAP, *TAPS, TAPS[0] + 1, TAPS[1]], [], {}, "columns must be from 0 to 2, not 3"),
        ("conv_resized", [MAP, *TAPS, TAPS[0][:2], TAPS[1]], [], {}, "columns must be [2, 2], not [3, 2]"),
        ("conv_resized", [MAP, *TAPS, *TAPS, KERNEL, (4,), (4,)], [], {}, "last must be [1], not [4]"),
        ("conv_kernel_gradient", [MAP, (2, 3, 4, 5)], [(3, 3, 8, 5), (9999,)], {}, "g must be [2, 3, 3, *]"),
        ("conv_kernel_gradient", [MAP, MAP], [(3, 3, 8, 7), (9999,)], {}, "the result must be [3, 3, 8, 8]"),
        ("conv_kernel_gradient", [MAP, MAP], [(3, 3, 8, 8), (9,)], {}, "scratch must have at least"),
        ("layer_norm", [(2, 32), (16,), (16,)], [(2, 32)], {}, "x must be [..., 16], not [2, 32]"),
        ("layer_norm", [(2, 32), (32,), (1,)], [(2, 32)], {}, "bias must be [32], not [1]"),
        ("layer_norm", [(2, 33), (33,), (33,)], [(2, 33)], {}, "the width must be a multiple of"),
        ("optimization_barrier", [(2, 3)], [(3, 2)], {}, "the result must be [2, 3], not [3, 2]"),
    ],
)
def test_a_kernel_refuses_operands_of_other_shapes(kernel, operands, results, how, fault):
    defaults = {"conv": {"stride": 1, "relu": False}, "layer_norm": {"eps": 1e-6}}.get(kernel, {})
    if kernel == "conv_resized":
        operands, results = [*operands, KERNEL, (4,), (1,)][:8], [(2, 3, 3, 4), (9999,)]
    of_shape = lambda one: np.zeros(one, np.float32) if isinstance(one, tuple) else one  # noqa: E731
    how = {key: {int: np.int32, float: np.float32, bool: np.bool_}[type(v)](v) for key, v in (defaults | how).items()}
    call = jax.ffi.ffi_call(
        f"dav2_{kernel}", [jax.ShapeDtypeStruct(np.shape(of_shape(one)), np.float32) for one in results]
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"INVALID_ARGUMENT.*dav2_{kernel}: .*{re.escape(fault)}"):
        jax.block_until_ready(call(*map(of_shape, operands), **how))


# Where which runs. `shifted` is 3 more than the function it stands for, to tell.


def square(x, weight, *, power):
    return x**power * weight[None]


def shifted(x, weight, *, power):
    return square(x, weight, power=power) + 3


run = partial(dispatch.choose, square, cpu=shifted, power=2)
X, WEIGHT = normal(8, 5), normal(5, seed=1)


def test_on_a_cpu_it_is_the_kernel_and_elsewhere_the_plain_function():
    np.testing.assert_allclose(run(X, WEIGHT), X**2 * WEIGHT + 3, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(run)(X, WEIGHT), X**2 * WEIGHT + 3, rtol=1e-6)
    traced = jax.jit(partial(ops.linear, kernel=normal(5, 4), bias=normal(4))).trace(X)
    assert "dav2_linear" in traced.lower(lowering_platforms=("cpu",)).as_text()
    for other in ("tpu", "cuda"):
        assert "dav2_linear" not in traced.lower(lowering_platforms=(other,)).as_text()


def test_calls_outside_of_jit_compile_once(caplog):
    run(X[:3], WEIGHT)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run(X[:3], WEIGHT)
    assert "ompil" not in caplog.text


def test_a_gradient_is_that_of_the_plain_function():
    def total(x, weight):
        value = run(x, weight)
        return (value * jnp.cos(jnp.arange(5.0))[None]).sum(), value

    (_, value), ours = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(X, WEIGHT)
    np.testing.assert_allclose(value, X**2 * WEIGHT, rtol=1e-6)  # forward, too, so nothing is computed twice
    factor = np.cos(np.arange(5.0))
    np.testing.assert_allclose(ours[0], 2 * X * WEIGHT * factor, rtol=1e-5)
    np.testing.assert_allclose(ours[1], (X**2 * factor).sum(0), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.hessian(lambda x: run(x, WEIGHT).sum()))(X[:1])[0, 1, 0, 1], 2 * WEIGHT[1])


def test_vmap():
    two = np.stack([X, 2 * X], 1)
    np.testing.assert_allclose(
        jax.vmap(run, (1, None))(two, WEIGHT), np.moveaxis(two, 1, 0) ** 2 * WEIGHT + 3, rtol=1e-6
    )
    weights = np.stack([WEIGHT, 2 * WEIGHT])
    np.testing.assert_allclose(jax.vmap(run, (None, 0))(X, weights), X**2 * weights[:, None], rtol=1e-6)


def test_many_devices():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spec, whole = PartitionSpec("data"), PartitionSpec()
    x = jax.device_put(X, NamedSharding(mesh, spec))
    each = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(spec, whole), out_specs=spec, check_vma=False))
    np.testing.assert_allclose(each(x, WEIGHT), X**2 * WEIGHT + 3, rtol=1e-6)
    # A program that XLA itself divides could not divide a kernel.
    np.testing.assert_allclose(
        jax.jit(run)(x, jax.device_put(WEIGHT, NamedSharding(mesh, whole))), X**2 * WEIGHT, rtol=1e-6
    )
