"""`model.fn` under what users of JAX do with a function: any mesh, export, forward mode, a batch of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import dav2_jax as dav2

IMAGES = np.random.default_rng(0).standard_normal((8, 28, 42, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def depth(tiny):
    return np.asarray(jax.jit(tiny.fn)(tiny.params, IMAGES))


@pytest.mark.parametrize("context", [False, True])
def test_on_a_mesh_of_explicit_axes(tiny, depth, context):
    mesh = jax.make_mesh((8,), ("data",))
    split = NamedSharding(mesh, P("data"))
    images = jax.device_put(IMAGES, split)
    with jax.set_mesh(mesh) if context else jax.default_device(None):
        result = jax.jit(tiny.fn)(tiny.params, images)
    assert result.sharding.is_equivalent_to(split, 3)
    np.testing.assert_allclose(result, depth, rtol=1e-5)


def test_exported_with_a_free_batch(tiny, depth):
    (batch,) = export.symbolic_shape("batch")
    exported = export.export(jax.jit(tiny.fn))(tiny.params, jax.ShapeDtypeStruct((batch, 28, 42, 3), jnp.float32))
    for count in (1, 3):
        np.testing.assert_allclose(exported.call(tiny.params, IMAGES[:count]), depth[:count], rtol=1e-5)


def test_forward_mode_with_plain_operations(tiny, depth):
    direction = np.ones_like(IMAGES[:1])
    fn = jax.jit(lambda x: jax.jvp(dav2.plain_operations(lambda x: tiny.fn(tiny.params, x)), (x,), (direction,)))
    value, tangent = fn(IMAGES[:1])
    np.testing.assert_allclose(value, depth[:1], rtol=1e-5)
    run = jax.jit(tiny.fn)
    difference = (run(tiny.params, IMAGES[:1] + 1e-2) - run(tiny.params, IMAGES[:1] - 1e-2)) / 2e-2
    assert np.linalg.norm(tangent - difference) / np.linalg.norm(difference) < 3e-2  # ReLU has corners
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: tiny.fn(tiny.params, x), (IMAGES[:1],), (direction,))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:0], "the batch is empty"),
        (np.zeros((1, 28, 42, 3), np.uint8), r"normalized floats, not uint8: dav2_jax\.preprocess"),
    ],
)
def test_what_is_no_input(tiny, images, message):
    with pytest.raises(ValueError, match=message):
        tiny.fn(tiny.params, images)


def test_predict_batch_under_jit(tiny):
    photos = np.random.default_rng(0).integers(0, 256, (2, 50, 75, 3), dtype=np.uint8)
    inside = jax.jit(lambda photos: tiny.predict_batch(photos, input_size=28))(photos)
    np.testing.assert_allclose(inside, tiny.predict_batch(photos, input_size=28), rtol=1e-5)
