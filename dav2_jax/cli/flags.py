"""Flags that several commands share: which weights, and what a weights file may not say about itself."""

from __future__ import annotations

from typing import Annotated, Literal

from dav2_jax.cli.parse import arg

MODEL = (
    "Name of a released model, which is downloaded once (dav2 models lists them: small, base, large, "
    "metric-indoor-small, ...), or a path: .pth, .safetensors, Hugging Face folder, folder of dav2 convert."
)

_FROM_MODEL = "(default: as the checkpoint says)"

# What a weights file may not say about itself. Released names need none of these.
Kind = Annotated[
    Literal["relative", "metric"] | None,
    arg(
        help="For a weights file of your own that does not say it: relative (disparity) or metric (metres).",
        help_behavior_hint=_FROM_MODEL,
    ),
]
MaxDepth = Annotated[
    float | None,
    arg(
        metavar="METRES",
        help="Metric weights of your own: the largest depth they were trained for (20 for Hypersim, 80 for VKITTI).",
        help_behavior_hint=_FROM_MODEL,
    ),
]
Taps = Annotated[
    Literal["v1", "v2"] | None,
    arg(
        help="Weights of your own: the encoder layers that feed the head, as in Depth Anything v1 (the last four) "
        "or v2 (spread over the depth). A wrong choice loads and gives wrong depth.",
        help_behavior_hint=_FROM_MODEL,
    ),
]

# Which weights of a training checkpoint, where it holds several.
Entry = Annotated[
    str | None,
    arg(
        metavar="NAME",
        help="Training checkpoint with several sets of weights: the dict to take, such as model_ema or teacher.model.",
        help_behavior_hint="(default: the only one)",
    ),
]
Prefix = Annotated[
    str | None,
    arg(
        metavar="NAME",
        help="Training checkpoint with several networks: how the names of the tensors to take begin, such as student.",
        help_behavior_hint="(default: the only one)",
    ),
]
