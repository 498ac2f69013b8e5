"""Point clouds in files: PLY with the camera's axes, GLB with those of glTF.

Both are written in strips of the map, because the points of a photo take several times its memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic
from dav2_jax.image.quiet import warn
from dav2_jax.inference import geometry
from dav2_jax.inference.edges import EDGE

if TYPE_CHECKING:
    from dav2_jax.inference.depth import Depth

RELATIVE = (
    "relative disparity has no scale and no shift, so the point cloud shows what is in front of what, not true "
    "proportions: use a metric model (such as metric-indoor-small) for a point cloud in metres"
)
NO_FOCAL = (
    "a point cloud needs the camera's focal length and the photo does not state it{many}: "
    "give focal_length (pixels of the photo) or fov (degrees from left to right edge)"
)
_ROWS = 256  # of the map in a strip
_MOST_BYTES = 2**32 - 1  # of a GLB file, which has 32-bit lengths


class _Cloud(NamedTuple):
    metres: np.ndarray  # (H, W) float32, or what stands for metres
    keep: np.ndarray  # (H, W) bool: pixels with a point
    colors: np.ndarray  # (H, W, 3) uint8
    focal_length: float
    count: int  # points

    def strips(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Points (n, 3) float32, x right, y down, z forward, and their colors (n, 3) uint8, from the top down."""
        for top in range(0, len(self.metres), _ROWS):
            rows = slice(top, top + _ROWS)
            points = geometry.unproject(self.metres, self.keep, self.focal_length, rows)
            yield points, self.colors[rows][self.keep[rows]]


def write_ply(depth: Depth, path: Path, *, edge: float | None = EDGE) -> None:
    """Binary little-endian points, x y z float32 and red green blue uchar, no point where no depth is.

    Axes: x right, y down, z forward (see `geometry`). Pixels that fly between the surfaces at a depth edge are left
    out, see `edges.flying_pixels`; edge=None keeps them.

    The colors are the photo's, or the color map's without one. Disparity goes through `geometry.pseudo_depth`, with a
    UserWarning. Raises Dav2Error without a focal length: guessing one would bend the scene.
    """
    cloud = _cloud(depth, edge)
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment unit {'metres' if depth.unit == 'metres' else 'none (relative)'}",
        f"comment focal_length {depth.focal_length:.6g} pixels",
        "comment axes x right, y down, z forward",
        f"element vertex {cloud.count}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {color}" for color in ("red", "green", "blue")),
        "end_header",
    ]
    layout = [(axis, "<f4") for axis in "xyz"] + [(color, "u1") for color in ("red", "green", "blue")]
    with atomic(path) as temporary, temporary.open("xb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        for points, colors in cloud.strips():
            vertices = np.empty(len(points), layout)
            for column, axis in enumerate("xyz"):
                vertices[axis] = points[:, column]
            for column, color in enumerate(("red", "green", "blue")):
                vertices[color] = colors[:, column]
            file.write(vertices)


def write_glb(depth: Depth, path: Path, *, edge: float | None = EDGE) -> None:
    """The points of `write_ply` as one mesh of points in binary glTF 2.0, with its axes: x right, y up, z backward.

    Colors are linear, as glTF wants them (16 bits a channel), and shown without light (KHR_materials_unlit). Errors and
    the warning as of `write_ply`; Dav2Error also for more points than fit into the format (200 million).
    """
    cloud = _cloud(depth, edge)
    low, high = np.full(3, np.inf, np.float32), np.full(3, -np.inf, np.float32)
    for points, _ in cloud.strips():
        if len(points):
            points = _y_up(points)
            low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
    text = json.dumps(_gltf(cloud.count, low, high, depth)).encode()
    text += b" " * (-len(text) % 4)
    binary = cloud.count * (12 + 8)
    total = 12 + 8 + len(text) + 8 + binary
    if total > _MOST_BYTES:
        raise Dav2Error(
            f"{cloud.count:,} points are too many for a GLB file: write ply, or predict at resize='network'"
        )
    with atomic(path) as temporary, temporary.open("xb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, total))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", binary, b"BIN\0"))
        for points, _ in cloud.strips():
            file.write(_y_up(points).astype("<f4"))
        for _, colors in cloud.strips():
            linear = np.full((len(colors), 4), 65535, "<u2")  # opaque
            linear[:, :3] = _LINEAR[colors]
            file.write(linear)


def _gltf(count: int, low: np.ndarray, high: np.ndarray, depth: Depth) -> dict:
    """The JSON part: one buffer, positions and then colors. Numbers are those of componentType and so on in glTF."""
    short, real, points = 5123, 5126, 0
    return {
        "asset": {"version": "2.0", "generator": "dav2_jax"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {
                "primitives": [{"mode": points, "attributes": {"POSITION": 0, "COLOR_0": 1}, "material": 0}],
                "extras": {"unit": "metres" if depth.unit == "metres" else "none (relative)"},
            }
        ],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0}, "extensions": {"KHR_materials_unlit": {}}}],
        "buffers": [{"byteLength": 20 * count}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 12 * count},
            {"buffer": 0, "byteOffset": 12 * count, "byteLength": 8 * count},
        ],
        "accessors": [
            {"bufferView": 0, "componentType": real, "count": count, "type": "VEC3", "min": low.tolist(),
             "max": high.tolist()},
            {"bufferView": 1, "componentType": short, "normalized": True, "count": count, "type": "VEC4"},
        ],
    }  # fmt: skip


def _cloud(depth: Depth, edge: float | None) -> _Cloud:
    if depth.focal_length is None:
        raise Dav2Error(NO_FOCAL.format(many=""))
    metres = depth.values if depth.unit == "metres" else geometry.pseudo_depth(depth.values)
    keep = geometry.has_point(metres, edge)
    count = int(np.count_nonzero(keep))
    if count == 0:
        raise Dav2Error(
            "the depth map has no finite positive value that lies on a surface, so there is no point to write: "
            "check the photo"
        )
    if depth.unit == "disparity":
        warn(RELATIVE, stacklevel=3)
    return _Cloud(metres, keep, depth.color() if depth.image is None else depth.image, depth.focal_length, count)


def _y_up(points: np.ndarray) -> np.ndarray:
    return points * np.array([1, -1, -1], np.float32)


def _linear_levels() -> np.ndarray:
    """(256,) uint16: the linear intensity of each level of sRGB (IEC 61966-2-1)."""
    level = np.arange(256) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return np.rint(linear * 65535).astype(np.uint16)


_LINEAR = _linear_levels()
