"""The official network in PyTorch, stage by stage: the live reference of `dav2 verify`.

It is `DepthAnythingForDepthEstimation` of transformers, given the position table of the official code (transformers
leaves out DINOv2's offset of 0.1). Its weights are the source's own tensors, renamed but never in our layouts: a wrong
transpose here cannot cancel out. A folder of ours has only our layouts left; verify the original file as well.
"""

import numpy as np

from dav2_jax.convert import hf_config
from dav2_jax.convert.keymap import entries
from dav2_jax.convert.weights import Weights
from dav2_jax.convert.write import torch_tensors
from dav2_jax.errors import Dav2Error
from dav2_jax.image.resize import network_size
from dav2_jax.model.config import GRID, PATCH, ModelConfig


def torch_reference(weights: Weights, x: np.ndarray, photo: np.ndarray, input_size: int) -> dict[str, np.ndarray]:
    """All stages of one photo, from PyTorch in float32.

    x:     the network's input, float32 [H', W', 3], normalized
    photo: uint8 [H, W, 3], for the size of `depth` and, where OpenCV is installed, for the official `input`
    Returns tokens [1, N, D], maps [1, C, h, w], input [H', W', 3], net [H', W'] and depth [H, W], by name.
    Raises Dav2Error when torch or transformers is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise Dav2Error(
            f"no PyTorch reference here ({error.name} is not installed): pip install torch transformers, "
            "or compare with stored numbers through against=FILE"
        ) from None

    config = weights.config
    model = _torch_model(transformers, torch, config, _torch_tensors(weights))
    depth_model = config.kind != "encoder"
    backbone = model.backbone if depth_model else model
    backbone.embeddings.interpolate_pos_encoding = _official_positions(torch, backbone.embeddings)

    watched = {"patch_embed": backbone.embeddings.patch_embeddings, "tokens": backbone.embeddings, "taps": backbone}
    watched |= {f"block{b:02}": layer for b, layer in enumerate(backbone.encoder.layer)}
    if depth_model:
        neck = model.neck
        for k, layer in enumerate(neck.reassemble_stage.layers):
            watched |= {f"project{k}": layer.projection, f"resize{k}": layer, f"layer{k + 1}_rn": neck.convs[k]}
            watched[f"refinenet{4 - k}"] = neck.fusion_stage.layers[k]
        watched |= {"output_conv1": model.head.conv1, "output_conv2": model.head.activation2}
    seen = {}
    for name, module in watched.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    with torch.inference_mode():
        out = model(torch.from_numpy(x.transpose(2, 0, 1)[None].copy()))
        h, w = x.shape[0] // PATCH, x.shape[1] // PATCH
        taps = seen.pop("taps").feature_maps
        seen |= {f"tap{k}": t[:, 1:].transpose(1, 2).unflatten(2, (h, w)) for k, t in enumerate(taps)}
        arrays = {n: (t[0] if isinstance(t, tuple) else t).numpy() for n, t in seen.items()}
        if depth_model:
            net = out.predicted_depth[None]
            full = torch.nn.functional.interpolate(net, photo.shape[:2], mode="bilinear", align_corners=True)
            arrays |= {"net": net[0, 0].numpy(), "depth": full[0, 0].numpy()}
    return _opencv_input(photo, input_size) | arrays


def _torch_model(transformers, torch, config: ModelConfig, tensors: dict[str, np.ndarray]):
    """The transformers model with these weights, loaded through its own `from_pretrained`."""
    values = hf_config.model_config_json(config)
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    if config.kind == "encoder":
        values |= {"out_indices": [tap + 1 for tap in config.taps], "reshape_hidden_states": False}
        cls, config_cls = transformers.Dinov2Backbone, transformers.Dinov2Config
    else:
        cls, config_cls = transformers.DepthAnythingForDepthEstimation, transformers.DepthAnythingConfig
    transformers.utils.logging.disable_progress_bar()
    return cls.from_pretrained(None, config=config_cls.from_dict(values), state_dict=state, dtype=torch.float32).eval()


def _torch_tensors(weights: Weights) -> dict[str, np.ndarray]:
    """The source's tensors as they are in the file, float32, under Hugging Face names."""
    target = "hf-dinov2" if weights.config.kind == "encoder" else "hf"
    if weights.stored is None:
        return {n: t.read().astype(np.float32, copy=False) for n, t in torch_tensors(weights, target).items()}
    tensors = {}
    for entry in entries(weights.config):
        whole = np.concatenate([np.atleast_1d(weights.stored[name].read()) for name in entry.names(weights.names)])
        names = entry.names(target)
        tensors |= zip(names, np.split(whole.astype(np.float32, copy=False), len(names)), strict=True)
    return tensors


def _official_positions(torch, embeddings):
    """`interpolate_pos_encoding` of the official `dinov2.py`, for the transformers module."""

    def interpolate(_tokens, height: int, width: int):
        h, w, table = height // PATCH, width // PATCH, embeddings.position_embeddings
        if (h, w) == (GRID, GRID):
            return table
        grid = table[:, 1:].unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
        scale = ((h + 0.1) / GRID, (w + 0.1) / GRID)
        grid = torch.nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    return interpolate


def _opencv_input(photo: np.ndarray, input_size: int) -> dict[str, np.ndarray]:
    """The official network input, in double precision through OpenCV; nothing where OpenCV is not installed."""
    try:
        import cv2
    except ImportError:
        return {}
    height, width = network_size(*photo.shape[:2], input_size)
    resized = cv2.resize(photo / 255.0, (width, height), interpolation=cv2.INTER_CUBIC)
    return {"input": ((resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)}
