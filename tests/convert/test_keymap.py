"""The key table: total, one-to-one, and true to PyTorch's layouts."""

import json

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dav2_jax.convert.keymap import LAYOUTS, entries
from dav2_jax.model.config import PRESETS
from dav2_jax.model.depth_anything import abstract_params


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", ["relative", "encoder"])
def test_total_and_one_to_one(preset, kind):
    config = PRESETS[preset].replace(kind=kind)
    table = entries(config)
    assert {entry.name for entry in table} == set(flatten_dict(abstract_params(config), sep="."))
    for scheme in ("official", "hf", "dinov2", "hf-dinov2"):
        names = [name for entry in table for name in entry.names(scheme)]
        assert len(names) == len(set(names))


def test_some_rows_by_hand():
    table = {entry.name: entry for entry in entries(PRESETS["giant"])}
    qkv = table["pretrained.blocks.39.attn.qkv.kernel"]
    assert (qkv.shape, qkv.torch_shape) == ((1536, 4608), (4608, 1536))
    prefix = "backbone.encoder.layer.39.attention.attention."
    assert qkv.names("hf") == tuple(prefix + part + ".weight" for part in ("query", "key", "value"))
    assert qkv.part_shape("hf") == (1536, 1536)
    assert qkv.names("dinov2") == ("blocks.39.attn.qkv.weight",)
    assert table["pretrained.blocks.0.mlp.w12.bias"].names("hf") == ("backbone.encoder.layer.0.mlp.weights_in.bias",)
    assert table["depth_head.scratch.refinenet4.out_conv.bias"].names("hf") == (
        "neck.fusion_stage.layers.0.projection.bias",
    )
    assert table["pretrained.norm.scale"].names("hf-dinov2") == ("layernorm.weight",)


def test_every_transformers_name_is_covered(tiny_hf):
    """Names as `transformers` writes them, for both feed-forwards and both kinds of file."""
    from dav2_jax.convert.hf_config import read_config
    from dav2_jax.convert.torch_file import open_weights

    for kind, swiglu in [("relative", False), ("metric", True), ("encoder", True)]:
        folder = tiny_hf(kind, swiglu=swiglu)
        scheme = "hf-dinov2" if kind == "encoder" else "hf"
        stored = {name: tensor.shape for name, tensor in open_weights(folder).items()}
        table = entries(read_config(folder))
        assert stored == {name: e.part_shape(scheme) for e in table for name in e.names(scheme)}, json.dumps(kind)


def test_order_is_that_of_the_official_state_dict():
    names = [entry.official for entry in entries(PRESETS["small"])]
    assert names[:3] == ["pretrained.cls_token", "pretrained.pos_embed", "pretrained.mask_token"]
    blocks = [int(name.split(".")[2]) for name in names if ".blocks." in name]
    assert blocks == sorted(blocks)
    fusion = [name.split(".")[2] for name in names if "refinenet" in name]
    assert fusion == sorted(fusion)
    assert names[-1] == "depth_head.scratch.output_conv2.2.bias"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_invert(layout):
    shape = {"same": (5,), "linear": (3, 4), "patch": (5, 3, 14, 14)}.get(layout, (5, 4, 3, 3))
    array = np.arange(np.prod(shape)).reshape(shape)
    there, back = LAYOUTS[layout]
    np.testing.assert_array_equal(back(there(array)), array)
