"""The DPT head (Ranftl et al., 2021): four taps of the encoder in, one map out.

Attribute names are those of the official `depth_anything_v2/dpt.py`, so a parameter's path is its official name.
"""

import functools

import jax
from flax import nnx

from dav2_jax.model import ops
from dav2_jax.model.config import PATCH, ModelConfig
from dav2_jax.model.layers import Conv, ConvTranspose, Identity, ReLU, is_plain, relu_conv, resize_conv
from dav2_jax.model.remat import Remat, recomputed


class ResidualConvUnit(nnx.Module):
    """x + conv2(relu(conv1(relu(x))))"""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.conv1 = Conv(features, features, 3, rngs=rngs)
        self.conv2 = Conv(features, features, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return relu_conv(relu_conv(x, self.conv1), self.conv2, residual=x)


class FeatureFusionBlock(nnx.Module):
    """Adds a finer map to the path, refines, and resizes to the next map's size, if there is one."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.out_conv = Conv(features, features, 1, rngs=rngs)
        self.resConfUnit1 = ResidualConvUnit(features, rngs=rngs)
        self.resConfUnit2 = ResidualConvUnit(features, rngs=rngs)

    def __call__(self, x: jax.Array, skip: jax.Array | None, size: tuple[int, int] | None = None) -> jax.Array:
        if skip is not None:  # the coarsest block has none; its resConfUnit1 is in every checkpoint but never used
            x = x + self.resConfUnit1(skip)
        x = self.resConfUnit2(x)
        if size is None:
            return self.out_conv(x)
        if self.resize_commutes:  # with the 1 x 1 convolution, which costs a quarter before it
            return ops.resize_bilinear(self.out_conv(x), *size)
        return self.out_conv(ops.resize_bilinear(x, *size))  # the official order

    @property
    def resize_commutes(self) -> bool:
        return is_plain(FeatureFusionBlock, self) and is_plain(Conv, self.out_conv)


class Scratch(nnx.Module):
    """The part of the head that the paper trains from scratch."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        features = config.features
        self.layer1_rn = Conv(config.out_channels[0], features, 3, rngs=rngs, bias=False)
        self.layer2_rn = Conv(config.out_channels[1], features, 3, rngs=rngs, bias=False)
        self.layer3_rn = Conv(config.out_channels[2], features, 3, rngs=rngs, bias=False)
        self.layer4_rn = Conv(config.out_channels[3], features, 3, rngs=rngs, bias=False)
        self.refinenet1 = FeatureFusionBlock(features, rngs=rngs)
        self.refinenet2 = FeatureFusionBlock(features, rngs=rngs)
        self.refinenet3 = FeatureFusionBlock(features, rngs=rngs)
        self.refinenet4 = FeatureFusionBlock(features, rngs=rngs)
        self.output_conv1 = Conv(features, features // 2, 3, rngs=rngs)
        self.output_conv2 = nnx.List([Conv(features // 2, 32, 3, rngs=rngs), ReLU(), Conv(32, 1, 1, rngs=rngs)])


class DPTHead(nnx.Module):
    """Four taps [B, h, w, D] -> the head's stages, by name; the last is output_conv2, float32 [B, 14 h, 14 w]."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        c = config.out_channels
        self.last = jax.nn.sigmoid if config.kind == "metric" else jax.nn.relu
        self.projects = nnx.List([Conv(config.width, channels, 1, rngs=rngs) for channels in c])
        self.resize_layers = nnx.List(
            [
                ConvTranspose(c[0], 4, rngs=rngs),
                ConvTranspose(c[1], 2, rngs=rngs),
                Identity(),
                Conv(c[3], c[3], 3, rngs=rngs, stride=2),
            ]
        )
        self.scratch = Scratch(config, rngs=rngs)

    def __call__(self, taps: list[jax.Array], remat: Remat = "none") -> dict[str, jax.Array]:
        stages = recomputed(self._reassemble, remat)(taps)
        stages |= recomputed(self._fuse, remat)([stages[f"layer{k}_rn"] for k in (1, 2, 3, 4)])
        path = stages["refinenet1"]
        _, h, w, _ = taps[0].shape
        stages["refinenet1"] = ops.resize_bilinear(path, 8 * h, 8 * w)  # for those who ask; below, part of an op
        return stages | recomputed(functools.partial(self._output, h, w), remat)(path)

    @jax.named_scope("head: reassemble")
    def _reassemble(self, taps: list[jax.Array]) -> dict[str, jax.Array]:
        """layer1_rn [B, 4h, 4w, F], layer2_rn [B, 2h, 2w, F], layer3_rn [B, h, w, F], layer4_rn [B, h/2, w/2, F]."""
        s, stages = self.scratch, {}
        for k, (tap, layer) in enumerate(zip(taps, (s.layer1_rn, s.layer2_rn, s.layer3_rn, s.layer4_rn), strict=True)):
            stages[f"project{k}"] = self.projects[k](tap)
            stages[f"resize{k}"] = self.resize_layers[k](stages[f"project{k}"])
            stages[f"layer{k + 1}_rn"] = layer(stages[f"resize{k}"])
        return stages

    @jax.named_scope("head: fuse")
    def _fuse(self, layers: list[jax.Array]) -> dict[str, jax.Array]:
        """refinenet4 ... 1, coarse to fine; the last is [B, 4h, 4w, F] where the next op can do its resize."""
        s, (layer1, layer2, layer3, layer4), stages = self.scratch, layers, {}
        path = stages["refinenet4"] = s.refinenet4(layer4, None, layer3.shape[1:3])
        path = stages["refinenet3"] = s.refinenet3(path, layer3, layer2.shape[1:3])
        path = stages["refinenet2"] = s.refinenet2(path, layer2, layer1.shape[1:3])
        _, height, width, _ = layer1.shape
        later = is_plain(FeatureFusionBlock, s.refinenet1) and s.refinenet1.resize_commutes
        stages["refinenet1"] = s.refinenet1(path, layer1, None if later else (2 * height, 2 * width))
        return stages

    @jax.named_scope("head: output")
    def _output(self, h: int, w: int, path: jax.Array) -> dict[str, jax.Array]:
        """output_conv1 [B, 8h, 8w, F / 2] and output_conv2 [B, 14h, 14w], from [B, 4h, 4w, F]."""
        s = self.scratch
        middle = resize_conv(path, 8 * h, 8 * w, s.output_conv1)
        path = resize_conv(middle, PATCH * h, PATCH * w, *s.output_conv2)
        return {"output_conv1": middle, "output_conv2": self.last(path)}
