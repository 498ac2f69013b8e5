"""The Depth result: an (H, W) map with its unit, the pictures drawn from it, and the way to files and back.

Colors follow `run.py` and `metric_depth/run.py` of the official repository to the last bit.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.errors import Dav2Error, did_you_mean
from dav2_jax.image import colormap
from dav2_jax.image.quiet import warn
from dav2_jax.inference import formats, geometry

if TYPE_CHECKING:
    from dav2_jax.inference.align import Alignment

Unit = Literal["disparity", "metres"]

STRIP_WIDTH = 50  # pixels of white between photo and depth in `side_by_side`, as in the official run.py


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Depth(np.lib.mixins.NDArrayOperatorsMixin):
    """Depth of one photo, which computes as its (H, W) float32 map does, in NumPy and in JAX.

    values        (H, W) float32, at the size of the photo. Other dtypes are converted.
    unit          "disparity": relative, larger is closer, known up to an unknown scale and shift.
                  "metres": distance along the optical axis, smaller is closer.
    image         (H, W, 3) uint8 RGB, the photo; None where it is not known (`side_by_side` needs it).
    max_depth     metres, the largest value that the model can give; None for disparity.
    focal_length  pixels of the photo, as its EXIF data say; None where they say nothing.
    notes         what is odd about the photo (it was cut short, ...), one line each.
    alignment     of `align_to_metric`: how well the known depths agree; None without it.

    `depth * 2`, `depth > 5`, `depth[10, 20]`, `np.asarray(depth)`, `np.median(depth)` and `jnp.mean(depth)` are those
    of `values`, plain arrays and numbers without a unit. As a JAX pytree it has one leaf, `values`; the photo is not
    carried along.

    Raises Dav2Error for a shape, dtype or unit that is none of these.
    """

    values: np.ndarray
    unit: Unit
    image: np.ndarray | None = None
    max_depth: float | None = None
    focal_length: float | None = None
    notes: tuple[str, ...] = ()
    alignment: Alignment | None = None

    def __post_init__(self):
        values = np.asarray(self.values, dtype=np.float32)
        if values.ndim != 2 or values.size == 0:
            raise Dav2Error(f"Depth values have shape {values.shape}: give one map of shape (H, W)")
        if self.unit not in get_args(Unit):
            raise Dav2Error(f"Depth unit is {self.unit!r}: give 'disparity' or 'metres'")
        if self.image is not None and (self.image.shape != (*values.shape, 3) or self.image.dtype != np.uint8):
            found = f"{self.image.dtype} {self.image.shape}"
            raise Dav2Error(f"Depth image is {found}: give uint8 RGB of shape {(*values.shape, 3)}, as the map")
        object.__setattr__(self, "values", values)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.values.size

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __jax_array__(self) -> jax.Array:
        return jnp.asarray(self.values)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Operators and ufuncs, of which the result is a plain array; with a JAX array among the inputs, one of JAX."""
        if any(isinstance(array, Depth) for array in options.get("out", ())):
            raise TypeError("a Depth is not changed in place: write depth = depth * 2")
        inputs = tuple(array.values if isinstance(array, Depth) else array for array in inputs)
        if any(isinstance(array, jax.Array) for array in inputs) and method == "__call__" and not options:
            return getattr(jnp, ufunc.__name__)(*inputs)
        return getattr(ufunc, method)(*inputs, **options)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __len__(self) -> int:
        """H, as of an array."""
        return len(self.values)

    def min(self, *arguments: Any, **options: Any) -> Any:
        """As of `values`; so are max and mean."""
        return self.values.min(*arguments, **options)

    def max(self, *arguments: Any, **options: Any) -> Any:
        return self.values.max(*arguments, **options)

    def mean(self, *arguments: Any, **options: Any) -> Any:
        return self.values.mean(*arguments, **options)

    def tree_flatten(self) -> tuple[tuple, tuple]:
        return (self.values,), (self.unit, self.max_depth, self.focal_length)

    @classmethod
    def tree_unflatten(cls, fields: tuple, leaves: tuple) -> Depth:
        depth = object.__new__(cls)  # without the checks: JAX puts tracers and other things in the place of arrays
        unit, max_depth, focal_length = fields
        known = {"values": leaves[0], "unit": unit, "max_depth": max_depth, "focal_length": focal_length}
        for name, value in (known | {"image": None, "notes": (), "alignment": None}).items():
            object.__setattr__(depth, name, value)
        return depth

    def __repr__(self) -> str:
        finite = self.values[np.isfinite(self.values)]
        span = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "no finite value in"
        return f"Depth({self.shape[0]}x{self.shape[1]}, {span} {self.unit})"

    @property
    def is_constant(self) -> bool:
        """True when all finite values are equal (or none is finite): nothing in the pictures tells near from far."""
        low, high = colormap.value_range(self.values)
        return bool(low == high)

    def gray(self, limits: tuple[float, float] | None = None) -> np.ndarray:
        """(H, W) uint8: smallest value 0, largest 255, or those of `limits`, see `colormap.to_gray`."""
        return colormap.to_gray(self.values, limits)

    def color(self, limits: tuple[float, float] | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB: `gray` through matplotlib's Spectral_r, or Spectral for metres: near is red in both."""
        return colormap.to_color(self.values, self._near, limits)

    @property
    def _near(self) -> colormap.Near:
        return "high" if self.unit == "disparity" else "low"

    def side_by_side(self, limits: tuple[float, float] | None = None, *, gray: bool = False) -> np.ndarray:
        """(H, 2W + 50, 3) uint8 RGB: photo, white strip, `color` (or `gray`). Raises Dav2Error without the photo."""
        if self.image is None:
            raise Dav2Error("side by side needs the photo: this Depth has no image")
        height, width = self.shape
        both = np.full((height, 2 * width + STRIP_WIDTH, 3), 255, np.uint8)
        both[:, :width] = self.image
        right = both[:, width + STRIP_WIDTH :]
        if gray:
            right[:] = self.gray(limits)[..., None]
        else:
            colormap.to_color(self.values, self._near, limits, out=right)
        return both

    def save(
        self,
        path: str | Path,
        format: str | None = None,
        *,
        focal_length: float | None = None,
        fov: float | None = None,
    ) -> None:
        """Write one file, whole or not at all.

        format        a name of `formats.FORMATS`: color gray png16 npy npz exr side-by-side ply glb. Without one the
                      extension decides, and .png is `color`.
        focal_length  pixels of the photo, or fov, degrees from left to right edge: for a point cloud (and noted in npz
                      and exr); either takes precedence over `self.focal_length`.

        Raises Dav2Error for an unknown format, a name that ends like another one, and a point cloud without a focal
        length, OSError as the disk does. Warns of a focal length that is not plausible.
        """
        path = Path(path)
        name = format if format is not None else formats.name_from_extension(path)
        if name not in formats.FORMATS:
            near = did_you_mean(str(name), formats.FORMATS)
            raise Dav2Error(f"{path}: unknown format {name!r}: use one of {', '.join(formats.FORMATS)}{near}")
        ending = Path(f"x{formats.FORMATS[name].suffix}").suffix
        if path.suffix.lower() not in ("", ending):
            raise Dav2Error(f"{path}: {name} is written as {ending}: end the name so")
        focal_length = geometry.choose_focal(focal_length, fov, width=self.shape[1], known=self.focal_length)
        if doubt := geometry.doubt_focal(focal_length, *self.shape, known=self.focal_length):
            warn(doubt)
        formats.FORMATS[name].write(dataclasses.replace(self, focal_length=focal_length), path)

    @classmethod
    def load(cls, path: str | Path, unit: Unit | None = None) -> Depth:
        """Read a png16, npy, npz or exr file back, as (H, W) float32 with the unit that the file states.

        unit  for files that state none (npy always, and npz or exr from elsewhere); what a file states wins.

        Raises Dav2Error for a file that is none of these, is damaged, or has no unit while none is given.
        """
        fields = formats.read(Path(path))
        fields["unit"] = fields.get("unit") or unit
        if fields["unit"] is None:
            raise Dav2Error(f"{path}: states no unit: give unit='disparity' or unit='metres'")
        return cls(**fields)

    def _repr_png_(self) -> bytes:
        from PIL import Image

        data = io.BytesIO()
        Image.fromarray(self.color()).save(data, format="PNG")
        return data.getvalue()
