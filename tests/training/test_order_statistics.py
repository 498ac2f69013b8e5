"""The k-th smallest and the median are those of a sort, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav2_jax.training.order_statistics import kth_smallest, median

kth = jax.jit(kth_smallest)


def some(kind, shape, rng):
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "ties":
        return rng.integers(-3, 4, shape) / 2
    if kind == "mostly zero":  # what ReLU makes of a sky
        return np.where(rng.random(shape) < 0.7, 0.0, rng.gamma(1.0, 1.0, shape))
    return rng.normal(size=shape) * 10.0 ** rng.integers(-36, 37, shape)  # every exponent


@pytest.mark.parametrize("kind", ["normal", "ties", "mostly zero", "every exponent"])
def test_every_rank_is_that_of_a_sort(kind):
    rng = np.random.default_rng(0)
    values = some(kind, (3, 7, 9), rng).astype(np.float32)
    valid = rng.random(values.shape) < 0.6
    poisoned = jnp.where(valid, values, np.resize(np.float32([np.nan, np.inf, -np.inf, -1e30]), values.shape))
    counts = valid.sum((1, 2))
    for rank in range(counts.max()):
        found = kth(poisoned, valid, jnp.full(3, rank))
        for row in range(3):
            if rank < counts[row]:
                assert found[row] == np.sort(values[row][valid[row]])[rank]
            else:
                assert np.isnan(found[row])


def test_infinities_and_signed_zeros_have_their_place():
    values = jnp.array([[[0.0, np.inf, -np.inf, -0.0, 1.0, -1.0]]], jnp.float32)
    order = [float(kth(values, jnp.ones(values.shape, bool), jnp.array([rank]))[0]) for rank in range(6)]
    assert order == [-np.inf, -1.0, 0.0, 0.0, 1.0, np.inf]
    assert np.signbit(order).tolist() == [True, True, True, False, False, False]


def test_median_is_the_lower_middle_of_the_valid_ones():
    """1 2 3 4: 2, where NumPy has 2.5. 5 6 7: 6. None: 0."""
    values = jnp.array([[[4.0, 1, 3, 2]], [[7.0, 5, 6, 0]], [[9.0, 9, 9, 9]]])
    valid = jnp.array([[[1, 1, 1, 1]], [[1, 1, 1, 0]], [[0, 0, 0, 0]]], bool)
    assert median(values, valid).tolist() == [2, 6, 0]


def test_median_of_other_float_types():
    values = np.random.default_rng(0).normal(size=(2, 5, 5))
    with jax.enable_x64(True):
        found = median(jnp.asarray(values), jnp.ones(values.shape, bool))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, np.median(values, axis=(1, 2)))  # of 25: there is one middle
    half = jnp.asarray(values, jnp.bfloat16)
    found = kth_smallest(half, jnp.ones(values.shape, bool), jnp.array([12, 12]))
    np.testing.assert_array_equal(found, np.median(np.asarray(half, np.float32), axis=(1, 2)))


def test_the_gradient_of_the_median_is_shared_by_equals():
    """1 2 2 5 (9 is not valid): the median is 2, twice."""
    values = jnp.array([[[2.0, 9, 1, 2, 5]]])
    valid = jnp.array([[[1, 0, 1, 1, 1]]], bool)
    gradient = jax.jit(jax.grad(lambda values: median(values, valid).sum()))(values)
    assert gradient.tolist() == [[[0.5, 0, 0, 0.5, 0]]]
    assert jax.grad(lambda values: median(values, valid & False).sum())(values).tolist() == [[[0] * 5]]


def test_under_vmap():
    values = jax.random.normal(jax.random.key(0), (4, 2, 3, 5))
    valid = jax.random.bernoulli(jax.random.key(1), 0.8, values.shape)
    np.testing.assert_array_equal(
        jax.vmap(median)(values, valid), [median(*pair) for pair in zip(values, valid, strict=True)]
    )
