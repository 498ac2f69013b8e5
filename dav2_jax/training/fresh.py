"""Parameters to learn from nothing: where a run has no weights, or only those of an encoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.model import depth_anything
from dav2_jax.model.config import GRID, ModelConfig
from dav2_jax.model.depth_anything import Params

POSITION_SIZE = 0.5  # of the sines; patches begin with a standard deviation of about 0.6


def draw(config: ModelConfig, key: jax.Array, parts: set[str]) -> Params:
    """Fresh float32 parameters for these parts: "pretrained" (the encoder) and "depth_head", or one of them.

    Drawn on the host, one after another (as one program they take long to compile), the same on every mesh. They are
    those of `depth_anything.init` but for what is meant there for weeks of training, or for other losses:
    - linear layers of the encoder have a variance of 1 / inputs, those that end a branch / (2 depth) besides. DINOv2's
      0.02 makes every branch of a narrow network a tenth of a percent of its input.
    - positions are sines (`sines`), so that a table that is kept as it is serves every size of image.
    - the last bias of a relative head is 1: with one near 0 the last ReLU may pass nothing on any image, and then no
      gradient ever either.
    """
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # left out by JAX_PLATFORMS
        host = jax.local_devices()[0]
    key = jax.device_put(key, host)
    if parts == {"depth_head"}:
        fresh = {"depth_head": depth_anything.init_head(config, key)}
    else:
        fresh = depth_anything.init(config, key)
        _spread(fresh["pretrained"], config)
    if config.kind == "relative" and "depth_head" in parts:
        last = fresh["depth_head"]["scratch"]["output_conv2"]["2"]
        last["bias"] = jnp.ones_like(last["bias"])
    return {part: fresh[part] for part in parts}


def sines(width: int) -> np.ndarray:
    """A position table, float32 [1, 1 + 37 * 37, width]: for each axis sine and cosine of width / 4 frequencies.

    The highest goes through one and a half periods over the image, so the table is smooth and any size of image falls
    between its points; the lowest through a hundredth of that. The class token has zeros. MAE (He et al., 2022) keeps
    such a table fixed. Where the width is no multiple of 4, the last columns are zeros.
    """
    quarter = width // 4
    angles = np.linspace(0, 9, GRID, endpoint=False)[:, None] * 100 ** -(np.arange(quarter) / max(1, quarter))
    axis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    table = np.zeros((1, 1 + GRID * GRID, width), np.float32)
    grid = table[0, 1:].reshape(GRID, GRID, width)
    grid[..., : 2 * quarter] = axis[:, None]
    grid[..., 2 * quarter : 4 * quarter] = axis[None]
    return POSITION_SIZE * table


def _spread(encoder: Params, config: ModelConfig) -> None:
    encoder["pos_embed"] = jnp.asarray(sines(config.width))
    for block in encoder["blocks"].values():
        for branch, end in (("attn", "proj"), ("mlp", "fc2" if config.ffn == "mlp" else "w3")):
            for name, layer in block[branch].items():
                size = layer["kernel"].shape[0] ** -0.5 * ((2 * config.depth) ** -0.5 if name == end else 1)
                layer["kernel"] = layer["kernel"] * (size / 0.02)
