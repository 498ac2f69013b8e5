"""Depth Anything V2 in JAX: official weights in, exact depth out.

    import dav2_jax as dav2
    model = dav2.load("small")                 # name, .pth, .safetensors, Hugging Face folder or our checkpoint folder
    depth = model.predict("photo.jpg")         # np.asarray(depth) is (H, W) float32; depth.unit says what it means

Public names are imported on first use: importing the package itself imports neither jax nor any optional package.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "load": "dav2_jax.inference.load",
    "Weights": "dav2_jax.convert.weights",
    "preprocess": "dav2_jax.image.preprocess",
    "Model": "dav2_jax.inference.predictor",
    "Depth": "dav2_jax.inference.depth",
    "DepthAnything": "dav2_jax.model.depth_anything",
    "plain_operations": "dav2_jax.kernels.dispatch",
    "predict_video": "dav2_jax.video.predict",
    "align_to_metric": "dav2_jax.inference.align",
    "ModelConfig": "dav2_jax.model.config",
    "PRESETS": "dav2_jax.model.config",
    "Dav2Error": "dav2_jax.errors",
}
__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dav2_jax' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__():
    return __all__
