"""The network as a Flax module: any layer can be wrapped, replaced, filtered and trained, and none is ignored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import dav2_jax as dav2
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error
from dav2_jax.inference.predictor import Model
from dav2_jax.model.depth_anything import DepthAnything
from dav2_jax.model.layers import Conv, ConvTranspose, Linear
from dav2_jax.weights.load import load_weights

UNUSED = ("depth_head", "scratch", "refinenet4", "resConfUnit1")  # in every checkpoint, and in no computation
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((1, 28, 42, 3), dtype=np.float32))


class Wrapped(nnx.Module):
    """A user's layer around one of ours."""

    def __init__(self, layer: nnx.Module, factor: float):
        self.layer, self.factor = layer, factor

    def __call__(self, x):
        y = self.layer(x)
        return y * self.factor + (self.factor - 1)


@pytest.fixture
def model(tiny) -> Model:
    return Model(Weights(tiny.config, tiny.params))


def layers(module: nnx.Module) -> list[tuple]:
    return [path for path, node in nnx.iter_graph(module) if isinstance(node, Linear | Conv | ConvTranspose)]


def replace(module: nnx.Module, path: tuple, make) -> None:
    """Puts make(layer) in the place of the layer at `path`."""
    *parents, last = path
    for key in parents:
        module = module[key] if isinstance(key, int) else getattr(module, key)
    if isinstance(last, int):
        module[last] = make(module[last])
    else:
        setattr(module, last, make(getattr(module, last)))


def test_the_module_gives_the_depth_of_the_pure_function(model):
    depth = model.module(IMAGES)
    assert depth.shape == (1, 28, 42)
    np.testing.assert_array_equal(depth, model.fn(model.params, IMAGES))


def test_a_fresh_network():
    config = dav2.PRESETS["nano"].replace(depth=4, taps=(0, 1, 2, 3))
    network = DepthAnything(config, rngs=nnx.Rngs(0))
    assert network(IMAGES).shape == (1, 28, 42)
    with pytest.raises(TypeError, match="rngs"):
        DepthAnything(config)


def test_wrapping_alone_changes_nothing(model):
    plain = np.asarray(model.module(IMAGES))
    for path in layers(model.module):
        replace(model.module, path, lambda layer: Wrapped(layer, 1.0))
    np.testing.assert_allclose(model.module(IMAGES), plain, rtol=1e-5)


def test_every_wrapped_layer_counts(model):
    """One after another: what it adds to its layer's output is seen in the depth."""
    module = model.module
    plain, paths = np.asarray(module(IMAGES)), layers(module)
    assert len(paths) == 1 + 4 * 4 + 4 + 3 + 4 + 4 * 5 + 1 + 2
    for path in paths:
        replace(module, path, lambda layer: Wrapped(layer, 1.5))
        changed = np.abs(np.asarray(module(IMAGES)) - plain).max() / plain.max()
        assert changed == 0 if path[:4] == UNUSED else changed > 3e-5, (path, changed)
        replace(module, path, lambda wrapped: wrapped.layer)
    np.testing.assert_array_equal(module(IMAGES), plain)


def test_replaced_branches_and_scales_count(model):
    plain = np.asarray(model.module(IMAGES))
    for name in ("attn", "mlp", "ls1", "ls2", "norm1", "norm2"):
        changed = Model(Weights(model.config, model.params)).module
        replace(changed, ("pretrained", "blocks", 1, name), lambda layer: Wrapped(layer, 1.5))
        assert np.abs(np.asarray(changed(IMAGES)) - plain).max() > 1e-4, name


def with_lora(model: Model) -> nnx.Module:
    module = model.module
    for path in layers(module):
        if path[-1] in ("qkv", "proj", "fc1", "fc2") and "blocks" in path:
            replace(module, path, lambda layer: nnx.LoRA(
                layer.kernel.shape[0], 2, layer.kernel.shape[1], base_module=layer, rngs=nnx.Rngs(1)
            ))  # fmt: skip
    return module


def test_lora_alone_is_trained_and_the_model_follows(model, tmp_path, photo):
    before, start = np.asarray(model.predict(photo, input_size=28)), jax.tree.map(np.array, model.params)
    module = with_lora(model)
    np.testing.assert_allclose(model.predict(photo, input_size=28), before, rtol=1e-5)  # LoRA begins with nothing
    optimizer = nnx.Optimizer(module, optax.sgd(100.0), wrt=nnx.LoRAParam)

    @nnx.jit
    def step(module, optimizer):
        gradient = nnx.grad(lambda module: module(IMAGES).mean(), argnums=nnx.DiffState(0, nnx.LoRAParam))(module)
        optimizer.update(module, gradient)

    step(module, optimizer)
    after = {path: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(model.params)}
    frozen = 0
    for path, leaf in after.items():
        keys = tuple(key.key for key in path)
        if "lora_b" in keys:
            assert np.abs(leaf).max() > 0
        elif "lora_a" not in keys:
            original = start
            for key in (key for key in keys if key != "base_module"):
                original = original[key]
            np.testing.assert_array_equal(leaf, original, err_msg=str(keys))
            frozen += 1
    assert frozen == len(jax.tree.leaves(start))
    assert np.abs(np.asarray(model.predict(photo, input_size=28)) - before).max() > 1e-3
    with pytest.raises(Dav2Error, match=r"64 parameters are no part of .*base_module.*: merge what you added"):
        model.save(tmp_path / "x.ckpt")


def test_parameters_of_an_own_training_loop_are_saved(model, tmp_path, photo):
    kernel = model.module.pretrained.blocks[0].attn.qkv.kernel
    kernel[...] = kernel[...] * 1.5
    model.save(tmp_path / "mine.ckpt")
    again = dav2.load(tmp_path / "mine.ckpt")
    np.testing.assert_array_equal(again.predict(photo, input_size=28), model.predict(photo, input_size=28))
    np.testing.assert_array_equal(
        load_weights(tmp_path / "mine.ckpt").flat["pretrained.blocks.0.attn.qkv.kernel"], kernel[...]
    )
