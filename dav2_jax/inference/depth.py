"""The Depth result: an (H, W) map with its unit, the pictures drawn from it, and the way to files and back.

Colors follow `run.py` and `metric_depth/run.py` of the official repository to the last bit.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.inference import formats, geometry

Unit = Literal["disparity", "metres"]

STRIP_WIDTH = 50  # pixels of white between photo and depth in `side_by_side`, as in the official run.py


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Depth:
    """Depth of one photo. `np.asarray(depth)` is the (H, W) float32 map.

    values        (H, W) float32, at the size of the photo. Other dtypes are converted.
    unit          "disparity": relative, larger is closer, known up to an unknown scale and shift.
                  "metres": distance along the optical axis, smaller is closer.
    image         (H, W, 3) uint8 RGB, the photo; None where it is not known (`side_by_side` needs it).
    max_depth     metres, the largest value that the model can give; None for disparity.
    focal_length  pixels of the photo, as its EXIF data say; None where they say nothing.

    Raises Dav2Error for a shape, dtype or unit that is none of these.
    """

    values: np.ndarray
    unit: Unit
    image: np.ndarray | None = None
    max_depth: float | None = None
    focal_length: float | None = None

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

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        finite = self.values[np.isfinite(self.values)]
        span = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "no finite value in"
        return f"Depth({self.shape[0]}x{self.shape[1]}, {span} {self.unit})"

    @property
    def is_constant(self) -> bool:
        """True when all finite values are equal (or none is finite): nothing in the pictures tells near from far."""
        finite = self.values[np.isfinite(self.values)]
        return finite.size == 0 or bool(finite.min() == finite.max())

    def gray(self, limits: tuple[float, float] | None = None) -> np.ndarray:
        """(H, W) uint8: smallest value 0, largest 255, truncated as in the official run.py.

        limits  values (low, high) to draw as 0 and 255 in place of those two, so that pictures of different maps
                compare; what lies beyond is clipped.

        Non-finite values do not count for the range and become 0; without any range (high not above low) all is 0.
        """
        finite = np.isfinite(self.values)
        if limits is None:
            known = self.values[finite]
            low, high = (known.min(), known.max()) if known.size else (np.float32(0), np.float32(0))
        else:
            low, high = np.float32(limits[0]), np.float32(limits[1])
        if not high > low:
            return np.zeros(self.shape, np.uint8)
        v = (np.where(finite, self.values, low) - low) / (high - low) * np.float32(255.0)
        return (v if limits is None else v.clip(0, 255)).astype(np.uint8)

    def color(self, limits: tuple[float, float] | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB: `gray` through matplotlib's Spectral_r, or Spectral for metres: near is red in both."""
        table = _color_table("Spectral_r" if self.unit == "disparity" else "Spectral")
        return table.take(self.gray(limits), axis=0)  # four times as fast as table[...]

    def side_by_side(self, limits: tuple[float, float] | None = None, *, gray: bool = False) -> np.ndarray:
        """(H, 2W + 50, 3) uint8 RGB: photo, white strip, `color` (or `gray`). Raises Dav2Error without the photo."""
        if self.image is None:
            raise Dav2Error("side by side needs the photo: this Depth has no image")
        strip = np.full((self.shape[0], STRIP_WIDTH, 3), 255, np.uint8)
        depth = np.repeat(self.gray(limits)[..., None], 3, axis=-1) if gray else self.color(limits)
        return np.concatenate([self.image, strip, depth], axis=1)

    def save(
        self,
        path: str | Path,
        format: str | None = None,
        *,
        focal_length: float | None = None,
        fov: float | None = None,
    ) -> None:
        """Write one file, whole or not at all.

        format        a name of `formats.FORMATS`: color gray png16 npy npz exr side-by-side ply. Without one the
                      extension decides, and .png is `color`.
        focal_length  pixels of the photo, or fov, degrees from left to right edge: for a point cloud (and noted in npz
                      and exr); either takes precedence over `self.focal_length`.

        Raises Dav2Error for an unknown format, a name that ends like another one, and a point cloud without a focal
        length, OSError as the disk does.
        """
        path = Path(path)
        name = format if format is not None else formats.name_from_extension(path)
        if name not in formats.FORMATS:
            raise Dav2Error(f"{path}: unknown format {name!r}: use one of {', '.join(formats.FORMATS)}")
        ending = Path(f"x{formats.FORMATS[name].suffix}").suffix
        if path.suffix.lower() not in ("", ending):
            raise Dav2Error(f"{path}: {name} is written as {ending}: end the name so")
        focal_length = geometry.choose_focal(focal_length, fov, width=self.shape[1], known=self.focal_length)
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


@functools.cache
def _color_table(name: str) -> np.ndarray:
    """(256, 3) uint8 RGB of a matplotlib color map, truncated as in the official run.py."""
    import matplotlib

    return (matplotlib.colormaps[name](np.arange(256, dtype=np.uint8))[:, :3] * 255).astype(np.uint8)
