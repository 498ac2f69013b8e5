"""The whole network, as a Flax module and as pure functions of (params, images).

`params` is a nested dict of arrays whose path is the parameter's official PyTorch name, for example
`params["pretrained"]["blocks"]["0"]["attn"]["qkv"]["kernel"]`: differentiate, shard, stack or save it as you would any
tree of arrays. `DepthAnything` is the same as an `nnx.Module`: wrap or replace layers, filter, train with
`nnx.Optimizer`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dav2_jax.model.config import PATCH, ModelConfig
from dav2_jax.model.dinov2 import DinoV2
from dav2_jax.model.dpt import DPTHead
from dav2_jax.model.remat import Remat

Params = dict[str, "Params | jax.Array"]


class DepthAnything(nnx.Module):
    """The network: images [B, H, W, 3], normalized, H and W multiples of 14 -> depth [B, H, W] float32.

    dtype: of the computation, float32 or bfloat16; parameters may be kept in float32 either way
    remat: what a gradient keeps in memory: `remat.recomputed`. Changes no value
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, dtype=jnp.float32, remat: Remat = "none"):
        self.config, self.dtype, self.remat = config, jnp.dtype(dtype), remat
        self.pretrained = DinoV2(config, rngs=rngs)
        if config.kind != "encoder":
            self.depth_head = DPTHead(config, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Affine-invariant disparity of a relative model (larger is closer, at least 0), metres of a metric one.

        Raises ValueError for images of another shape or dtype, and for an encoder alone.
        """
        if self.config.kind == "encoder":
            raise ValueError("an encoder alone has no depth head: use stages(...)['tap3'], or a model of another kind")
        return self.stages(images)["depth"]

    def stages(self, images: jax.Array) -> dict[str, jax.Array]:
        """Every intermediate result by name, in the order of computation; under `jit`, those not used cost nothing.

        patch_embed [B, h*w, D]; tokens, block00, block01, ... [B, 1 + h*w, D] (class token first);
        tap0 ... tap3 [B, h, w, D] (normalized, without class token: the features to build on);
        project0 ... 3, resize0 ... 3, layer1_rn ... layer4_rn, refinenet4 ... refinenet1, output_conv1: of the head;
        output_conv2 [B, H, W] (after the last activation: ReLU, or sigmoid of metric models); depth [B, H, W] float32.
        """
        _check(images)
        stages = self.pretrained(images.astype(self.dtype), self.remat)
        if self.config.kind != "encoder":
            stages |= self.depth_head([stages[f"tap{k}"] for k in range(4)], self.remat)
            depth = stages["output_conv2"]
            stages["depth"] = depth * self.config.max_depth if self.config.kind == "metric" else depth
        return stages


def stages(
    config: ModelConfig, params: Params, images: jax.Array, dtype=jnp.float32, remat: Remat = "none"
) -> dict[str, jax.Array]:
    """`DepthAnything.stages` as a pure function."""
    return module(config, params, dtype, remat).stages(images)


def apply(
    config: ModelConfig, params: Params, images: jax.Array, dtype=jnp.float32, remat: Remat = "none"
) -> jax.Array:
    """images [B, H, W, 3] normalized -> [B, H, W] float32: `DepthAnything` as a pure function of its parameters.

    `jit`, `grad`, `vmap` and shard it. Arguments and errors as there.
    """
    return module(config, params, dtype, remat)(images)


def module(config: ModelConfig, params: Params, dtype=jnp.float32, remat: Remat = "none") -> DepthAnything:
    """The network with these parameters in it, which are not copied."""
    graph, keys = _graph(config, jnp.dtype(dtype), remat)
    return nnx.merge(graph, _with_keys(keys, params))


def split(network: nnx.Module) -> tuple[Callable, Params]:
    """(fn, params) of a network, however its layers were wrapped or replaced: fn(params, images) is network(images)."""
    graph, state = nnx.split(network)
    keys = nnx.to_pure_dict(state)

    def fn(params: Params, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, _with_keys(keys, params))(images)

    return fn, _with_names(keys)


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters: the encoder as DINOv2 starts its training, the head with PyTorch's defaults."""
    return _with_names(nnx.to_pure_dict(nnx.state(DepthAnything(config, rngs=nnx.Rngs(params=key)))))


def init_head(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh parameters of the head alone."""
    return _with_names(nnx.to_pure_dict(nnx.state(DPTHead(config, rngs=nnx.Rngs(params=key)))))


@functools.lru_cache
def abstract_params(config: ModelConfig) -> Params:
    """The tree of `init` with a `jax.ShapeDtypeStruct` for every array; allocates nothing."""
    return jax.eval_shape(functools.partial(init, config), jax.eval_shape(lambda: jax.random.key(0)))


@functools.lru_cache
def _graph(config: ModelConfig, dtype: np.dtype, remat: Remat):
    """The network without its parameters, and the tree of Flax's own keys (integers where it has lists)."""
    network = nnx.eval_shape(lambda: DepthAnything(config, rngs=nnx.Rngs(params=0), dtype=dtype, remat=remat))
    graph, state = nnx.split(network)
    return graph, nnx.to_pure_dict(state)


def _check(images: jax.Array) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or any(side < PATCH or side % PATCH for side in images.shape[1:3]):
        raise ValueError(f"images must be [B, H, W, 3] with H and W multiples of {PATCH}, not {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images must be normalized floats, not {images.dtype}: dav2_jax.preprocess(photo) makes them from uint8, "
            "or (images / 255 - mean) / std with ImageNet's mean and std"
        )
    if images.shape[0] == 0:
        raise ValueError("the batch is empty: give at least one image")


def _with_keys(keys: dict, params: Params) -> dict:
    """`params` with the keys of `keys`: as strings, block 10 would sort before block 2."""
    return {k: _with_keys(v, params[str(k)]) if isinstance(v, dict) else params[str(k)] for k, v in keys.items()}


def _with_names(state: dict) -> Params:
    """The inverse of `_with_keys`: string keys throughout."""
    return {str(k): _with_names(v) if isinstance(v, dict) else v for k, v in state.items()}
