"""Pinhole geometry: focal length, angle of view and intrinsics of a photo, from what is known, and depth to points.

Camera axes: x right, y down, z forward (OpenCV, COLMAP). The center of the pixel in row r and column c lies at
(c + 0.5, r + 0.5), as in COLMAP, and the principal point is the center of the photo, (W / 2, H / 2). Pixels are square.
For software where pixel centers are whole numbers (OpenCV), subtract 0.5 from both entries of the principal point.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.image.colormap import value_range
from dav2_jax.image.quiet import quiet_pillow
from dav2_jax.inference.edges import flying_pixels

if TYPE_CHECKING:
    from PIL.Image import Exif

# EXIF 2.32 (CIPA DC-008), tags of the Exif IFD.
_EXIF_IFD = 0x8769
_FOCAL_LENGTH = 0x920A  # mm
_FOCAL_LENGTH_35MM = 0xA405  # mm on 35 mm film, 0: unknown
_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION = 0xA002, 0xA003  # size as the camera stored it
_FOCAL_PLANE_X_RESOLUTION = 0xA20E  # stored pixels per unit on the sensor
_FOCAL_PLANE_UNIT = 0xA210
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # inch, cm, mm, micrometre
_FILM_DIAGONAL = math.hypot(36.0, 24.0)  # 43.27 mm
_FAR_FROM_EXIF = 4  # times: a crop or another lens than stated explains less, millimetres for pixels are ten and more
_UNITS = "focal_length is in pixels, not mm, and fov in degrees from left to right"
_NARROWEST, _WIDEST = 2.0, 140.0  # degrees from left to right: beyond telephoto and ultra-wide lenses
_ROWS = 256  # of a map at a time: the temporaries of a large photo stay small
_SAME_ASPECT = 0.02  # relative; more than rounding at any thumbnail size, less than any crop that matters


def focal_from_fov(fov: float, width: int) -> float:
    """Focal length in pixels of a photo `width` pixels wide that sees `fov` degrees from its left to its right edge.

    Raises Dav2Error unless 0 < fov < 180.
    """
    if not 0 < _number("fov", fov) < 180:
        raise Dav2Error(f"fov={fov:g} degrees: give the horizontal angle, between 0 and 180")
    return width / 2 / math.tan(math.radians(fov) / 2)


class FieldOfView(NamedTuple):
    """Angles of view in degrees."""

    horizontal: float
    vertical: float
    diagonal: float


def field_of_view(focal_length: float, width: int, height: int) -> FieldOfView:
    """What a photo of width x height with this focal length (pixels) sees, from edge to edge and corner to corner."""
    sides = (width, height, math.hypot(width, height))
    return FieldOfView(*(2 * math.degrees(math.atan(side / 2 / focal_length)) for side in sides))


def intrinsics(focal_length: float, width: int, height: int) -> np.ndarray:
    """K (3, 3) float64 in pixels: K @ (x, y, z) / z = (column, row, 1), counted from the corner of the photo."""
    return np.array([[focal_length, 0, width / 2], [0, focal_length, height / 2], [0, 0, 1]], np.float64)


def focal_from_exif(exif: Exif | None, width: int, height: int) -> float | None:
    """Focal length in pixels of a photo of width x height, as its EXIF data (`PIL.Image.Image.getexif()`) say.

    FocalLengthIn35mmFilm is taken relative to the diagonal (CIPA DCG-001), and the camera's FocalLength through
    FocalPlaneXResolution otherwise. Both go through diagonals, so a photo that was resized, or turned upright as its
    orientation tag asks, comes out right. None when there is no way to know: no such tags, or a photo whose sides no
    longer have the proportion that the camera recorded, which means that it was cropped.
    """
    if exif is None:
        return None
    try:
        with quiet_pillow():  # damaged EXIF data; what is left of them counts
            tags = exif.get_ifd(_EXIF_IFD)
    except Exception:  # struct.error, SyntaxError, ...
        return None
    diagonal = math.hypot(width, height)
    stored = [_positive(tags.get(tag)) for tag in (_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION)]
    known_size = None not in stored
    if known_size and abs(max(stored) / min(stored) / (max(width, height) / min(width, height)) - 1) > _SAME_ASPECT:
        return None
    if film := _positive(tags.get(_FOCAL_LENGTH_35MM)):
        return film * diagonal / _FILM_DIAGONAL
    focal, resolution = _positive(tags.get(_FOCAL_LENGTH)), _positive(tags.get(_FOCAL_PLANE_X_RESOLUTION))
    mm_per_unit = _MM_PER_UNIT.get(tags.get(_FOCAL_PLANE_UNIT, 2))
    if focal and resolution and mm_per_unit and known_size:
        return focal * resolution / mm_per_unit * diagonal / math.hypot(*stored)
    return None


def choose_focal(focal_length: float | None, fov: float | None, *, width: int, known: float | None) -> float | None:
    """The focal length in pixels to use: `focal_length`, else from `fov` (degrees), else `known` (from EXIF, or None).

    Raises Dav2Error when both are given, or one is out of range.
    """
    if focal_length is not None and fov is not None:
        raise Dav2Error("focal_length and fov are both given: give one of them")
    if focal_length is not None and not 0 < _number("focal_length", focal_length) < math.inf:
        raise Dav2Error(f"focal_length is {focal_length:g}: give pixels of the photo, a positive number")
    if fov is not None:
        return focal_from_fov(fov, width)
    return known if focal_length is None else float(focal_length)


def doubt_focal(focal_length: float | None, height: int, width: int, *, known: float | None) -> str | None:
    """One line where a focal length (pixels of a photo of height x width) is not plausible, else None.

    That is: far from what EXIF says (`known`), or an angle of view that few cameras have.
    """
    if focal_length is None:
        return None
    degrees = field_of_view(focal_length, width, height).horizontal
    if known is not None and not 1 / _FAR_FROM_EXIF < focal_length / known < _FAR_FROM_EXIF:
        return (
            f"a focal length of {focal_length:.4g} pixels is far from the {known:.4g} that the photo's EXIF data state "
            f"(it would see {degrees:.3g} degrees from left to right): {_UNITS}"
        )
    if not _NARROWEST < degrees < _WIDEST:
        return (
            f"with a focal length of {focal_length:.4g} pixels the photo sees {degrees:.3g} degrees from left to "
            f"right, which few cameras do: {_UNITS}"
        )
    return None


def point_cloud(
    depth: np.ndarray, focal_length: float, image: np.ndarray | None = None, *, edge: float | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Points seen by a pinhole camera, row by row; pixels whose depth is not finite and positive are left out.

    depth (H, W) metres along the optical axis, focal_length pixels, image (H, W, 3) uint8 RGB or None.
    edge: leave out `edges.flying_pixels(depth, edge)` too, such as `edges.EDGE`; None keeps them.
    Returns points (N, 3) float32 in metres and their colors (N, 3) uint8, or None without an image.
    """
    keep = has_point(depth, edge)
    return unproject(depth, keep, focal_length), None if image is None else image[keep]


def has_point(depth: np.ndarray, edge: float | None = None) -> np.ndarray:
    """(H, W) bool: the pixels that `point_cloud` takes."""
    keep = np.isfinite(depth) & (depth > 0)  # H W
    if edge is not None:
        keep &= ~flying_pixels(depth, edge)
    return keep


def unproject(depth: np.ndarray, keep: np.ndarray, focal_length: float, rows: slice = slice(None)) -> np.ndarray:
    """(N, 3) float32: the points of the pixels `keep` (H, W) bool, of these rows of the map (H, W)."""
    height, width = depth.shape
    first = rows.start or 0
    row, column = np.nonzero(keep[rows])  # N
    z = depth[rows][keep[rows]].astype(np.float32)  # N
    points = np.empty((z.size, 3), np.float32)
    points[:, 0] = (column + 0.5 - width / 2) / focal_length * z
    points[:, 1] = (row + first + 0.5 - height / 2) / focal_length * z
    points[:, 2] = z
    return points


def pseudo_depth(disparity: np.ndarray) -> np.ndarray:
    """(H, W) disparity to something to look at in 3D: 1 / (0.1 + 0.9 d), d the disparity rescaled to [0, 1].

    The nearest pixel comes to lie at 1 and the farthest at 10, in no unit: relative disparity is known up to a scale
    and a shift, so the order of the points is right and their proportions are not. Non-finite values become NaN; a
    constant map comes to lie at 10.
    """
    low, high = value_range(disparity)
    span = (np.float64(high) - low) or 1.0
    depth = np.empty(disparity.shape, np.float32)
    for top in range(0, len(disparity), _ROWS):
        rows = slice(top, top + _ROWS)
        d = np.where(np.isfinite(disparity[rows]), disparity[rows], np.nan).astype(np.float64)
        depth[rows] = 1 / (0.1 + 0.9 * ((d - low) / span))
    return depth


def _number(name: str, value) -> float:
    """The value, where it can be compared with numbers; Dav2Error otherwise."""
    if isinstance(value, str | bool):
        raise Dav2Error(f"{name} is {value!r}: give a number")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Dav2Error(f"{name} is {value!r}: give a number") from None


def _positive(value) -> float | None:
    """An EXIF number as float; None when it is absent, malformed (0/0 gives NaN), or not positive."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if 0 < number < math.inf else None
