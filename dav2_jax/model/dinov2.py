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
from dav2_jax.model.layers import LayerNorm, LayerScale, Linear, is_plain
from dav2_jax.model.remat import Remat, optimization_barrier, recomputed


class PatchEmbed(nnx.Module):
    """A convolution whose stride is its kernel, done as one matmul over the pixels of each patch."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.proj = Linear(PATCH * PATCH * 3, width, rngs=rngs)
        bound = (PATCH * PATCH * 3) ** -0.5  # PyTorch's default for a convolution, which DINOv2 leaves alone
        uniform = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.proj.kernel = nnx.Param(uniform(rngs.params(), self.proj.kernel.shape))
        self.proj.bias = nnx.Param(uniform(rngs.params(), (width,)))

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, h, w, D]"""
        return self.proj(ops.patches(images, PATCH))


class Attention(nnx.Module):
    """Multi-head self-attention; one projection makes queries, keys and values. [B, N, D] -> [B, N, D]."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = Linear(width, 3 * width, rngs=rngs)
        self.proj = Linear(width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.proj(self.hidden(x))

    def hidden(self, x: jax.Array) -> jax.Array:
        """All but the last layer."""
        return ops.self_attention(self.qkv(x), self.heads)

    @property
    def last(self) -> nnx.Module:
        return self.proj


class Mlp(nnx.Module):
    """Feed-forward of S, B and L. [B, N, D] -> [B, N, D]."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.fc1 = Linear(width, hidden, rngs=rngs)
        self.fc2 = Linear(hidden, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(self.hidden(x))

    def hidden(self, x: jax.Array) -> jax.Array:
        """All but the last layer."""
        if is_plain(Linear, self.fc1):
            return ops.linear_gelu(x, self.fc1.kernel[...], self.fc1.bias[...])
        return ops.gelu(self.fc1(x))

    @property
    def last(self) -> nnx.Module:
        return self.fc2


class SwiGLU(nnx.Module):
    """Feed-forward of G: one projection makes gate and value, in this order. [B, N, D] -> [B, N, D]."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.w12 = Linear(width, 2 * hidden, rngs=rngs)
        self.w3 = Linear(hidden, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.w3(self.hidden(x))

    def hidden(self, x: jax.Array) -> jax.Array:
        """All but the last layer."""
        gate, value = jnp.split(self.w12(x), 2, axis=-1)
        return jax.nn.silu(gate) * value

    @property
    def last(self) -> nnx.Module:
        return self.w3


def add_branch(x: jax.Array, branch: nnx.Module, scale: nnx.Module, normed: jax.Array) -> jax.Array:
    """x + scale(branch(normed)): the last projection, the scale and the sum are one operation where all are plain."""
    if type(branch) in (Attention, Mlp, SwiGLU) and is_plain(LayerScale, scale) and is_plain(Linear, branch.last):
        last = branch.last
        return ops.linear_residual(branch.hidden(normed), x, last.kernel[...], last.bias[...], scale.gamma[...])
    return x + scale(branch(normed))


class Block(nnx.Module):
    """Pre-norm transformer block. [B, N, D] -> [B, N, D]."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        ffn = Mlp if config.ffn == "mlp" else SwiGLU
        self.norm1 = LayerNorm(config.width)
        self.attn = Attention(config.width, config.heads, rngs=rngs)
        self.ls1 = LayerScale(config.width)
        self.norm2 = LayerNorm(config.width)
        self.mlp = ffn(config.width, config.hidden, rngs=rngs)
        self.ls2 = LayerScale(config.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("attention"):
            x = add_branch(x, self.attn, self.ls1, self.norm1(x))
        with jax.named_scope("feed-forward"):
            return optimization_barrier(add_branch(x, self.mlp, self.ls2, self.norm2(x)))


class DinoV2(nnx.Module):
    """The encoder: images [B, H, W, 3], normalized, H and W multiples of 14 -> its intermediate results, by name."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.taps = config.taps
        self.cls_token = nnx.Param(1e-6 * jax.random.normal(rngs.params(), (1, 1, config.width)))
        self.pos_embed = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, GRID * GRID + 1, config.width)))
        self.mask_token = nnx.Param(
            jnp.zeros((1, config.width))
        )  # of DINOv2's own training; kept for a whole round trip
        self.patch_embed = PatchEmbed(config.width, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
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
