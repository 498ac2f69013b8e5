"""A loaded model: parameters, the pure function that uses them, and `predict` from photos to `Depth`."""

from __future__ import annotations

import contextlib
import functools
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict
from PIL import Image

import dav2_jax
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error, check_choice, check_whole
from dav2_jax.image.preprocess import postprocess, preprocess
from dav2_jax.image.quiet import warn
from dav2_jax.image.read import MAX_PIXELS, name_of, read_header, read_photo
from dav2_jax.image.resize import check_input_size
from dav2_jax.inference import pipeline
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.geometry import focal_from_exif
from dav2_jax.inference.pipeline import Outcome
from dav2_jax.inference.preprocess import preprocess_on_device
from dav2_jax.inference.programs import Programs
from dav2_jax.inference.tiles import check_tiles, predict_tiled
from dav2_jax.kernels import cpu
from dav2_jax.model import depth_anything, ops
from dav2_jax.model.depth_anything import Params
from dav2_jax.sharding import inference_devices, on_any_mesh
from dav2_jax.weights.convert import Target, save

Resize = Literal["photo", "network"]
OnePhoto = str | os.PathLike | Image.Image | np.ndarray

ACCELERATOR_BATCH = 8  # photos a device; a CPU is busy with one
_BYTES_A_PIXEL = 16  # of a photo while it is decoded or its depth is written; measured with color and npy
_UNKNOWN_PIXELS = 25_000_000  # of a photo whose header says nothing before it is read: an address, a pipe


class _Photo(NamedTuple):
    image: np.ndarray  # uint8 [H, W, 3]
    focal_length: float | None  # pixels
    notes: tuple[str, ...]


class Model:
    """What `dav2_jax.load` returns.

    config:   ModelConfig
    params:   nested dict of float32 JAX arrays
    dtype:    of the computation, float32 or bfloat16
    license:  of the weights; provenance: where they came from
    devices:  that batches are split over; by default all accelerators of this host, or the CPU
    fn:       fn(params, images) -> depth, [B, H, W, 3] float (normalized) -> [B, H, W] float32; pure and not jitted,
              so `jax.jit`, `grad`, `vmap` and shard it yourself, over a mesh of any axis types
    module:   the same as a Flax module, model.module(images). Wrap or replace its layers, train them: from then on
              `fn`, `params`, `predict` and `save` are of the module as it is
    programs: what was compiled until now, and in how many seconds
    """

    def __init__(
        self,
        weights: Weights,
        *,
        dtype="float32",
        devices: Sequence[jax.Device] | None = None,
    ):
        self.config, self.license, self.provenance = weights.config, weights.license, weights.provenance
        self.dtype = jnp.dtype(dtype)
        self.devices = list(devices or inference_devices())
        if self.devices[0].platform == "cpu":
            cpu.available()  # compiles the kernels, and says so, before anything waits for them
        self._params = weights.arrays()
        self._fn = on_any_mesh(functools.partial(depth_anything.apply, self.config, dtype=self.dtype))
        self._module: nnx.Module | None = None  # once it was asked for
        self.programs = Programs(_with_kernels_in(self.dtype, self._params), self.devices)
        # Programs are kept by function object: one for each pair of options, freed with this model.
        self._whole = functools.lru_cache(self._from_photos)

    def __repr__(self) -> str:
        return f"Model({self.config.encoder}, {self.config.kind}, {self.config.unit}, {self.dtype})"

    @property
    def module(self) -> depth_anything.DepthAnything:
        if self._module is None:
            self._module = depth_anything.module(self.config, self._params, self.dtype)
            self._graph, _ = nnx.split(self._module)
        return self._module

    @property
    def fn(self) -> Callable[[Params, jax.Array], jax.Array]:
        self._follow_module()
        return self._fn

    @property
    def params(self) -> Params:
        self._follow_module()
        return self._params

    def _follow_module(self) -> None:
        """Takes over what was changed in the module, and compiles anew where its structure is another."""
        if self._module is None:
            return
        graph, state = nnx.split(self._module)
        leaves = jax.tree.leaves(nnx.to_pure_dict(state))
        if graph == self._graph and all(map(operator.is_, leaves, jax.tree.leaves(self._params))):
            return
        fn, self._params = depth_anything.split(self._module)
        if graph != self._graph:
            self._graph, self._fn = graph, on_any_mesh(fn)
            self._whole.cache_clear()
        self.programs.replace(_with_kernels_in(self.dtype, self._params))

    @overload
    def predict(self, photo: OnePhoto, **options: Any) -> Depth: ...

    @overload
    def predict(self, photo: list | tuple, **options: Any) -> list[Depth]: ...

    @overload
    def predict(self, photo: Iterable, **options: Any) -> Iterator[Depth]: ...

    def predict(
        self,
        photo,
        *,
        input_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        resize: Resize = "photo",
        batch_size: int | None = None,
        tiles: int | Literal["auto"] | None = None,
    ) -> Depth | list[Depth] | Iterator[Depth]:
        """Depth of a photo, or of many.

        photo: a path, an http(s) address, the bytes of a file, a file open in binary mode, a PIL image or a uint8 RGB
            array [H, W, 3]; a list or tuple of these gives a list, any other iterable an iterator, which takes photos
            as it goes and holds a few at a time, in order. Files are turned upright by their EXIF orientation; a PIL
            image is while it is the file that was opened, and taken as it is once it was converted, turned, ...
        input_size: shorter side of what the network sees, in pixels; larger gives finer edges and costs more. None:
            that of the model's training, 518 for all released ones.
        max_pixels: photos of more pixels are refused.
        resize: "photo" gives depth at the photo's size, "network" at the size at which the network saw it.
        batch_size: photos in a batch, on all devices together; None: 1 on a CPU, 8 a device elsewhere. Only photos
            that the network sees at the same size share one, so numbers do not depend on it.
        tiles: finer edges on large photos: predicts tiles x tiles overlapping tiles too and puts them on the depth of
            the whole (`tiles.predict_tiled`); "auto": as many as show every pixel to the model, at most 4.
        Raises Dav2Error, in one line, for a photo that cannot be read or is too large, and for options of no meaning.
        Warns (UserWarning) of what is odd about a photo, which is in `Depth.notes` too.
        """
        self._refuse_encoder()
        many = not _is_photo(photo)
        photos = photo if many else [photo]
        if isinstance(photos, list | tuple):
            batch_size = self.batch_size if batch_size is None else batch_size
            check_whole("batch_size", batch_size)
            batch_size = min(batch_size, len(photos) or 1)
        options = {"input_size": input_size, "max_pixels": max_pixels, "resize": resize, "batch_size": batch_size}
        depths = _values(self.stream(photos, tiles=tiles, **options), warn_of_notes=True)
        if not many:
            return next(depths)
        return list(depths) if isinstance(photos, list | tuple) else depths

    def stream(
        self,
        photos: Iterable,
        finish: Callable[[Any, Depth], Any] = lambda photo, depth: depth,
        *,
        input_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        resize: Resize = "photo",
        batch_size: int | None = None,
        tiles: int | Literal["auto"] | None = None,
    ) -> Iterator[Outcome]:
        """`predict` for long jobs: one Outcome (photo, value, error) for each photo, in order, with constant memory.

        finish: (photo, depth) -> value, in a worker thread while the device goes on: write files here.
        A photo that fails gives an Outcome with its error, and the rest go on. Arguments as in `predict`.
        """
        self._refuse_encoder()
        batch_size = self.batch_size if batch_size is None else batch_size
        check_whole("batch_size", batch_size)
        if not isinstance(max_pixels, numbers.Real) or not max_pixels >= 1:  # 1e8 is fine
            raise Dav2Error(f"max_pixels is {max_pixels!r}: give a number of pixels")
        check_input_size(self._size(input_size))
        check_choice("resize", resize, get_args(Resize))
        if tiles is not None:
            check_tiles(tiles)
            if resize != "photo":
                raise Dav2Error("tiles give detail to a map of the photo's size: leave out resize='network'")
            options = {"input_size": input_size, "max_pixels": max_pixels}

            def predict_list(photos):
                return _values(self.stream(photos, batch_size=min(batch_size, len(photos)), **options))

            def predict_in_tiles(photo):
                return predict_tiled(predict_list, photo, tiles=tiles, input_size=self._size(input_size))

            return pipeline.one_by_one(predict_in_tiles)(photos, finish)
        whole = -(-batch_size // len(self.devices)) * len(self.devices) if batch_size > 1 else 1

        def prepare(photo):
            return self._prepare(photo, input_size, max_pixels)

        def forward(arrays):
            batch = np.zeros((whole, *arrays[0].shape), np.float32)  # a batch in part runs the program of a full one
            np.stack(arrays, out=batch[: len(arrays)])
            return self.programs(self.fn, batch)

        def to_depth(photo, prepared, net):
            return finish(photo, self._depth(prepared, net, resize))

        def size(photo):
            header = read_header(photo, max_pixels=max_pixels)
            pixels = header.height * header.width if header else _UNKNOWN_PIXELS
            return _BYTES_A_PIXEL * (pixels if pixels <= max_pixels else 0)  # what is too large is refused

        return pipeline.run(photos, prepare, forward, to_depth, batch_size=whole, size=size)

    def predict_batch(self, images, *, input_size: int | None = None, resize: Resize = "photo") -> jax.Array:
        """Depth of a batch that is an array already, without leaving the device: [B, H, W, 3] -> [B, H, W] float32.

        images: uint8 RGB, all of one size, in NumPy or on a device. Resizing and normalizing run there as well, in the
            same program. It returns before the device is done. Where B is a multiple of the number of devices, the
            batch is split over them.
        input_size, resize: as in `predict`; "network" gives [B, H', W'].
        Raises Dav2Error for another dtype or shape.
        """
        self._refuse_encoder()
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
            raise Dav2Error(f"a batch must be uint8 RGB [B, H, W, 3], not {images.dtype} {list(images.shape)}")
        check_choice("resize", resize, get_args(Resize))
        check_input_size(self._size(input_size))
        whole = self._whole(self._size(input_size), resize)
        if isinstance(images, jax.core.Tracer):  # under a `jit` of the caller's
            return whole(self.params, images)
        return self.programs(whole, images)

    def _from_photos(self, input_size: int, resize: Resize):
        """The function (params, uint8 photos) of `predict_batch`."""

        def whole(params, images):
            depth = self.fn(params, preprocess_on_device(images, input_size))
            if resize == "photo":
                depth = ops.resize_bilinear(depth[..., None], *images.shape[1:3])[..., 0]
            return depth

        return whole

    def save(
        self,
        path: str | os.PathLike,
        *,
        to: Target = "checkpoint",
        dtype: str | None = None,
        license: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Writes the parameters as they are now, for `dav2_jax.load`, the official code or transformers.

        license: of the weights; None: what the model says
        Other arguments and errors as in `weights.convert.save`; also Dav2Error for parameters of another network.
        """
        by = f"dav2_jax {dav2_jax.__version__}"
        weights = Weights(self.config, self.params, license or self.license, {"source": "Model.save"} | self.provenance)
        expected = flatten_dict(depth_anything.abstract_params(self.config), sep=".")
        if more := [name for name in weights.flat if name not in expected]:
            raise Dav2Error(
                f"{len(more)} parameters are no part of a {self.config.encoder} model ({', '.join(more[:3])} ...): "
                "merge what you added into its layers, and put these back, before saving"
            )
        save(weights.replace(provenance=weights.provenance | {"by": by}), path, to=to, dtype=dtype, overwrite=overwrite)

    @property
    def batch_size(self) -> int:
        """Photos in a batch unless the caller says otherwise."""
        return usual_batch_size(self.devices)

    def features(self, photo, *, input_size: int | None = None, max_pixels: int = MAX_PIXELS) -> tuple[jax.Array, ...]:
        """The encoder's four taps for one photo, each [h, w, D]: one token a 14 x 14 patch of the resized photo.

        These are DINOv2's normalized patch features as depth training left them. Arguments and errors as in `predict`.
        """
        x, _ = self._prepare(photo, input_size, max_pixels)
        return tuple(tap[0] for tap in self.programs(self._taps, x[None]))

    @functools.cached_property
    def _taps(self):
        def taps(params, images):
            stages = depth_anything.stages(self.config, params, images, self.dtype)
            return tuple(stages[f"tap{k}"] for k in range(4))

        return taps

    def _refuse_encoder(self) -> None:
        if self.config.kind == "encoder":
            raise Dav2Error(
                "an encoder alone has no head to predict depth: use features(photo), or train a head on it "
                "(dav2 train, with head=fresh)"
            )

    def _size(self, input_size: int | None) -> int:
        return self.config.input_size if input_size is None else input_size

    def _prepare(self, photo, input_size: int | None, max_pixels: int) -> tuple[np.ndarray, _Photo]:
        """(network input float32 [H', W', 3], the photo)"""
        read = read_photo(photo, max_pixels=max_pixels)
        try:
            x = preprocess(read.image, self._size(input_size))
        except Dav2Error as error:
            where = f"{name_of(photo)}: " if name_of(photo) else ""
            raise Dav2Error(f"{where}{error}") from None
        height, width = read.image.shape[:2]
        return x, _Photo(read.image, focal_from_exif(read.exif, width, height), read.notes)

    def _depth(self, photo: _Photo, net: np.ndarray, resize: Resize) -> Depth:
        image, focal_length, notes = photo
        height, width = image.shape[:2]
        if resize == "network":
            image = np.asarray(Image.fromarray(image).resize(net.shape[::-1], Image.Resampling.BICUBIC))
            focal_length = None if focal_length is None else focal_length * net.shape[1] / width
            values = net
        else:
            values = postprocess(net, height, width)
        unit, max_depth = self.config.unit, self.config.max_depth
        return Depth(values, unit, image=image, max_depth=max_depth, focal_length=focal_length, notes=notes)


def usual_batch_size(devices: Sequence[jax.Device] | None = None) -> int:
    """Photos in a batch on these devices, or on those that a model takes by itself."""
    devices = devices or inference_devices()
    return 1 if devices[0].platform == "cpu" else ACCELERATOR_BATCH * len(devices)


def _is_photo(value) -> bool:
    whole = isinstance(value, str | os.PathLike | Image.Image | bytes | bytearray | memoryview)
    whole = whole or hasattr(value, "__array__") or hasattr(value, "read")
    return whole or not isinstance(value, Iterable)  # what is neither is refused as a photo


def _values(outcomes: Iterator[Outcome], *, warn_of_notes: bool = False) -> Iterator[Depth]:
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            for note in outcome.value.notes if warn_of_notes else ():
                name = name_of(outcome.item)
                warn(f"{name}: {note}" if name else note, stacklevel=3)
            yield outcome.value


def _with_kernels_in(dtype: jnp.dtype, params: Params) -> Params:
    """The matrices in the dtype of the computation, which would otherwise be cast anew in every call."""

    def cast(path, array):
        return array.astype(dtype) if path[-1].key == "kernel" else array

    return params if dtype == jnp.float32 else jax.tree_util.tree_map_with_path(cast, params)
