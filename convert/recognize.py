"""Which network a set of tensors belongs to: from names and shapes, then from the file name, then from flags.

Names and shapes give the naming scheme and the encoder. They cannot tell relative from metric, the metres of a metric
model, or V1's taps from V2's: the official files differ in none of these. A released file's name says them; for any
other name the caller must, and what nobody says is an error that names the flag.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import PRESETS, Kind, ModelConfig, Taps

if TYPE_CHECKING:
    from dav2_jax.convert.keymap import Names

APACHE, NON_COMMERCIAL = "Apache-2.0", "CC-BY-NC-4.0"
UNKNOWN_LICENSE = "not stated by the source"


class Overrides(NamedTuple):
    """What a file name or the caller says; None where it is silent. `check` it when it comes from a caller."""

    kind: Kind | None = None
    max_depth: float | None = None
    taps: Taps | None = None

    def check(self) -> "Overrides":
        """Itself, or a Dav2Error when a value is none of those possible."""
        if self.kind not in (None, "relative", "metric"):
            raise Dav2Error(f"kind (--kind) {self.kind!r} is neither relative nor metric")
        if self.taps not in (None, "v1", "v2"):
            raise Dav2Error(f"taps (--taps) {self.taps!r} are neither v1 nor v2")
        number = isinstance(self.max_depth, int | float) and not isinstance(self.max_depth, bool)
        if self.max_depth is not None and not (number and 0 < self.max_depth < float("inf")):
            raise Dav2Error(f"max_depth (--max-depth) {self.max_depth!r} is not a positive number of metres")
        return self


# What the names of released files say (stem of the file, or the folder that a repository was cloned to).
FILE_NAMES = [
    (r"depth_anything_v2_vit[sblg]", Overrides("relative", None, "v2")),
    (r"depth_anything_v2_metric_hypersim_vit[sbl]", Overrides("metric", 20.0, "v2")),
    (r"depth_anything_v2_metric_vkitti_vit[sbl]", Overrides("metric", 80.0, "v2")),
    (r"depth_anything_vit[sbl]14", Overrides("relative", None, "v1")),
]

# naming scheme -> a name that only it has, a tensor of shape [..., D], and how a block's name begins
SCHEMES: dict["Names", tuple[str, str]] = {
    "official": ("pretrained.", r"pretrained\.blocks\.(\d+)\.norm1\.weight"),
    "hf": ("backbone.", r"backbone\.encoder\.layer\.(\d+)\.norm1\.weight"),
    "dinov2": ("blocks.", r"blocks\.(\d+)\.norm1\.weight"),
    "hf-dinov2": ("encoder.layer.", r"encoder\.layer\.(\d+)\.norm1\.weight"),
}


def scheme_of(where: str, shapes: Mapping[str, tuple[int, ...]]) -> "Names":
    """The naming scheme that most names follow. Raises Dav2Error when none does."""
    votes = Counter({scheme: sum(name.startswith(head) for name in shapes) for scheme, (head, _) in SCHEMES.items()})
    scheme, count = votes.most_common(1)[0]
    if not count:
        some = ", ".join(list(shapes)[:3]) or "none at all"
        raise Dav2Error(
            f"{where}: not the weights of a Depth Anything model or a DINOv2 encoder (its tensors: {some} ...)"
        )
    return scheme


def encoder_of(where: str, scheme: "Names", shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """The released size whose width the blocks have: a relative V2 config, or an encoder's for DINOv2 weights."""
    pattern = re.compile(SCHEMES[scheme][1])
    widths = Counter(shape[0] for name, shape in shapes.items() if pattern.fullmatch(name) and len(shape) == 1)
    width = widths.most_common(1)[0][0] if widths else None
    for config in PRESETS.values():
        if config.width == width:
            return config.replace(kind="encoder") if "dinov2" in scheme else config
    sizes = ", ".join(f"{c.width} ({name})" for name, c in PRESETS.items())
    raise Dav2Error(f"{where}: blocks of width {width} belong to no released size; known are {sizes}")


def told_by_file_name(stem: str) -> Overrides:
    """What the name of a released file says about its content; silent about any other name."""
    for pattern, told in FILE_NAMES:
        if re.fullmatch(pattern, stem, re.IGNORECASE):
            return told
    return Overrides()


def resolve_config(where: str, config: ModelConfig, name: Overrides, flags: Overrides) -> ModelConfig:
    """`config` with kind, max depth and taps filled in: flags first, then the file name, else a Dav2Error."""
    flags.check()
    if config.kind == "encoder":
        if flags != Overrides():
            raise Dav2Error(f"{where}: an encoder alone has no --kind, --max-depth or --taps")
        return config
    if flags.kind == "relative" and flags.max_depth is not None:
        raise Dav2Error("--kind relative and --max-depth contradict each other: a relative model has no metres")
    kind = flags.kind or ("metric" if flags.max_depth is not None else name.kind)
    max_depth = flags.max_depth if flags.max_depth is not None else name.max_depth
    taps = flags.taps or name.taps

    unsaid = []
    if kind is None:
        unsaid.append("whether it is relative or metric: pass --kind relative, or --max-depth METRES")
    elif kind == "metric" and max_depth is None:
        unsaid.append("its maximum depth: pass --max-depth METRES (20 if trained on Hypersim, 80 on Virtual KITTI)")
    if taps is None:
        unsaid.append("which blocks feed its head: pass --taps v2 (Depth Anything V2) or --taps v1")
    if unsaid:
        raise Dav2Error(f"{where}: neither its tensors nor its name say " + "; nor ".join(unsaid))
    return config.with_taps(taps).replace(kind=kind, max_depth=max_depth if kind == "metric" else None)


def license_of(stem: str, config: ModelConfig) -> str:
    """License of the released file of this name, as its authors give it on the hub; unknown for any other name."""
    if told_by_file_name(stem).taps == "v1" or re.fullmatch(r"dinov2_vit[sblg]14_pretrain", stem):
        return APACHE
    if told_by_file_name(stem).taps == "v2":
        return APACHE if config.encoder == "small" else NON_COMMERCIAL
    return UNKNOWN_LICENSE
