"""Weights and photos that anyone can rebuild bit for bit: the inputs of the stored references in `golden/`.

Every tensor of an official state dict is drawn from a Philox stream of its own, keyed by (seed, name), and scaled so
that activations stay in the range of a trained network: no dead ReLU, no saturated softmax, LayerScale far from 0.
"""

import hashlib

import numpy as np
from flax.traverse_util import flatten_dict

from dav2_jax.convert.keymap import entries
from dav2_jax.model.config import PRESETS


def state_dict(encoder: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Official name -> float32 array in PyTorch's layout."""
    return {e.official: tensor(e.official, e.torch_shape, seed) for e in entries(PRESETS[encoder])}


def tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    x = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, dtype=np.float32)
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
        return 1 + 0.1 * x
    if name.endswith("gamma"):
        return 0.3 + 0.05 * x
    if name.endswith(("cls_token", "pos_embed", "mask_token")):
        return 0.2 * x
    if name.endswith("output_conv2.2.weight"):
        return 0.0025 * np.abs(x)
    if name.endswith("output_conv2.2.bias"):
        return np.full(shape, -0.4, np.float32)
    if name.endswith("bias"):
        return 0.02 * x
    transposed = "resize_layers.0" in name or "resize_layers.1" in name
    fan_in = shape[0] if transposed else int(np.prod(shape[1:]))
    gain = 1.4 if "depth_head" in name else 1.0
    return np.multiply(x, gain / np.sqrt(fan_in), out=x, dtype=np.float64, casting="unsafe")


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: discs under noise."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    out = np.zeros((height, width, 3))
    for _ in range(12):
        cy, cx, r = rng.random() * height, rng.random() * width, (0.1 + 0.4 * rng.random()) * max(height, width)
        out += rng.random(3) * (((y - cy) ** 2 + (x - cx) ** 2) < r * r)[..., None]
    out = out / out.max() * 200 + rng.random((height, width, 3)) * 55
    return out.astype(np.uint8)


def flatten(tree: dict) -> dict:
    """{"a": {"b": x}} -> {"a.b": x}"""
    return flatten_dict(tree, sep=".")
