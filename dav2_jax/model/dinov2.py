"""The DINOv2 vision transformer (Oquab et al., 2023): an image in, every block's tokens out.

Attribute names are those of the official PyTorch code, so a parameter's path is its official name.
Source: facebookresearch/dinov2 `vision_transformer.py`, as vendored by Depth Anything V2 in `dinov2.py`.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from dav2_jax.model import ops
from dav2_jax.model.config import GRID, PATCH, ModelConfig
from dav2_jax.model.remat import Remat, fence, recomputed


class Linear(nnx.Module):
    """x [..., I] -> [..., O]."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        # DINOv2 truncates at +-2, a hundred standard deviations out: a plain normal.
        self.kernel = nnx.Param(0.02 * jax.random.normal(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.linear(x, self.kernel[...], self.bias[...])


class LayerNorm(nnx.Module):
    """Over the channels of a token."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.layer_norm(x, self.scale[...], self.bias[...])


class LayerScale(nnx.Module):
    """One learned factor a channel, applied once to the output of a residual branch, whose last layer it is told."""

    def __init__(self, width: int):
        self.gamma = nnx.Param(jnp.ones(width))

    def __call__(self, x: jax.Array, residual: jax.Array, last: Linear) -> jax.Array:
        return ops.linear_residual(x, residual, last.kernel[...], last.bias[...], self.gamma[...])


class PatchEmbed(nnx.Module):
    """A convolution whose stride is its kernel, done as one matmul over the pixels of each patch."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.proj = Linear(PATCH * PATCH * 3, width, rngs)
        bound = (PATCH * PATCH * 3) ** -0.5  # PyTorch's default for a convolution, which DINOv2 leaves alone
        uniform = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.proj.kernel = nnx.Param(uniform(rngs.params(), self.proj.kernel.shape))
        self.proj.bias = nnx.Param(uniform(rngs.params(), (width,)))

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.proj(ops.patches(images, PATCH))


class Attention(nnx.Module):
    """Multi-head self-attention up to its last layer, `proj`; one projection makes queries, keys and values."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = Linear(width, 3 * width, rngs)
        self.proj = Linear(width, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.self_attention(self.qkv(x), self.heads)


class Mlp(nnx.Module):
    """Feed-forward of S, B and L, up to its last layer."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.fc1 = Linear(width, hidden, rngs)
        self.fc2 = Linear(hidden, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.linear_gelu(x, self.fc1.kernel[...], self.fc1.bias[...])


class SwiGLU(nnx.Module):
    """Feed-forward of G, up to its last layer: one projection makes gate and value, in this order."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.w12 = Linear(width, 2 * hidden, rngs)
        self.w3 = Linear(hidden, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, value = jnp.split(self.w12(x), 2, axis=-1)
        return jax.nn.silu(gate) * value


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        ffn = Mlp if config.ffn == "mlp" else SwiGLU
        self.norm1 = LayerNorm(config.width)
        self.attn = Attention(config.width, config.heads, rngs)
        self.ls1 = LayerScale(config.width)
        self.norm2 = LayerNorm(config.width)
        self.mlp = ffn(config.width, config.hidden, rngs)
        self.ls2 = LayerScale(config.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("attention"):
            x = self.ls1(self.attn(self.norm1(x)), x, self.attn.proj)
        with jax.named_scope("feed-forward"):
            last = self.mlp.fc2 if isinstance(self.mlp, Mlp) else self.mlp.w3
            return fence(self.ls2(self.mlp(self.norm2(x)), x, last))


class DinoV2(nnx.Module):
    """images [B, H, W, 3], normalized, H and W multiples of 14 -> the encoder's stages, by name."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.taps = config.taps
        self.cls_token = nnx.Param(1e-6 * jax.random.normal(rngs.params(), (1, 1, config.width)))
        self.pos_embed = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, GRID * GRID + 1, config.width)))
        self.mask_token = nnx.Param(
            jnp.zeros((1, config.width))
        )  # of DINOv2's own training; kept for a whole round trip
        self.patch_embed = PatchEmbed(config.width, rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.depth)])
        self.norm = LayerNorm(config.width)

    def __call__(self, images: jax.Array, remat: Remat = "none") -> dict[str, jax.Array]:
        """patch_embed [B, h*w, D]; tokens, block00, ... [B, 1 + h*w, D], class token first; tap0 ... 3 [B, h, w, D]."""
        with jax.named_scope("patch embedding"):
            x = self.patch_embed(images)
        batch, h, w, width = x.shape
        x = x.reshape(batch, h * w, width)
        stages = {"patch_embed": x}

        cls = jnp.broadcast_to(self.cls_token[...].astype(x.dtype), (batch, 1, width))
        x = jnp.concatenate([cls, x], axis=1) + position_table(self.pos_embed[...], h, w).astype(x.dtype)
        stages["tokens"] = x
        for index, block in enumerate(self.blocks):
            x = stages[f"block{index:02}"] = recomputed(block, remat)(x)
        for number, index in enumerate(self.taps):  # the final norm is applied to every tap; the class token is dropped
            tokens = self.norm(stages[f"block{index:02}"])[:, 1:]
            stages[f"tap{number}"] = tokens.reshape(batch, h, w, width)
        return stages


def position_table(table: jax.Array, h: int, w: int) -> jax.Array:
    """The position table [1, 1 + 37*37, D] for h x w patches: [1, 1 + h*w, D].

    DINOv2 interpolates with a scale of (h + 0.1) / 37, not h / 37, so the samples drift by up to a tenth of a patch;
    its weights are used so everywhere, and the drift is part of the model. A 37 x 37 grid is returned untouched.
    """
    if (h, w) == (GRID, GRID):
        return table
    grid = table[:, 1:].astype(jnp.float32).reshape(1, GRID, GRID, -1)
    grid = ops.resample(grid, ops.cubic_taps(GRID, h, step=GRID / (h + 0.1)), axis=1)
    grid = ops.resample(grid, ops.cubic_taps(GRID, w, step=GRID / (w + 0.1)), axis=2)
    return jnp.concatenate([table[:, :1].astype(jnp.float32), grid.reshape(1, h * w, -1)], axis=1)
