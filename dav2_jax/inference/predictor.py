"""A loaded model: parameters, the pure function that uses them, and `predict` from a photo to `Depth`."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.geometry import focal_from_exif
from dav2_jax.inference.preprocess import MAX_PIXELS, postprocess, preprocess, read_image
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.depth_anything import Params


class Model:
    """What `dav2_jax.load` returns.

    config:  ModelConfig
    params:  nested dict of float32 JAX arrays
    dtype:   of the computation, float32 or bfloat16
    licence: of the weights
    fn:      fn(params, images) -> depth, [B, H, W, 3] float (normalised) -> [B, H, W] float32; pure and not jitted,
             so `jax.jit`, `grad`, `vmap` and shard it yourself
    """

    def __init__(self, config: ModelConfig, params: Params, *, dtype="float32", licence: str = "not stated"):
        if config.kind == "encoder":
            raise Dav2Error(
                "these are the weights of a DINOv2 encoder alone, a start for training, without a head to predict depth"
            )
        self.config, self.params, self.licence = config, params, licence
        self.dtype = jnp.dtype(dtype)
        self.fn = functools.partial(depth_anything.apply, config, dtype=self.dtype)
        self._apply = jax.jit(self.fn)
        self._taps = jax.jit(self._tap_stages)

    def __repr__(self) -> str:
        return f"Model({self.config.encoder}, {self.config.kind}, {self.config.unit}, {self.dtype})"

    def predict(self, photo, *, input_size: int = 518, max_pixels: int = MAX_PIXELS) -> Depth | list[Depth]:
        """Depth of a photo, at the photo's size.

        photo: a path, a PIL image or a uint8 RGB array [H, W, 3]; a list or tuple of these gives a list.
        input_size: shorter side of what the network sees, in pixels; larger gives finer edges and costs more.
        max_pixels: photos of more pixels are refused.
        Raises Dav2Error, in one line, for a photo that cannot be read or is too large.
        """
        if isinstance(photo, list | tuple):
            return [self.predict(one, input_size=input_size, max_pixels=max_pixels) for one in photo]
        image, focal_length, x = self._prepare(photo, input_size, max_pixels)
        net = np.asarray(self._apply(self.params, x[None])[0])
        return Depth(
            postprocess(net, *image.shape[:2]),
            self.config.unit,
            image=image,
            max_depth=self.config.max_depth,
            focal_length=focal_length,
        )

    def features(self, photo, *, input_size: int = 518, max_pixels: int = MAX_PIXELS) -> tuple[jax.Array, ...]:
        """The encoder's four taps for one photo, each [h, w, D]: one token a 14 x 14 patch of the resized photo.

        These are DINOv2's normalised patch features as depth training left them. Arguments and errors as in `predict`.
        """
        _, _, x = self._prepare(photo, input_size, max_pixels)
        return tuple(tap[0] for tap in self._taps(self.params, x[None]))

    def _tap_stages(self, params, images):
        stages = depth_anything.stages(self.config, params, images, self.dtype)
        return tuple(stages[f"tap{k}"] for k in range(4))

    def _prepare(self, photo, input_size: int, max_pixels: int):
        """(photo uint8 [H, W, 3], focal length in pixels or None, network input float32 [H', W', 3])"""
        image, exif = read_image(photo, max_pixels=max_pixels)
        try:
            x = preprocess(image, input_size)
        except Dav2Error as error:
            where = f"{os.fspath(photo)}: " if isinstance(photo, str | os.PathLike) else ""
            raise Dav2Error(f"{where}{error}") from None
        height, width = image.shape[:2]
        return image, focal_from_exif(exif, width, height), x
