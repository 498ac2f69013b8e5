"""The layers that the network is built of, and the operations that fuse neighbors of them.

A module always calls its children, so a child can be wrapped or replaced by any module of the same signature. Where all
the children that take part are the plain layers below, a fused operation gives the same numbers faster.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from dav2_jax.model import conv, ops


class Linear(nnx.Module):
    """x [..., I] -> [..., O]."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
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
    """A learned factor for each channel, at the end of a residual branch."""

    def __init__(self, width: int):
        self.gamma = nnx.Param(jnp.ones(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * jnp.expand_dims(self.gamma[...].astype(x.dtype), range(x.ndim - 1))


class Conv(nnx.Module):
    """Square convolution, padded so that stride 1 keeps the size. [B, H, W, I] -> [B, H / stride, W / stride, O]."""

    def __init__(self, inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs, stride: int = 1, bias: bool = True):
        self.stride = stride
        bound = (inputs * size * size) ** -0.5  # PyTorch's default
        shape = (size, size, inputs, outputs)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))
        self.bias = (
            nnx.Param(jax.random.uniform(rngs.params(), (outputs,), minval=-bound, maxval=bound)) if bias else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return conv.conv(x, self.kernel[...], self._bias, stride=self.stride)

    @property
    def _bias(self) -> jax.Array | None:
        return None if self.bias is None else self.bias[...]


class ConvTranspose(nnx.Module):
    """Upsampling by its kernel size. [B, h, w, C] -> [B, size * h, size * w, C]."""

    def __init__(self, channels: int, size: int, *, rngs: nnx.Rngs):
        bound = (channels * size * size) ** -0.5  # PyTorch's default
        shape = (size, size, channels, channels)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))
        self.bias = nnx.Param(jax.random.uniform(rngs.params(), (channels,), minval=-bound, maxval=bound))

    def __call__(self, x: jax.Array) -> jax.Array:
        return conv.conv_transpose(x, self.kernel[...], self.bias[...])


class ReLU(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x)


class Identity(nnx.Module):
    """Keeps the numbering of the official `resize_layers`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def is_plain(cls: type, *modules: nnx.Module) -> bool:
    """Whether all are of exactly this class: no subclass, wrapper or replacement of a user's."""
    return all(type(module) is cls for module in modules)


def relu_conv(x: jax.Array, layer: nnx.Module, residual: jax.Array | None = None) -> jax.Array:
    """layer(relu(x)), plus `residual`."""
    if is_plain(Conv, layer):
        return conv.conv(x, layer.kernel[...], layer._bias, stride=layer.stride, relu=True, add=residual)
    y = layer(jax.nn.relu(x))
    return y if residual is None else y + residual


def resize_conv(x: jax.Array, height: int, width: int, layer: nnx.Module, *then: nnx.Module) -> jax.Array:
    """layer(x resized to height x width) [B, height, width, O], corners aligned.

    then: an activation, ReLU, and a 1 x 1 convolution to one channel; the result is [B, height, width] float32.
    """
    if is_plain(Conv, layer, *then[1:]) and is_plain(ReLU, *then[:1]):
        last = (then[1].kernel[...], then[1].bias[...]) if then else ()
        return conv.resize_conv(x, height, width, layer.kernel[...], layer.bias[...], *last)
    y = layer(ops.resize_bilinear(x, height, width))
    for module in then:
        y = module(y)
    return y[..., 0].astype(jnp.float32) if then else y
