"""Scores of a validation: the same however the parameters lie."""

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax import sharding
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig
from dav2_jax.training.validate import Validation

MINI = ModelConfig("mini", 16, 1, 2, "mlp", 16, (8, 8, 16, 16), (0, 0, 0, 0), kind="metric", max_depth=20)


def test_any_mesh_gives_the_same_scores():
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.random((4, 28, 28, 3), dtype=np.float32),
        "depth": rng.uniform(1, 20, (4, 28, 28)).astype(np.float32),
        "valid": rng.random((4, 28, 28)) < 0.9,
    }
    host = jax.tree.map(np.asarray, jax.jit(depth_anything.init, static_argnums=0)(MINI, jax.random.key(0)))
    scores = []
    for fsdp in (1, 2):
        mesh = sharding.make_mesh(jax.devices()[:4], fsdp)
        params = jax.device_put(host, sharding.state_sharding(mesh, host))
        validation = Validation(MINI, mesh, (), 28, 8, 4, jnp.float32)
        scores.append(validation._score(params, jax.device_put(batch, sharding.batch_sharding(mesh))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *map(jax.device_get, scores))
    assert scores[0]["all"]["images"] == 4
