"""The whole model as pure functions of (params, images).

`params` is a nested dict of arrays whose path is the parameter's official PyTorch name, for example
`params["pretrained"]["blocks"]["0"]["attn"]["qkv"]["kernel"]`. Flax is used to write the network down and is not
seen outside this folder: differentiate, shard, stack or save `params` as you would any tree of arrays.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from dav2_jax.model.config import PATCH, ModelConfig
from dav2_jax.model.dinov2 import DinoV2
from dav2_jax.model.dpt import DPTHead
from dav2_jax.model.remat import Remat

Params = dict[str, "Params | jax.Array"]


class DepthAnything(nnx.Module):
    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.pretrained = DinoV2(config, rngs)
        if config.kind != "encoder":
            self.depth_head = DPTHead(config, rngs)

    def __call__(self, images: jax.Array, remat: Remat = "none") -> dict[str, jax.Array]:
        stages = self.pretrained(images, remat)
        if self.config.kind != "encoder":
            stages |= self.depth_head([stages[f"tap{k}"] for k in range(4)], remat)
            depth = stages["output_conv2"]
            stages["depth"] = depth * self.config.max_depth if self.config.kind == "metric" else depth
        return stages


def stages(
    config: ModelConfig, params: Params, images: jax.Array, dtype=jnp.float32, remat: Remat = "none"
) -> dict[str, jax.Array]:
    """Every intermediate result by name, in the order of computation; under `jit`, those not used cost nothing.

    images: [B, H, W, 3], normalized; H and W multiples of 14, at least 14.
    dtype:  of the computation, float32 or bfloat16; parameters may be kept in float32 either way.
    remat:  what a gradient keeps in memory: `remat.recomputed`. Changes no value.

    patch_embed [B, h*w, D]; tokens, block00, block01, ... [B, 1 + h*w, D] (class token first);
    tap0 ... tap3 [B, h, w, D] (normalized, without class token: the features to build on);
    project0 ... 3, resize0 ... 3, layer1_rn ... layer4_rn, refinenet4 ... refinenet1, output_conv1: maps of the head;
    output_conv2 [B, H, W] (after the last activation: ReLU, or sigmoid of metric models); depth [B, H, W] float32.
    Raises ValueError when the images have another shape.
    """
    if images.ndim != 4 or images.shape[3] != 3 or any(side < PATCH or side % PATCH for side in images.shape[1:3]):
        raise ValueError(f"images must be [B, H, W, 3] with H and W multiples of {PATCH}, not {images.shape}")
    graph, keys = _graph(config)
    return nnx.merge(graph, _with_keys(keys, params))(images.astype(dtype), remat)


def apply(
    config: ModelConfig, params: Params, images: jax.Array, dtype=jnp.float32, remat: Remat = "none"
) -> jax.Array:
    """images [B, H, W, 3] normalized -> [B, H, W] float32, at the same size.

    Relative models give affine-invariant disparity (larger is closer, at least 0), metric models depth in metres.
    Pure: `jit`, `grad`, `vmap` and shard it. Arguments and errors as in `stages`.
    """
    if config.kind == "encoder":
        raise ValueError("an encoder alone has no depth head: use stages(...)['tap3'], or a model of another kind")
    return stages(config, params, images, dtype, remat)["depth"]


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters: the encoder as DINOv2 starts its training, the head with PyTorch's defaults."""
    return _with_names(nnx.to_pure_dict(nnx.state(DepthAnything(config, nnx.Rngs(params=key)))))


def init_head(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh parameters of the head alone."""
    return _with_names(nnx.to_pure_dict(nnx.state(DPTHead(config, nnx.Rngs(params=key)))))


@functools.lru_cache
def abstract_params(config: ModelConfig) -> Params:
    """The tree of `init` with a `jax.ShapeDtypeStruct` for every array; allocates nothing."""
    return jax.eval_shape(functools.partial(init, config), jax.eval_shape(lambda: jax.random.key(0)))


@functools.lru_cache
def _graph(config: ModelConfig):
    """The network without its parameters, and the tree of Flax's own keys (integers where it has lists)."""
    graph, state = nnx.split(nnx.eval_shape(lambda: DepthAnything(config, nnx.Rngs(params=0))))
    return graph, nnx.to_pure_dict(state)


def _with_keys(keys: dict, params: Params) -> dict:
    """`params` with the keys of `keys`: as strings, block 10 would sort before block 2."""
    return {k: _with_keys(v, params[str(k)]) if isinstance(v, dict) else params[str(k)] for k, v in keys.items()}


def _with_names(state: dict) -> Params:
    """The inverse of `_with_keys`: string keys throughout."""
    return {str(k): _with_names(v) if isinstance(v, dict) else v for k, v in state.items()}
