"""Every op against PyTorch or OpenCV: a relative L2 error of at most 1e-6."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dav2_jax.image.resize import cubic_taps, linear_taps, matrix
from dav2_jax.model import conv, ops

rng = np.random.default_rng(0)


def normal(*shape) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.numpy().transpose(0, 2, 3, 1)


def assert_close(ours, reference, rtol=1e-6):
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape
    assert ours.dtype == reference.dtype
    assert np.linalg.norm(ours - reference) <= rtol * np.linalg.norm(reference)
    np.testing.assert_allclose(ours, reference, rtol=0, atol=10 * rtol * np.abs(reference).max())


def test_linear():
    x, kernel, bias = normal(2, 5, 48), normal(48, 32), normal(32)
    assert_close(ops.linear(x, kernel, bias), x @ kernel + bias)


def test_layer_norm_of_large_offset():
    """E[x^2] - E[x]^2 would lose all digits here."""
    x, scale, bias = normal(2, 5, 48) + 3000, normal(48), normal(48)
    reference = F.layer_norm(*map(torch.from_numpy, (x.astype(np.float64),)), (48,), eps=1e-6).numpy() * scale + bias
    assert_close(ops.layer_norm(x, scale, bias), reference.astype(np.float32), rtol=1e-3)  # x itself has 24 bits
    x = normal(2, 5, 48)
    reference = F.layer_norm(*map(torch.from_numpy, (x,)), (48,), *map(torch.from_numpy, (scale, bias)), eps=1e-6)
    assert_close(ops.layer_norm(x, scale, bias), reference)


def test_layer_norm_epsilon():
    x = np.full((1, 4), 1e-3, np.float32) * [1, -1, 1, -1]
    ours = ops.layer_norm(x.astype(np.float32), np.ones(4, np.float32), np.zeros(4, np.float32))
    np.testing.assert_allclose(np.abs(ours), 0.5**0.5, rtol=1e-6)  # variance 1e-6 and eps 1e-6


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    assert_close(ops.gelu(x), F.gelu(torch.from_numpy(x)))
    assert np.abs(ops.gelu(x) - jax.nn.gelu(x, approximate=True)).max() > 1e-4


@pytest.mark.parametrize("n", [1, 7, 256, 257, 600, 1500])
def test_attention(n):
    q, k, v = (normal(2, 3, n, 16) for _ in range(3))
    reference = F.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)))
    assert_close(ops.attention(q, k, v), reference)


@pytest.mark.parametrize("scores", [1, 1000, 2**29])
def test_attention_of_other_platforms(scores):
    q, k, v = (normal(2, 3, 70, 16) for _ in range(3))
    reference = F.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)))
    assert_close(ops._attention_of_all_heads(q, k, v, scores=scores), reference)


def test_attention_holds_no_square():
    """The N x N scores must not stand in memory: for 4,000 tokens they alone would be 192 MB."""
    shape = jax.ShapeDtypeStruct((1, 3, 4000, 16), jnp.float32)
    memory = jax.jit(ops.attention).lower(shape, shape, shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 60e6


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("height", [6, 7])
def test_conv(size, stride, height):
    x, kernel, bias = normal(2, height, 9, 4), normal(size, size, 4, 5), normal(5)
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    reference = F.conv2d(nchw(x), weight, torch.from_numpy(bias), stride=stride, padding=size // 2)
    assert_close(conv.conv(x, kernel, bias, stride=stride), nhwc(reference))


def test_conv_to_one_channel():
    x, kernel, bias = normal(2, 6, 9, 4), normal(1, 1, 4, 1), normal(1)
    reference = F.conv2d(nchw(x), torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(bias))
    assert_close(conv.conv(x, kernel, bias), nhwc(reference))


@pytest.mark.parametrize("size", [2, 4])
def test_conv_transpose(size):
    x, kernel, bias = normal(2, 3, 5, 4), normal(size, size, 4, 6), normal(6)
    weight = torch.from_numpy(kernel.transpose(2, 3, 0, 1).copy())
    reference = F.conv_transpose2d(nchw(x), weight, torch.from_numpy(bias), stride=size)
    assert_close(conv.conv_transpose(x, kernel, bias), nhwc(reference))


@pytest.mark.parametrize(
    ("size_in", "size_out"), [((5, 7), (10, 14)), ((19, 28), (37, 56)), ((8, 8), (1, 3)), ((1, 1), (4, 4))]
)
def test_resize_bilinear(size_in, size_out):
    x = normal(1, *size_in, 3)
    reference = F.interpolate(nchw(x), size_out, mode="bilinear", align_corners=True)
    assert_close(ops.resize_bilinear(x, *size_out), nhwc(reference))


@pytest.mark.parametrize(("size_in", "size_out"), [((40, 60), (98, 140)), ((98, 140), (14, 28)), ((1, 2), (14, 28))])
def test_cubic_taps_are_those_of_opencv(size_in, size_out):
    x = rng.random((*size_in, 3))
    reference = cv2.resize(x, size_out[::-1], interpolation=cv2.INTER_CUBIC)
    ours = ops.resample(x, ops.cubic_taps(size_in[0], size_out[0]), axis=0)
    ours = ops.resample(ours, ops.cubic_taps(size_in[1], size_out[1]), axis=1)
    assert_close(ours, reference)


def test_cubic_overshoots():
    """A step from 0 to 1 gives values below 0 and above 1: neither OpenCV nor the network's input clips them."""
    step = np.repeat(np.float32([0, 1]), 10)
    wide = ops.resample(step, ops.cubic_taps(20, 70), axis=0)
    assert wide.min() < -0.05
    assert wide.max() > 1.05


@pytest.mark.parametrize("patches", [(10, 15), (37, 56), (38, 37), (1, 74)])
def test_cubic_taps_with_the_offset_of_dinov2(patches):
    table = normal(1, 37, 37, 4)
    scale = tuple((side + 0.1) / 37 for side in patches)
    reference = F.interpolate(nchw(table), scale_factor=scale, mode="bicubic", align_corners=False)
    ours = jnp.asarray(table)
    for axis, side in enumerate(patches, start=1):
        ours = ops.resample(ours, ops.cubic_taps(37, side, step=37 / (side + 0.1)), axis=axis)
    assert_close(ours, nhwc(reference))


def test_bfloat16_stays_bfloat16_and_accumulates_in_float32():
    ones = jnp.ones((1, 1, 4096), jnp.bfloat16)
    y = ops.linear(ones, jnp.ones((4096, 1)), jnp.zeros(1))
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0, 0]) == 4096  # in bfloat16 the sum would stop at 256
    y = conv.conv(ones[None], jnp.ones((1, 1, 4096, 1)), jnp.zeros(1))
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0, 0, 0]) == 4096


@pytest.mark.parametrize(("size_in", "size_out"), [(5, 9), (9, 5), (4, 4), (1, 3), (7, 12)])
def test_the_gradient_of_a_resize_is_its_transpose(size_in, size_out):
    x, g = normal(2, size_in, 3), normal(2, size_out, 3)
    for taps in (linear_taps(size_in, size_out), cubic_taps(size_in, size_out)):
        dense = matrix(taps, size_in).toarray()
        _, pull = jax.vjp(lambda x, taps=taps: ops.resample(x, taps, axis=1), x)
        np.testing.assert_allclose(pull(g)[0], np.einsum("oi,boc->bic", dense, g), rtol=1e-5, atol=1e-6)
        assert "scatter" not in str(jax.make_jaxpr(pull)(g))
