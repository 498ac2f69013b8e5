"""Sizes and kinds of Depth Anything models: a frozen config, and one table with a row for every size.

Four sizes are the released ones; nano is this project's own, small enough to come with it.

Sources: DINOv2's model table, and `model_configs` and `intermediate_layer_idx` of Depth Anything V1 and V2.
"""

import dataclasses
from typing import Literal, get_args

from dav2_jax.image.resize import PATCH as PATCH  # beside the other sizes of the network

GRID = 37  # the position table holds GRID x GRID patches: 518 x 518 pixels
MLP_RATIO = 4
MAX_SIZE = 16_384  # of a config's widths and depth, far above any real one

Ffn = Literal["mlp", "swiglu"]
Kind = Literal["relative", "metric", "encoder"]
Taps = Literal["v1", "v2"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What fixes a network's shape and the meaning of its output.

    encoder:      name of the size, for people
    width:        D, channels of a token
    depth:        number of transformer blocks
    heads:        K; every head has D / K = 64 channels in the released sizes
    ffn:          "mlp" (fc1, GELU, fc2) or "swiglu" (w12, w3)
    features:     channels of the DPT fusion path
    out_channels: channels of the four reassembled maps, finest first
    taps:         0-based blocks whose outputs feed the head
    kind:         "relative" (affine-invariant disparity), "metric" (metres), or "encoder" (DINOv2 alone, no head)
    max_depth:    metric only: the sigmoid is multiplied by this many metres
    input_size:   shorter side at which the network sees a photo unless told otherwise, in pixels
    """

    encoder: str
    width: int
    depth: int
    heads: int
    ffn: Ffn
    features: int
    out_channels: tuple[int, int, int, int]
    taps: tuple[int, int, int, int]
    kind: Kind = "relative"
    max_depth: float | None = None
    input_size: int = 518

    def __post_init__(self):
        """Raises ValueError for a network that cannot be: configs come from files, and files from strangers."""
        sizes = (self.width, self.depth, self.heads, self.features, *self.out_channels, self.input_size)
        if not all(isinstance(size, int) and 0 < size <= MAX_SIZE for size in sizes):
            raise ValueError(f"sizes must be whole numbers from 1 to {MAX_SIZE:,}, not {sizes}")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        if self.ffn not in get_args(Ffn) or self.kind not in get_args(Kind):
            known = f"{get_args(Ffn)} and {get_args(Kind)}"
            raise ValueError(f"ffn {self.ffn!r} or kind {self.kind!r} is unknown; known are {known}")
        if len(self.out_channels) != 4 or len(self.taps) != 4:
            raise ValueError(f"the head has four taps: taps={self.taps}, out_channels={self.out_channels}")
        if not all(isinstance(tap, int) and 0 <= tap < self.depth for tap in self.taps):
            raise ValueError(f"taps {self.taps} are not all among the blocks 0 to {self.depth - 1}")
        if (self.kind == "metric") != (self.max_depth is not None):
            raise ValueError(f"max_depth belongs to metric models: kind={self.kind!r}, max_depth={self.max_depth!r}")
        if self.max_depth is not None and not (
            isinstance(self.max_depth, int | float) and 0 < self.max_depth < float("inf")
        ):
            raise ValueError(f"max_depth must be a positive number of metres, not {self.max_depth!r}")

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer; SwiGLU keeps the parameter count and rounds up to a multiple of 8."""
        if self.ffn == "mlp":
            return MLP_RATIO * self.width
        return (int(MLP_RATIO * self.width * 2 / 3) + 7) // 8 * 8

    @property
    def unit(self) -> Literal["disparity", "metres"]:
        """What a pixel of the output means."""
        return "metres" if self.kind == "metric" else "disparity"

    def replace(self, **changes) -> "ModelConfig":
        return dataclasses.replace(self, **changes)

    def with_taps(self, version: Taps) -> "ModelConfig":
        """V1 taps the last four blocks; V2 spreads them over the depth."""
        last_four = tuple(range(self.depth - 4, self.depth))
        return self.replace(taps=last_four if version == "v1" else PRESETS.get(self.encoder, self).taps)

    @classmethod
    def from_dict(cls, values: dict) -> "ModelConfig":
        """The inverse of `dataclasses.asdict`, also after a trip through JSON.

        Raises TypeError on a missing or unknown field, ValueError on an impossible value.
        """
        pairs = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**pairs)


# fmt: off
PRESETS = {row.encoder: row for row in [
    #           encoder  width depth heads ffn       features out_channels              taps
    ModelConfig("small",   384,   12,    6, "mlp",         64, (48, 96, 192, 384),      (2, 5, 8, 11)),
    ModelConfig("base",    768,   12,   12, "mlp",        128, (96, 192, 384, 768),     (2, 5, 8, 11)),
    ModelConfig("large",  1024,   24,   16, "mlp",        256, (256, 512, 1024, 1024),  (4, 11, 17, 23)),
    ModelConfig("giant",  1536,   40,   24, "swiglu",     384, (1536, 1536, 1536, 1536), (9, 19, 29, 39)),
    ModelConfig("nano",    192,    6,    3, "mlp",         32, (96, 96, 96, 96),        (1, 2, 4, 5), input_size=210),
]}
# fmt: on
