"""What gradients keep: the same numbers from less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig

MINI = ModelConfig("mini", 16, 2, 2, "mlp", 16, (8, 8, 16, 16), (0, 0, 1, 1))


def test_gradients_are_the_same():
    params = jax.jit(depth_anything.init, static_argnums=0)(MINI, jax.random.key(0))
    images = np.random.default_rng(0).standard_normal((1, 28, 42, 3), dtype=np.float32)

    def loss(params, remat):
        return (depth_anything.stages(MINI, params, images, remat=remat)["output_conv1"] ** 2).mean()

    gradients = [jax.jit(jax.grad(loss), static_argnums=1)(params, r) for r in ("none", "blocks")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-9), *gradients)


def kept(remat: str, dtype) -> int:
    """Bytes between the forward and the backward pass, without the parameters; XLA for CPUs gives no such promise."""
    params = depth_anything.abstract_params(MINI)
    images = jnp.zeros((4, 112, 112, 3))

    def backward(params):
        return jax.vjp(lambda params: depth_anything.apply(MINI, params, images, dtype, remat), params)[1]

    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(backward, params)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_less_is_kept(dtype):
    everything, products, inputs = (kept(remat, dtype) for remat in ("none", "products", "blocks"))
    assert products < 0.6 * everything
    assert inputs < 0.6 * products


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"remat='all' is none of none, products, blocks"):
        kept("all", jnp.float32)
