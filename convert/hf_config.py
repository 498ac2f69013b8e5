"""Hugging Face's `config.json` and `preprocessor_config.json`, read strictly, written for `transformers`.

Reading refuses whatever this network does not implement instead of ignoring it.
Source: `DepthAnythingConfig`, `Dinov2Config` and `DPTImageProcessor` of transformers.
"""

import json
import re
from pathlib import Path

from dav2_jax.convert.recognize import APACHE, NON_COMMERCIAL, UNKNOWN_LICENSE, Overrides
from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import GRID, MLP_RATIO, PATCH, PRESETS, ModelConfig

# Of the photos that DINOv2 was trained on, RGB; the network's input is normalized with the same in `preprocess`.
IMAGE_MEAN, IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# What a config may say that the network has built in: attribute -> the only values it implements (first: the default).
BACKBONE_FIXED = {
    "model_type": ["dinov2"],
    "patch_size": [16, PATCH],
    "image_size": [224, GRID * PATCH],
    "mlp_ratio": [MLP_RATIO],
    "hidden_act": ["gelu"],
    "layer_norm_eps": [1e-6],
    "qkv_bias": [True],
    "num_channels": [3],
}
HEAD_FIXED = {
    "model_type": ["depth_anything"],
    "patch_size": [PATCH],
    "reassemble_factors": [[4, 2, 1, 0.5]],
    "head_hidden_size": [32],
    "head_in_index": [-1],
}
BACKBONE_HEAD_FIXED = {"apply_layernorm": [True], "reshape_hidden_states": [False]}


def read_config(folder: Path, overrides: Overrides = Overrides()) -> ModelConfig | None:  # noqa: B008 (a NamedTuple is immutable)
    """The config of a Hugging Face folder; None without a config.json. Raises Dav2Error for another model.

    overrides: for the maximum depth of a metric model whose config leaves it open
    """
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text())
        if values.get("model_type") == "dinov2":
            return _encoder(file, values).replace(kind="encoder")
        return _depth_model(file, values, overrides)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise Dav2Error(f"{file}: cannot be read as the config of a Depth Anything model ({error!r})") from None


def _depth_model(file: Path, values: dict, overrides: Overrides) -> ModelConfig:
    _check(file, values, HEAD_FIXED, must_say=["model_type"])
    backbone = values["backbone_config"] or {}
    encoder = _encoder(file, backbone)
    _check(file, backbone, BACKBONE_HEAD_FIXED, must_say=["reshape_hidden_states"])
    kind = values.get("depth_estimation_type") or "relative"
    if kind not in ("relative", "metric"):
        raise Dav2Error(f"{file}: depth_estimation_type {kind!r} is neither relative nor metric")
    max_depth = values.get("max_depth")
    if max_depth is None:
        max_depth = overrides.max_depth
    if kind == "metric" and max_depth is None:
        raise Dav2Error(
            f"{file}: a metric model that does not say its depth range: pass max_depth=METRES (20 if trained on "
            "Hypersim, 80 on Virtual KITTI)"
        )
    return encoder.replace(
        features=values.get("fusion_hidden_size", 64),
        out_channels=tuple(values.get("neck_hidden_sizes", (48, 96, 192, 384))),
        taps=_taps(file, backbone),
        kind=kind,
        max_depth=float(max_depth) if kind == "metric" else None,
    )


def _encoder(file: Path, values: dict) -> ModelConfig:
    _check(file, values, BACKBONE_FIXED, must_say=["model_type", "patch_size", "image_size"])
    sizes = {
        "width": values.get("hidden_size", 768),
        "depth": values.get("num_hidden_layers", 12),
        "heads": values.get("num_attention_heads", 12),
        "ffn": "swiglu" if values.get("use_swiglu_ffn", False) else "mlp",
    }
    for preset in PRESETS.values():
        if all(getattr(preset, key) == value for key, value in sizes.items()):
            return preset
    # A size of someone's own: usable all the same, as the config says all there is to know about it.
    return PRESETS["small"].replace(encoder="custom", taps=tuple(range(sizes["depth"] - 4, sizes["depth"])), **sizes)


def _taps(file: Path, backbone: dict) -> tuple[int, ...]:
    """`out_indices` counts the embeddings as 0, so block b is b + 1; `out_features` says the same with names."""
    stages = [re.fullmatch(r"stage(\d+)", name) for name in backbone.get("out_features") or []]
    named = [int(stage[1]) if stage else 0 for stage in stages]  # 0: the embeddings, no block
    indices = list(backbone.get("out_indices") or named)
    if len(indices) != 4 or (named and named != indices):
        raise Dav2Error(f"{file}: out_indices {indices} and out_features {named} do not name the same four blocks")
    return tuple(index - 1 for index in indices)


def _check(file: Path, values: dict, fixed: dict[str, list], must_say: list[str]) -> None:
    for key, allowed in fixed.items():
        value = values.get(key, None if key in must_say else allowed[0])
        if key in ("image_size", "patch_size") and isinstance(value, list) and len(set(map(repr, value))) == 1:
            value = value[0]  # [518, 518]: height and width
        if value not in (allowed[1:] or allowed):
            raise Dav2Error(f"{file}: {key} = {value!r} is not what this network is (it implements {allowed[-1]!r})")


def read_license(folder: Path) -> str:
    """The license named in a repository's README, or that there is none."""
    try:
        head = (folder / "README.md").read_text(errors="replace")[:4096]
    except OSError:
        return UNKNOWN_LICENSE
    found = re.search(r"^---\n.*?^license:\s*([\w.-]+)\s*$.*?^---$", head, re.MULTILINE | re.DOTALL)
    spelled = {name.lower(): name for name in (APACHE, NON_COMMERCIAL)}
    return spelled.get(found[1].lower(), found[1]) if found else UNKNOWN_LICENSE


def contradiction(config: ModelConfig, flags: Overrides, file: str = "config.json") -> str | None:
    """How a flag and a checkpoint that says it all itself contradict each other, if they do. `file`: what says it."""
    flags.check()
    if flags.kind not in (None, config.kind):
        return f"kind={flags.kind} contradicts its {file}, which says {config.kind}"
    if flags.max_depth not in (None, config.max_depth):
        says = f"{config.max_depth:g}" if config.max_depth else f"that it is {config.kind}"
        return f"max_depth={flags.max_depth:g} contradicts its {file}, which says {says}"
    if flags.taps is not None and config.kind != "encoder" and config.with_taps(flags.taps).taps != config.taps:
        return f"taps={flags.taps} contradicts its {file}, which says {config.taps}"
    return None


def model_config_json(config: ModelConfig) -> dict:
    """`config.json` of the depth model, or of the bare encoder."""
    backbone = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "mlp_ratio": MLP_RATIO,
        "use_swiglu_ffn": config.ffn == "swiglu",
        "image_size": GRID * PATCH,
        "patch_size": PATCH,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "hidden_act": "gelu",
    }
    if config.kind == "encoder":
        return backbone
    outs = [tap + 1 for tap in config.taps]
    backbone |= {
        "apply_layernorm": True,
        "reshape_hidden_states": False,
        "out_indices": outs,
        "out_features": [f"stage{index}" for index in outs],
    }
    values = {
        "architectures": ["DepthAnythingForDepthEstimation"],
        "model_type": "depth_anything",
        "backbone_config": backbone,
        "patch_size": PATCH,
        "reassemble_hidden_size": config.width,
        "reassemble_factors": [4, 2, 1, 0.5],
        "neck_hidden_sizes": list(config.out_channels),
        "fusion_hidden_size": config.features,
        "head_in_index": -1,
        "head_hidden_size": 32,
        "depth_estimation_type": config.kind,
    }
    if config.kind == "metric":
        # transformers accepts whole metres only
        values["max_depth"] = int(config.max_depth) if config.max_depth == int(config.max_depth) else config.max_depth
    return values


def preprocessor_config_json() -> dict:
    """`preprocessor_config.json`. The processor itself differs from the official path: it resizes in 8 bits."""
    return {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": GRID * PATCH, "width": GRID * PATCH},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": PATCH,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
        "do_pad": False,
        "size_divisor": None,
    }
