"""The DPT head (Ranftl et al., 2021): four taps of the encoder in, one map out.

Attribute names are those of the official `depth_anything_v2/dpt.py`, so a parameter's path is its official name.
"""

import jax
from flax import nnx

from dav2_jax.model import ops
from dav2_jax.model.config import PATCH, ModelConfig
from dav2_jax.model.remat import Remat, recomputed


class Conv(nnx.Module):
    """Square convolution, padded so that stride 1 keeps the size. [B, H, W, I] -> [B, H / stride, W / stride, O]."""

    def __init__(self, inputs: int, outputs: int, size: int, rngs: nnx.Rngs, *, stride: int = 1, bias: bool = True):
        self.stride = stride
        bound = (inputs * size * size) ** -0.5  # PyTorch's default
        shape = (size, size, inputs, outputs)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))
        self.bias = (
            nnx.Param(jax.random.uniform(rngs.params(), (outputs,), minval=-bound, maxval=bound)) if bias else None
        )

    def __call__(self, x: jax.Array, *, relu: bool = False, add: jax.Array | None = None) -> jax.Array:
        """relu: of x first; add: to the result."""
        bias = None if self.bias is None else self.bias[...]
        return ops.conv(x, self.kernel[...], bias, stride=self.stride, relu=relu, add=add)


class ConvTranspose(nnx.Module):
    """Upsampling by its kernel size. [B, h, w, C] -> [B, size * h, size * w, C]."""

    def __init__(self, channels: int, size: int, rngs: nnx.Rngs):
        bound = (channels * size * size) ** -0.5  # PyTorch's default
        shape = (size, size, channels, channels)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))
        self.bias = nnx.Param(jax.random.uniform(rngs.params(), (channels,), minval=-bound, maxval=bound))

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.conv_transpose(x, self.kernel[...], self.bias[...])


class Identity(nnx.Module):
    """Keeps the numbering of the official `resize_layers`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


class ResidualConvUnit(nnx.Module):
    def __init__(self, features: int, rngs: nnx.Rngs):
        self.conv1 = Conv(features, features, 3, rngs)
        self.conv2 = Conv(features, features, 3, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv2(self.conv1(x, relu=True), relu=True, add=x)


class FeatureFusionBlock(nnx.Module):
    """Adds a finer map to the path, refines, and resizes to the next map's size, if there is one."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.out_conv = Conv(features, features, 1, rngs)
        self.resConfUnit1 = ResidualConvUnit(features, rngs)
        self.resConfUnit2 = ResidualConvUnit(features, rngs)

    def __call__(self, x: jax.Array, skip: jax.Array | None, size: tuple[int, int] | None = None) -> jax.Array:
        if skip is not None:  # the coarsest block has none; its resConfUnit1 is in every checkpoint but never used
            x = x + self.resConfUnit1(skip)
        x = self.resConfUnit2(x)
        # The official order is resize, then out_conv. A 1x1 convolution and a resize commute, and this costs a quarter.
        x = self.out_conv(x)
        return ops.resize_bilinear(x, *size) if size else x


class Scratch(nnx.Module):
    """The part of the head that the paper trains from scratch."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        features = config.features
        self.layer1_rn = Conv(config.out_channels[0], features, 3, rngs, bias=False)
        self.layer2_rn = Conv(config.out_channels[1], features, 3, rngs, bias=False)
        self.layer3_rn = Conv(config.out_channels[2], features, 3, rngs, bias=False)
        self.layer4_rn = Conv(config.out_channels[3], features, 3, rngs, bias=False)
        self.refinenet1 = FeatureFusionBlock(features, rngs)
        self.refinenet2 = FeatureFusionBlock(features, rngs)
        self.refinenet3 = FeatureFusionBlock(features, rngs)
        self.refinenet4 = FeatureFusionBlock(features, rngs)
        self.output_conv1 = Conv(features, features // 2, 3, rngs)
        self.output_conv2 = nnx.List([Conv(features // 2, 32, 3, rngs), Identity(), Conv(32, 1, 1, rngs)])


class DPTHead(nnx.Module):
    """Four taps [B, h, w, D] -> the head's stages, by name; the last is output_conv2, float32 [B, 14 h, 14 w]."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        c = config.out_channels
        self.last = jax.nn.sigmoid if config.kind == "metric" else jax.nn.relu
        self.projects = nnx.List([Conv(config.width, channels, 1, rngs) for channels in c])
        self.resize_layers = nnx.List(
            [
                ConvTranspose(c[0], 4, rngs),
                ConvTranspose(c[1], 2, rngs),
                Identity(),
                Conv(c[3], c[3], 3, rngs, stride=2),
            ]
        )
        self.scratch = Scratch(config, rngs)

    def __call__(self, taps: list[jax.Array], remat: Remat = "none") -> dict[str, jax.Array]:
        stages = recomputed(self._reassemble, remat)(taps)
        stages |= recomputed(self._fuse, remat)([stages[f"layer{k}_rn"] for k in (1, 2, 3, 4)])
        path = stages["refinenet1"]
        _, h, w, _ = taps[0].shape
        stages["refinenet1"] = ops.resize_bilinear(path, 8 * h, 8 * w)  # for those who ask; below, part of an op
        return stages | recomputed(self._output, remat)(path)

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
        """refinenet4 ... 1, coarse to fine; the last is [B, 4h, 4w, F], not yet resized."""
        s, (layer1, layer2, layer3, layer4), stages = self.scratch, layers, {}
        path = stages["refinenet4"] = s.refinenet4(layer4, None, layer3.shape[1:3])
        path = stages["refinenet3"] = s.refinenet3(path, layer3, layer2.shape[1:3])
        path = stages["refinenet2"] = s.refinenet2(path, layer2, layer1.shape[1:3])
        stages["refinenet1"] = s.refinenet1(path, layer1)
        return stages

    @jax.named_scope("head: output")
    def _output(self, path: jax.Array) -> dict[str, jax.Array]:
        """output_conv1 [B, 8h, 8w, F / 2] and output_conv2 [B, 14h, 14w], from [B, 4h, 4w, F]."""
        _, h, w, _ = path.shape
        conv1, (conv2, _, conv3) = self.scratch.output_conv1, self.scratch.output_conv2
        middle = ops.resize_conv(path, 2 * h, 2 * w, conv1.kernel[...], conv1.bias[...])
        last = conv3.kernel[...], conv3.bias[...]
        path = ops.resize_conv(middle, h // 4 * PATCH, w // 4 * PATCH, conv2.kernel[...], conv2.bias[...], *last)
        return {"output_conv1": middle, "output_conv2": self.last(path)}
