"""A kernel as an operation, with a kernel that any platform runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dav2_jax.kernels.tpu.operation import operation


def plain(x, weight):
    return jnp.sin(x) * weight[None, :, None]


def kernel(x, weight):
    """3 more than `plain`, to tell which of the two has run."""

    def body(x_ref, weight_ref, out_ref):
        out_ref[...] = jnp.sin(x_ref[...]) * weight_ref[...][None, :, None] + 3

    return pl.pallas_call(body, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x, weight)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((8, 4, 5), np.float32)), jnp.asarray(rng.standard_normal(4, np.float32))


run = operation(kernel, plain)


def test_it_is_the_kernel_that_runs(data):
    np.testing.assert_allclose(run(*data), plain(*data) + 3, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(run)(*data), plain(*data) + 3, rtol=1e-6)


def test_the_gradient_is_that_of_the_plain_function(data):
    def loss(function, x, weight):
        return (jnp.cos(jnp.arange(5.0))[None, None] * function(x, weight)).sum()

    ours = jax.jit(jax.grad(lambda *a: loss(run, *a), argnums=(0, 1)))(*data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, jax.grad(loss, (1, 2))(plain, *data))


def test_vmap_over_x_is_a_larger_batch(data):
    x, weight = data
    both = jax.jit(jax.vmap(run, in_axes=(2, None)))(jnp.stack([x, 2 * x], 2), weight)
    np.testing.assert_allclose(both, jnp.stack([plain(x, weight), plain(2 * x, weight)]) + 3, rtol=1e-6)


def test_vmap_over_weights_takes_the_plain_function(data):
    x, weight = data
    both = jax.jit(jax.vmap(run, in_axes=(None, 0)))(x, jnp.stack([weight, 2 * weight]))
    np.testing.assert_allclose(both, jnp.stack([plain(x, weight), plain(x, 2 * weight)]), rtol=1e-6)


@pytest.fixture
def mesh():
    return Mesh(np.array(jax.devices()), ("data",))


def test_within_a_shard_map_every_device_runs_the_kernel(data, mesh):
    split = PartitionSpec("data")
    sharded = jax.shard_map(run, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split, check_vma=False)
    np.testing.assert_allclose(jax.jit(sharded)(*data), plain(*data) + 3, rtol=1e-6)


@pytest.mark.parametrize("spec", [("data",), (), (None, None, None)])
def test_what_xla_divides_takes_the_plain_function(data, mesh, spec):
    x, weight = (
        jax.device_put(a, NamedSharding(mesh, PartitionSpec(*s))) for a, s in zip(data, (spec, ()), strict=True)
    )
    ours = jax.jit(run)(x, weight)
    np.testing.assert_allclose(ours, plain(*data), rtol=1e-6)
    assert ours.sharding.is_equivalent_to(x.sharding, 3)


def test_a_kernel_may_have_tables(data):
    x, weight = data
    table = np.arange(5, dtype=np.float32)[None, None]
    added = operation(lambda x, weight: kernel(x, weight) + table, plain)
    np.testing.assert_allclose(jax.jit(added)(x, weight), plain(x, weight) + 3 + table, rtol=1e-6)


def sine(x):
    return jnp.sin(x)


def sine_kernel(x):
    return kernel(x, jnp.ones(4, x.dtype))


def sine_gradient_kernel(x, cotangent):
    """The gradient of `sine`, and 3 more."""
    return kernel(x + jnp.pi / 2, jnp.ones(4, x.dtype)) * cotangent


own = operation(sine_kernel, sine, sine_gradient_kernel)


def test_the_gradient_may_be_a_kernel(data):
    x = data[0]
    by_x = jax.jit(jax.grad(lambda x: own(x).sum()))
    np.testing.assert_allclose(by_x(x), jnp.cos(x) + 3, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: (2 * jax.checkpoint(own)(x)).sum())(x), 2 * jnp.cos(x) + 6, rtol=1e-5)


def test_vmap_over_a_gradient_is_a_larger_batch(data):
    x = jnp.stack([data[0], 2 * data[0]])
    by_x = jax.grad(lambda x, scale: (scale * own(x)).sum())
    one_cotangent = jax.jit(jax.vmap(by_x, in_axes=(0, None)))(x, 2.0)
    np.testing.assert_allclose(one_cotangent, 2 * jnp.cos(x) + 6, rtol=1e-5)
    two = jax.vmap(by_x)(x, jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(two, jnp.array([1, 2])[:, None, None, None] * (jnp.cos(x) + 3), rtol=1e-5)


def test_the_gradient_of_the_gradient_is_that_of_the_plain_function(data):
    twice = jax.grad(lambda x: jax.grad(lambda x: own(x).sum())(x).sum())(data[0])
    np.testing.assert_allclose(twice, -jnp.sin(data[0]), rtol=1e-5, atol=1e-6)


def test_a_gradient_that_xla_divides_is_the_plain_one(data, mesh):
    x = jax.device_put(data[0], NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_allclose(jax.jit(jax.grad(lambda x: own(x).sum()))(x), jnp.cos(x), rtol=1e-5, atol=1e-6)


def test_within_a_shard_map_every_device_runs_the_gradient_kernel(data, mesh):
    split = PartitionSpec("data")
    sharded = jax.shard_map(own, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda x: sharded(x).sum()))(data[0]), jnp.cos(data[0]) + 3, rtol=1e-5)
