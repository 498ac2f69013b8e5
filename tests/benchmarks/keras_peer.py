"""KerasHub's DepthAnythingDepthEstimator with the weights of a Hugging Face folder.

KerasHub loads Depth Anything from its own presets only; it does have a converter for DINOv2, and its head has the
attributes of transformers' one, so the rest is a loop.
"""

from pathlib import Path

import keras
import keras_hub
import numpy as np
import safetensors.numpy
import transformers
from keras_hub.src.utils.transformers import convert_dinov2


class _Tensors:
    """What KerasHub's converters want of a loader."""

    def __init__(self, tensors: dict[str, np.ndarray], prefix: str):
        self.tensors, self.prefix = tensors, prefix

    def port_weight(self, keras_variable, hf_weight_key: str, hook_fn=None) -> None:
        tensor = self.tensors.pop(self.prefix + hf_weight_key)
        keras_variable.assign(hook_fn(tensor, keras_variable.shape) if hook_fn else tensor)


def load(folder: Path) -> keras.Model:
    """[B, 518, 518, 3] normalized -> {"depths": [B, 518, 518, 1]}."""
    config = transformers.DepthAnythingConfig.from_pretrained(folder)
    encoder = keras_hub.models.DINOV2Backbone(
        **convert_dinov2.convert_backbone_config(config.backbone_config.to_dict())
    )
    backbone = keras_hub.models.DepthAnythingBackbone(
        encoder,
        reassemble_factors=config.reassemble_factors,
        neck_hidden_dims=config.neck_hidden_sizes,
        fusion_hidden_dim=config.fusion_hidden_size,
        head_hidden_dim=config.head_hidden_size,
        head_in_index=config.head_in_index,
        feature_keys=config.backbone_config.out_features,
    )
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    convert_dinov2.convert_weights(encoder, _Tensors(tensors, "backbone."), None)
    for name in sorted({name.rpartition(".")[0] for name in tensors}):
        layer = backbone
        for step in name.replace(".layers.", ".").split("."):  # what is a list there is a list here
            layer = layer[int(step)] if step.isdigit() else getattr(layer, step)
        layer.kernel.assign(tensors[f"{name}.weight"].transpose(2, 3, 1, 0))
        if layer.use_bias:
            layer.bias.assign(tensors[f"{name}.bias"])
    return keras_hub.models.DepthAnythingDepthEstimator(backbone, depth_estimation_type="relative")
