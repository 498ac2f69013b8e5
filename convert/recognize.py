"""Which network a set of tensors belongs to: from names and shapes, then from the file name, then from the caller.

Names and shapes give the naming scheme and the encoder. They cannot tell relative from metric, the metres of a metric
model, or V1's taps from V2's: the official files differ in none of these. The name of a released file or repository
says them; for any other name the caller must, and what nobody says is an error that names the parameter.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dav2_jax.convert.stored_tensor import shown
from dav2_jax.errors import Dav2Error, InvalidValueError
from dav2_jax.model.config import PRESETS, Kind, ModelConfig, Taps

if TYPE_CHECKING:
    from dav2_jax.convert.keymap import Names

APACHE, NON_COMMERCIAL = "Apache-2.0", "CC-BY-NC-4.0"
UNKNOWN_LICENSE = "not stated by the source"


class Overrides(NamedTuple):
    """What a file name or the caller says; None where it is silent. `check` it when it comes from a caller.

    entry, prefix: which dict of a training checkpoint, and which of several networks in it, by the start of their names
    """

    kind: Kind | None = None
    max_depth: float | None = None
    taps: Taps | None = None
    entry: str | None = None
    prefix: str | None = None

    def check(self) -> "Overrides":
        """Itself, or a Dav2Error when a value is none of those possible."""
        if self.kind not in (None, "relative", "metric"):
            raise InvalidValueError(f"kind={self.kind!r} is neither relative nor metric")
        if self.taps not in (None, "v1", "v2"):
            raise InvalidValueError(f"taps={self.taps!r} is neither v1 nor v2")
        number = isinstance(self.max_depth, int | float) and not isinstance(self.max_depth, bool)
        if self.max_depth is not None and not (number and 0 < self.max_depth < float("inf")):
            raise InvalidValueError(f"max_depth={self.max_depth!r} is not a positive number of metres")
        return self


# What the names of released files and repositories say. The size is read from the tensors, not from the name.
_SIZE = "(small|base|large|giant)"
FILE_NAMES = [
    (r"depth_anything_v2_vit[sblg]", Overrides("relative", None, "v2")),
    (r"depth_anything_v2_metric_hypersim_vit[sblg]", Overrides("metric", 20.0, "v2")),
    (r"depth_anything_v2_metric_vkitti_vit[sblg]", Overrides("metric", 80.0, "v2")),
    (r"depth_anything_vit[sbl]14", Overrides("relative", None, "v1")),
    (rf"depth-anything-v2-{_SIZE}(-hf)?", Overrides("relative", None, "v2")),
    (rf"depth-anything-v2-metric-(hypersim|indoor)-{_SIZE}(-hf)?", Overrides("metric", 20.0, "v2")),
    (rf"depth-anything-v2-metric-(vkitti|outdoor)-{_SIZE}(-hf)?", Overrides("metric", 80.0, "v2")),
    (rf"depth-anything-{_SIZE}(-hf)?", Overrides("relative", None, "v1")),
    (rf"distill-any-depth(-(multi-teacher|dav2-teacher|{_SIZE}))*(-hf)?", Overrides("relative", None, "v2")),
]
# What downloads, copies and conversions to another precision or container add to a name; it changes no meaning.
_ADDED = re.compile(
    r"([\s._-]*\(\d+\)|[\s._-]+(copy|fp16|fp32|bf16|float16|float32|bfloat16|half|pth|pt|safetensors|bin|ckpt))+$",
    re.IGNORECASE,
)

# A part of a name that only another network has -> that network.
OTHER_NETWORKS = {
    "temporal_transformer.": "Video Depth Anything",
    ".resConfUnit_depth.": "Prompt Depth Anything",
    ".prompt_depth_layer.": "Prompt Depth Anything",
    "seed_bin_regressor.": "ZoeDepth, or the metric model of Depth Anything V1, which has ZoeDepth's head",
    "conditional_log_binomial.": "ZoeDepth, or the metric model of Depth Anything V1, which has ZoeDepth's head",
    "patch_encoder.": "Depth Pro",
    "fov.encoder.": "Depth Pro",
    "camera_token": "Depth Anything 3 or VGGT",
    "register_tokens": "a DINOv2 encoder with registers",
    "storage_tokens": "DINOv3",
    "rope_embed.": "DINOv3",
    "pixel_encoder.": "UniDepth",
    "points_head.": "MoGe",
    "relative_position_bias_table": "MiDaS or DPT on another encoder",
    "pretrained.model.": "MiDaS or DPT on another encoder",
    "pretrained.layer1.": "MiDaS",
    "dpt.embeddings.": "DPT on another encoder",
    "readout_projects.": "a head with class tokens (use_clstoken)",
    ".resConfUnit1.bn1.": "a head with batch normalization (use_bn)",
    ".residual_layer1.batch_norm1.": "a head with batch normalization (use_batch_norm_in_fusion_residual)",
    "down_blocks.": "a diffusion model (Marigold, GeoWizard)",
    "lora_": "LoRA adapters, or a model with them still apart: merge them (merge_and_unload() of peft)",
}
_KNOWN_HERE = "Depth Anything V1 and V2 and DINOv2 encoders are"

# naming scheme -> a name that only it has, a tensor of shape [..., D], and how a block's name begins
SCHEMES: dict["Names", tuple[str, str]] = {
    "official": ("pretrained.", r"pretrained\.blocks\.(\d+)\.norm1\.weight"),
    "hf": ("backbone.", r"backbone\.encoder\.layer\.(\d+)\.norm1\.weight"),
    "dinov2": ("blocks.", r"blocks\.(\d+)\.norm1\.weight"),
    "hf-dinov2": ("encoder.layer.", r"encoder\.layer\.(\d+)\.norm1\.weight"),
}


def scheme_of(where: str, shapes: Mapping[str, tuple[int, ...]]) -> "Names":
    """The naming scheme that most names follow. Raises Dav2Error when none does."""
    if other := other_network(shapes):
        raise Dav2Error(f"{where}: {other}")
    votes = Counter({scheme: sum(name.startswith(head) for name in shapes) for scheme, (head, _) in SCHEMES.items()})
    scheme, count = votes.most_common(1)[0]
    if not count:
        some = ", ".join(list(shapes)[:3]) or "none at all"
        raise Dav2Error(
            f"{where}: not the weights of a Depth Anything model or a DINOv2 encoder (its tensors: {some} ...)"
        )
    return scheme


def other_network(names: Iterable[str]) -> str | None:
    """What to say of a file with these names, when one of them is only in another network."""
    for name in names:
        for part, network in OTHER_NETWORKS.items():
            if part in name:
                return f"holds {network} (by its tensor {shown(name)}), which is not read here; {_KNOWN_HERE}"
    return None


def encoder_of(where: str, scheme: "Names", shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """The released size whose width the blocks have: a relative V2 config, or an encoder's for DINOv2 weights."""
    pattern = re.compile(SCHEMES[scheme][1])
    widths = Counter(shape[0] for name, shape in shapes.items() if pattern.fullmatch(name) and len(shape) == 1)
    width = widths.most_common(1)[0][0] if widths else None
    for config in PRESETS.values():
        if config.width == width:
            return config.replace(kind="encoder") if "dinov2" in scheme else config
    if width is None:
        raise Dav2Error(f"{where}: holds no transformer blocks (nothing is called {scheme_block(scheme)})")
    sizes = ", ".join(f"{c.width} ({name})" for name, c in PRESETS.items())
    raise Dav2Error(f"{where}: blocks of width {width} belong to no released size; known are {sizes}")


def scheme_block(scheme: "Names") -> str:
    """How a block's first tensor is called, for people."""
    return SCHEMES[scheme][1].replace("\\", "").replace("(d+)", "0")


def said_by_file_name(*names: str) -> Overrides:
    """What the first of these names that is a released one says (stem of the file, folder, repository); else nothing.

    `depth_anything_v2_vits_fp16`, `depth_anything_v2_vits (1)` and `depth_anything_v2_vits.pth` are such names too;
    `depth_anything_v2_vits_finetuned` is not: it could be metric by now.
    """
    for name in names:
        for pattern, said in FILE_NAMES:
            if re.fullmatch(pattern, _ADDED.sub("", name), re.IGNORECASE):
                return said
    return Overrides()


def resolve_config(where: str, config: ModelConfig, name: Overrides, flags: Overrides) -> ModelConfig:
    """`config` with kind, max depth and taps filled in: flags first, then the file name, else a Dav2Error."""
    flags.check()
    if config.kind == "encoder":
        if flags[:3] != (None, None, None):
            given = ", ".join(f"{name}={value}" for name, value in flags._asdict().items() if value is not None)
            raise InvalidValueError(f"{where}: an encoder alone has neither kind, depth nor taps: leave out {given}")
        return config
    if flags.kind == "relative" and flags.max_depth is not None:
        raise InvalidValueError("kind=relative and max_depth contradict each other: a relative model has no metres")
    kind = flags.kind or ("metric" if flags.max_depth is not None else name.kind)
    max_depth = flags.max_depth if flags.max_depth is not None else name.max_depth
    taps = flags.taps or name.taps

    unsaid = []
    if kind is None:
        unsaid.append("whether it is relative or metric: pass kind=relative, or max_depth=METRES")
    elif kind == "metric" and max_depth is None:
        unsaid.append("its maximum depth: pass max_depth=METRES (20 if trained on Hypersim, 80 on Virtual KITTI)")
    if taps is None:
        unsaid.append("which blocks feed its head: pass taps=v2 (Depth Anything V2) or taps=v1")
    if unsaid:
        raise Dav2Error(f"{where}: neither its tensors nor its name say " + "; nor ".join(unsaid))
    return config.with_taps(taps).replace(kind=kind, max_depth=max_depth if kind == "metric" else None)


def license_of(name: str, config: ModelConfig) -> str:
    """License of the released file of this name, as its authors give it on the hub; unknown for any other name."""
    bare = _ADDED.sub("", name).lower()
    if said_by_file_name(bare).taps == "v1" or re.fullmatch(r"dinov2_vit[sblg]14_pretrain", bare):
        return APACHE
    if said_by_file_name(bare).taps == "v2" and not bare.startswith("distill"):
        return APACHE if config.encoder == "small" else NON_COMMERCIAL
    return UNKNOWN_LICENSE
