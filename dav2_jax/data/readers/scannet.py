"""ScanNet (Dai et al., CVPR 2017; http://www.scan-net.org): rooms filmed with a depth camera on a tablet.

The .sens files exported by SensReader/python, or the ready-made `scannet_frames_25k`, at any depth below the root:

    <scene>/color/0.jpg (000000.jpg)       8-bit RGB, 1296 x 968
    <scene>/depth/0.png (000000.png)       uint16 millimetres along the optical axis, 640 x 480; 0 is unknown
    <scene>/intrinsic/intrinsic_depth.txt, intrinsic_color.txt     4 x 4 as text (exported scans)
    <scene>/intrinsics_depth.txt, intrinsics_color.txt             the same (scannet_frames_25k)

Color and depth are registered, and only differ in size: they are meant to be resampled to one (the authors in
ScanNet/ScanNet#2 and #92; millimetres: #17). Depth is what was measured, so the image is brought to its size; the other
way round is an option. Neither registration nor timing is perfect: thin things can be some pixels off (#28, #109). The
principal point is (319.5, 239.5) give or take calibration: the center of the first pixel is (0, 0).

Traps: the undistorted color images have black borders of about 10 pixels; depth beyond 4 m or so is coarse.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from dav2_jax.data import listing
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.fit import fit
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

_STEPS = np.float32(1000)  # a metre
_FILES = ("intrinsic/intrinsic_{}.txt", "intrinsics_{}.txt")


def source(root: Path, *, size: Literal["depth", "color"] = "depth") -> Source:
    """Frames with depth, in metres, and the intrinsics of the size that they have.

    root   a scene, or a folder with scenes at any depth
    size   "depth": the image is resized to the depth's size; "color": the depth to the image's, by nearest pixel

    Raises Dav2Error where nothing is found.
    """
    names = listing.files(root, (".jpg", ".png"))
    depths = {name for name in names if name.endswith(".png") and _folder(name)[1] == "depth"}
    items, missing = [], []
    for name in names:
        scene, kind, file = _folder(name)
        if kind == "color":
            depth = f"{scene}depth/{listing.stem(file)}.png"
            (items if depth in depths else missing).append((name, depth))
    about = listing.left_out("images without depth", [name for name, _ in missing])
    if not items:
        raise listing.nothing(root, "<scene>/color/*.jpg with <scene>/depth/*.png", about)
    return Source("scannet", items, partial(_read, root, size), about=about)


def _folder(path: str) -> tuple[str, str, str]:
    """scene/color/0.jpg -> "scene/", "color", "0.jpg"; in the root itself the scene is empty."""
    above, _, file = path.rpartition("/")
    scene, slash, kind = above.rpartition("/")
    return scene + slash, kind, file


def _read(root: Path, size: Literal["depth", "color"], item: tuple[str, str]) -> Example:
    name, depth_name = item
    image, _ = read_image(root / name)
    depth = depth_files.read_png(root / depth_name)
    if depth.dtype != np.uint16:
        raise Dav2Error(
            f"{root / depth_name}: has 8 bits, and millimetres need 16: it is a picture of depth for looking at"
        )
    image, depth, _ = fit(listing.stem(name), image, depth, resize="image" if size == "depth" else "depth")
    return labeled(listing.stem(name), image, depth / _STEPS, intrinsics=_intrinsics(root / _folder(name)[0], size))


def _intrinsics(scene: Path, kind: str) -> np.ndarray | None:
    path = next((path for file in _FILES if (path := scene / file.format(kind)).exists()), None)
    if path is None:
        return None
    try:
        matrix = np.array(path.read_text(encoding="ascii").split(), np.float64).reshape(4, 4)
    except ValueError as error:
        raise Dav2Error(f"{path}: is no matrix of 4 x 4 numbers") from error
    return matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
