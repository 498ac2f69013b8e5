"""Depth Anything V2 in JAX: official weights in, exact depth out.

    import dav2_jax as dav2
    model = dav2.load("small")                 # name, .pth, .safetensors, Hugging Face folder or our checkpoint folder
    depth = model.predict("photo.jpg")         # np.asarray(depth) is (H, W) float32; depth.unit says what it means

Public names are imported on first use: importing the package itself imports neither jax nor any optional package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what an editor and a type checker see
    from dav2_jax.convert.weights import Weights
    from dav2_jax.errors import Dav2Error
    from dav2_jax.image.preprocess import preprocess
    from dav2_jax.inference.align import align_to_metric
    from dav2_jax.inference.depth import Depth
    from dav2_jax.inference.load import load
    from dav2_jax.inference.predictor import Model
    from dav2_jax.kernels.dispatch import plain_operations
    from dav2_jax.model.config import PRESETS, ModelConfig
    from dav2_jax.model.depth_anything import DepthAnything
    from dav2_jax.video.predict import predict_video

__version__ = "0.1.0"

_PUBLIC = {
    "Dav2Error": "dav2_jax.errors",
    "Depth": "dav2_jax.inference.depth",
    "DepthAnything": "dav2_jax.model.depth_anything",
    "Model": "dav2_jax.inference.predictor",
    "ModelConfig": "dav2_jax.model.config",
    "PRESETS": "dav2_jax.model.config",
    "Weights": "dav2_jax.convert.weights",
    "align_to_metric": "dav2_jax.inference.align",
    "load": "dav2_jax.inference.load",
    "plain_operations": "dav2_jax.kernels.dispatch",
    "predict_video": "dav2_jax.video.predict",
    "preprocess": "dav2_jax.image.preprocess",
}
__all__ = [
    "PRESETS",
    "Dav2Error",
    "Depth",
    "DepthAnything",
    "Model",
    "ModelConfig",
    "Weights",
    "__version__",
    "align_to_metric",
    "load",
    "plain_operations",
    "predict_video",
    "preprocess",
]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dav2_jax' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__():
    return __all__
