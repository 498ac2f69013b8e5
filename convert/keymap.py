"""THE key table: every parameter's name and layout in the official files, on the Hugging Face hub, and here.

Our name for a parameter is the official one, except for its last part. A row stands for one module of the network;
`{b}` runs over blocks, `{k}` over the four taps. The table is total and one-to-one: `entries` fails when a row
matches nothing, or a parameter of the network is covered by no row or by two.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from dav2_jax.model.config import PATCH, ModelConfig
from dav2_jax.model.depth_anything import abstract_params

Names = Literal["official", "hf", "dinov2", "hf-dinov2"]

# kind of module -> its tensors: (our leaf, official leaf, Hugging Face leaf, layout)
MODULES = {
    "array": [("", "", "", "same")],
    "norm": [(".scale", ".weight", ".weight", "same"), (".bias", ".bias", ".bias", "same")],
    "scale": [(".gamma", ".gamma", ".lambda1", "same")],
    "linear": [(".kernel", ".weight", ".weight", "linear"), (".bias", ".bias", ".bias", "same")],
    "patch": [(".kernel", ".weight", ".weight", "patch"), (".bias", ".bias", ".bias", "same")],
    "conv": [(".kernel", ".weight", ".weight", "conv"), (".bias", ".bias", ".bias", "same")],
    "conv, no bias": [(".kernel", ".weight", ".weight", "conv")],
    "up": [(".kernel", ".weight", ".weight", "up"), (".bias", ".bias", ".bias", "same")],
}

# fmt: off
ROWS = [
    # official and ours                         Hugging Face                                                 module
    ("pretrained.cls_token",                    "backbone.embeddings.cls_token",                             "array"),
    ("pretrained.pos_embed",                    "backbone.embeddings.position_embeddings",                   "array"),
    ("pretrained.mask_token",                   "backbone.embeddings.mask_token",                            "array"),
    ("pretrained.patch_embed.proj",             "backbone.embeddings.patch_embeddings.projection",           "patch"),
    ("pretrained.blocks.{b}.norm1",             "backbone.encoder.layer.{b}.norm1",                          "norm"),
    ("pretrained.blocks.{b}.attn.qkv",          "backbone.encoder.layer.{b}.attention.attention.query|key|value", "linear"),
    ("pretrained.blocks.{b}.attn.proj",         "backbone.encoder.layer.{b}.attention.output.dense",         "linear"),
    ("pretrained.blocks.{b}.ls1",               "backbone.encoder.layer.{b}.layer_scale1",                   "scale"),
    ("pretrained.blocks.{b}.norm2",             "backbone.encoder.layer.{b}.norm2",                          "norm"),
    ("pretrained.blocks.{b}.mlp.fc1",           "backbone.encoder.layer.{b}.mlp.fc1",                        "linear"),
    ("pretrained.blocks.{b}.mlp.fc2",           "backbone.encoder.layer.{b}.mlp.fc2",                        "linear"),
    ("pretrained.blocks.{b}.mlp.w12",           "backbone.encoder.layer.{b}.mlp.weights_in",                 "linear"),
    ("pretrained.blocks.{b}.mlp.w3",            "backbone.encoder.layer.{b}.mlp.weights_out",                "linear"),
    ("pretrained.blocks.{b}.ls2",               "backbone.encoder.layer.{b}.layer_scale2",                   "scale"),
    ("pretrained.norm",                         "backbone.layernorm",                                        "norm"),
    ("depth_head.projects.{k}",                 "neck.reassemble_stage.layers.{k}.projection",               "conv"),
    ("depth_head.resize_layers.0",              "neck.reassemble_stage.layers.0.resize",                     "up"),
    ("depth_head.resize_layers.1",              "neck.reassemble_stage.layers.1.resize",                     "up"),
    ("depth_head.resize_layers.3",              "neck.reassemble_stage.layers.3.resize",                     "conv"),
    ("depth_head.scratch.layer1_rn",            "neck.convs.0",                                              "conv, no bias"),
    ("depth_head.scratch.layer2_rn",            "neck.convs.1",                                              "conv, no bias"),
    ("depth_head.scratch.layer3_rn",            "neck.convs.2",                                              "conv, no bias"),
    ("depth_head.scratch.layer4_rn",            "neck.convs.3",                                              "conv, no bias"),
    ("depth_head.scratch.refinenet{r}.out_conv",            "neck.fusion_stage.layers.{f}.projection",       "conv"),
    ("depth_head.scratch.refinenet{r}.resConfUnit1.conv1",  "neck.fusion_stage.layers.{f}.residual_layer1.convolution1", "conv"),
    ("depth_head.scratch.refinenet{r}.resConfUnit1.conv2",  "neck.fusion_stage.layers.{f}.residual_layer1.convolution2", "conv"),
    ("depth_head.scratch.refinenet{r}.resConfUnit2.conv1",  "neck.fusion_stage.layers.{f}.residual_layer2.convolution1", "conv"),
    ("depth_head.scratch.refinenet{r}.resConfUnit2.conv2",  "neck.fusion_stage.layers.{f}.residual_layer2.convolution2", "conv"),
    ("depth_head.scratch.output_conv1",         "head.conv1",                                                "conv"),
    ("depth_head.scratch.output_conv2.0",       "head.conv2",                                                "conv"),
    ("depth_head.scratch.output_conv2.2",       "head.conv3",                                                "conv"),
]
# fmt: on

# layout -> (PyTorch to ours, ours to PyTorch); both give views
LAYOUTS = {
    "same": (lambda a: a, lambda a: a),
    "linear": (lambda a: a.T, lambda a: a.T),  # [O, I] <-> [I, O]
    "conv": (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),  # OIHW <-> HWIO
    "up": (lambda a: a.transpose(2, 3, 0, 1), lambda a: a.transpose(2, 3, 0, 1)),  # IOHW <-> HWIO
    "patch": (  # OIHW <-> [H * W * I, O]
        lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
        lambda a: a.reshape(PATCH, PATCH, -1, a.shape[-1]).transpose(3, 2, 0, 1),
    ),
}


class Entry(NamedTuple):
    """One parameter of one network.

    name:        ours, dotted
    shape:       ours
    torch_shape: of the official tensor
    official:    its official name
    hf:          its Hugging Face names: one, or three whose tensors are stacked on axis 0 (query, key, value)
    layout:      key of LAYOUTS
    """

    name: str
    shape: tuple[int, ...]
    torch_shape: tuple[int, ...]
    official: str
    hf: tuple[str, ...]
    layout: str

    def names(self, scheme: Names) -> tuple[str, ...]:
        """What the parameter is called in a kind of file; several names are parts stacked on axis 0."""
        if scheme == "hf":
            return self.hf
        if scheme == "hf-dinov2":
            return tuple(name.removeprefix("backbone.") for name in self.hf)
        return (self.official.removeprefix("pretrained.") if scheme == "dinov2" else self.official,)

    def part_shape(self, scheme: Names) -> tuple[int, ...]:
        """Shape of the tensor behind each of `names(scheme)`."""
        if not self.torch_shape:
            return ()
        return (self.torch_shape[0] // len(self.names(scheme)), *self.torch_shape[1:])

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        return LAYOUTS[self.layout][0](array)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        return LAYOUTS[self.layout][1](array)


@functools.lru_cache
def entries(config: ModelConfig) -> tuple[Entry, ...]:
    """The table for one network: an entry a parameter, in the order of the official state dict."""
    shapes = {name: leaf.shape for name, leaf in flatten_dict(abstract_params(config), sep=".").items()}
    found: dict[str, Entry] = {}
    for number, (official, hf, module) in _numbered_rows(config):
        fill = dict.fromkeys("bk", number) | {"r": number + 1, "f": 3 - number}  # the fusion path: coarsest map first
        stem, hf_stem = official.format(**fill), hf.format(**fill)
        for leaf, official_leaf, hf_leaf, layout in MODULES[module]:
            name = stem + leaf
            if name not in shapes:
                continue  # another feed-forward, or no head
            if name in found:
                raise AssertionError(f"two rows of the key table cover {name}")
            head, _, last = hf_stem.rpartition(".")
            hf_names = tuple(f"{head}.{part}{hf_leaf}" for part in last.split("|"))
            torch_shape = LAYOUTS[layout][1](np.empty(shapes[name], np.bool_)).shape
            found[name] = Entry(name, shapes[name], torch_shape, stem + official_leaf, hf_names, layout)
    if uncovered := shapes.keys() - found.keys():
        raise AssertionError(f"no row of the key table covers {sorted(uncovered)}")
    return tuple(found.values())


def _numbered_rows(config: ModelConfig) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Rows with the numbers for their placeholders, in the order of the official state dict: block by block."""

    def placeholder(row) -> str:
        return row[0].partition("{")[2][:1]

    for letter, group in itertools.groupby(ROWS, placeholder):
        rows = list(group)
        for number in range({"": 1, "b": config.depth}.get(letter, 4)):
            yield from ((number, row) for row in rows)
