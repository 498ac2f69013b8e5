"""ETH3D, high-resolution multi-view training part (Schöps et al., CVPR 2017; https://www.eth3d.net/documentation).

    <scene>/images/dslr_images/DSC_0286.JPG                  8-bit RGB, 6048 x 4032, with the lens' distortion
    <scene>/ground_truth_depth/dslr_images/DSC_0286.JPG      the depth: no JPEG, but float32 metres without a header,
                                                             little-endian, row by row, one for each pixel of the image
    <scene>/dslr_calibration_jpg/cameras.txt, images.txt     COLMAP's text files, cameras THIN_PRISM_FISHEYE
    <scene>/images/dslr_images_undistorted/DSC_0286.JPG      the same without distortion, of another size
    <scene>/dslr_calibration_undistorted/cameras.txt, ...    their cameras, PINHOLE

454 images in 13 scenes. The depth is a laser scan seen from the camera, along the optical axis; infinity is where the
scan has nothing: unknown, not sky.

The trap: the depth fits the distorted images only. Laid over the undistorted ones, as some evaluations do, it is off by
up to many pixels. Here, `images="undistorted"` looks the depth up through both cameras, so that it fits and has
intrinsics; the distorted images have none, as no pinhole camera describes them. Camera model: COLMAP's
THIN_PRISM_FISHEYE, fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1; there the corner of the first pixel is (0, 0).
"""

from __future__ import annotations

import functools
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dav2_jax.data import listing
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.fit import upright
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

_ORIENTATION = 0x0112  # the EXIF tag
_ROWS = 256  # looked up at a time: at 24 megapixels each array of the whole would have 200 MB
_PARAMETERS = {"PINHOLE": 4, "THIN_PRISM_FISHEYE": 12}


class Camera(NamedTuple):
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


def source(root: Path, *, images: Literal["distorted", "undistorted"] = "distorted") -> Source:
    """Images with depth, in metres.

    root     the folder that holds the scenes, or one scene
    images   "distorted": as photographed, without intrinsics; "undistorted": pinhole images with intrinsics, with the
             depth looked up for each pixel

    Raises Dav2Error where nothing is found.
    """
    kind = "dslr_images" if images == "distorted" else "dslr_images_undistorted"
    scenes = [""] if (root / "ground_truth_depth").is_dir() else [f"{name}/" for name in listing.folders(root)]
    items, missing = [], []
    for scene in scenes:
        folder = root / scene / "images" / kind
        depths = root / scene / "ground_truth_depth/dslr_images"
        if folder.is_dir():
            there = set(listing.files(depths, (".jpg", ".png"))) if depths.is_dir() else set()
            for name in listing.files(folder, (".jpg", ".png")):
                (items if name in there else missing).append((scene, name))
    about = listing.left_out("images without depth", [f"{scene}images/{kind}/{name}" for scene, name in missing])
    if not items:
        layout = f"<scene>/images/{kind}/*.JPG with <scene>/ground_truth_depth/dslr_images/*.JPG"
        raise listing.nothing(root, layout, about)
    read = _read if images == "distorted" else _read_undistorted
    return Source("eth3d", items, partial(read, root), about=about)


def _read(root: Path, item: tuple[str, str]) -> Example:
    scene, name = item
    image, exif = read_image(root / scene / "images/dslr_images" / name)
    turned = exif.get(_ORIENTATION) if exif else None
    height, width = image.shape[1::-1] if turned in range(5, 9) else image.shape[:2]
    depth = depth_files.read_raw(root / scene / "ground_truth_depth/dslr_images" / name, height, width)
    if turned in range(2, 9):  # the depth is that of the pixels as stored, and the image is upright now
        depth = upright(depth, turned)
    return labeled(f"{scene}images/dslr_images/{listing.stem(name)}", image, depth, np.isfinite(depth))


def _read_undistorted(root: Path, item: tuple[str, str]) -> Example:
    scene, name = item
    image, _ = read_image(root / scene / "images/dslr_images_undistorted" / name)
    pinhole = _camera(root / scene / "dslr_calibration_undistorted", f"dslr_images_undistorted/{name}", "PINHOLE")
    lens = _camera(root / scene / "dslr_calibration_jpg", f"dslr_images/{name}", "THIN_PRISM_FISHEYE")
    if image.shape[:2] != (pinhole.height, pinhole.width):
        sizes = f"the image is {image.shape[1]} x {image.shape[0]} and its camera {pinhole.width} x {pinhole.height}"
        raise Dav2Error(f"{scene}images/dslr_images_undistorted/{name}: {sizes}")
    stored = depth_files.read_raw(root / scene / "ground_truth_depth/dslr_images" / name, lens.height, lens.width)
    depth = np.empty((pinhole.height, pinhole.width), np.float32)
    for row in range(0, pinhole.height, _ROWS):
        depth[row : row + _ROWS] = _look_up(stored, pinhole, lens, row, min(_ROWS, pinhole.height - row))
    fx, fy, cx, cy = pinhole.parameters
    id = f"{scene}images/dslr_images_undistorted/{listing.stem(name)}"
    return labeled(id, image, depth, np.isfinite(depth), (fx, fy, cx - 0.5, cy - 0.5))


def _look_up(stored: np.ndarray, pinhole: Camera, lens: Camera, first: int, rows: int) -> np.ndarray:
    """The depth under the center of each pixel of these rows of the pinhole image; infinity where there is none."""
    fx, fy, cx, cy = pinhole.parameters
    u = (np.arange(pinhole.width) + 0.5 - cx)[None, :] / fx
    v = (np.arange(first, first + rows) + 0.5 - cy)[:, None] / fy
    x, y = distort(*np.broadcast_arrays(u, v), lens.parameters)
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    inside = (column >= 0) & (column < lens.width) & (row >= 0) & (row < lens.height)
    found = stored[row.clip(0, lens.height - 1), column.clip(0, lens.width - 1)]
    return np.where(inside, found, np.float32(np.inf))


def distort(u: np.ndarray, v: np.ndarray, parameters: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where THIN_PRISM_FISHEYE sees the direction (u, v, 1), in pixels from the corner of the image."""
    fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 = parameters
    r = np.hypot(u, v)
    stretch = np.divide(np.arctan(r), r, out=np.ones_like(r), where=r > 1e-12)
    u, v = u * stretch, v * stretch
    r2 = u * u + v * v
    radial = r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    x = u + u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u) + sx1 * r2
    y = v + v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v * v) + sy1 * r2
    return fx * x + cx, fy * y + cy


def _camera(folder: Path, name: str, model: str) -> Camera:
    camera = _cameras(folder).get(name)
    if camera is None:
        raise Dav2Error(f"{folder / 'images.txt'}: has no {name}")
    if camera.model != model:
        raise Dav2Error(f"{folder / 'cameras.txt'}: the camera of {name} is {camera.model}, where {model} is expected")
    return camera


@functools.lru_cache(maxsize=64)
def _cameras(folder: Path) -> dict[str, Camera]:
    """The camera of each image, from COLMAP's cameras.txt and images.txt."""
    path = folder / "cameras.txt"
    try:
        cameras = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                number, model, width, height, *parameters = line.split()
                if len(parameters) != _PARAMETERS.get(model, len(parameters)):
                    raise ValueError(model)
                cameras[number] = Camera(model, int(width), int(height), tuple(map(float, parameters)))
        path = folder / "images.txt"
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        # Two lines an image, of which the second, its points, may be empty.
        fields = [line.split(maxsplit=9) for line in lines[::2] if line.strip()]
        return {field[9]: cameras[field[8]] for field in fields}
    except (ValueError, IndexError, KeyError) as error:
        raise Dav2Error(f"{path}: is no text file of COLMAP ({type(error).__name__}): download it again") from error
