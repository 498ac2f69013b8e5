"""Feature alignment: a frozen encoder runs beside the trained one, and the features of the two shall stay close.

Depth Anything V1, section 3.3; V2's students keep it ("following V1"). It holds on to what DINOv2 knows about parts of
objects while depth is learnt. The frozen encoder is a part of the state's parameters, so it is sharded, saved and
restored with them, and a run goes on without the files it came from. No optimizer, average or export has it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.depth_anything import Params
from dav2_jax.model.remat import Remat
from dav2_jax.training.losses import feature_alignment

FROZEN = "frozen"  # beside "pretrained" and "depth_head"; holds a "pretrained" of its own


def beside(params: Params, encoder: Params) -> Params:
    """`params` with the frozen encoder."""
    return params | {FROZEN: {"pretrained": encoder}}


def without(params: Params) -> Params:
    """`params` of the network alone."""
    return {part: tree for part, tree in params.items() if part != FROZEN}


def apply(
    config: ModelConfig, params: Params, images: jax.Array, dtype=jnp.float32, remat: Remat = "none"
) -> dict[str, jax.Array]:
    """As `depth_anything.apply`: {"depth": [B, H, W], "features": and "frozen": [B, h * w, D]}.

    Features are the encoder's last, normalized, without the class token, of the same images.
    """
    stages = depth_anything.stages(config, params, images, dtype, remat)
    encoder = config.replace(kind="encoder", max_depth=None)
    frozen = depth_anything.stages(encoder, jax.lax.stop_gradient(params[FROZEN]), images, dtype)
    batch, *_, width = stages["tap3"].shape
    features, frozen = (stage["tap3"].reshape(batch, -1, width) for stage in (stages, frozen))
    return {"depth": stages["depth"], "features": features, "frozen": frozen}


def aligned(loss, weight: float):
    """`loss` of the depth, plus `weight` times L_feat over all positions, on what `apply` gives."""

    def total(prediction: dict[str, jax.Array], batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        value, parts = loss(prediction["depth"], batch)
        alignment = feature_alignment(prediction["features"], prediction["frozen"])
        return value + weight * alignment, parts | {"features": alignment}

    return total
