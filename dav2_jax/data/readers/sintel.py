"""MPI Sintel (Butler et al., ECCV 2012; http://sintel.is.tue.mpg.de): frames of a drawn film, with true depth.

The two downloads, images and depth, share the folder `training`; its `test` half has no depth.

    training/final/<sequence>/frame_0001.png       8-bit RGB, 1024 x 436, with blur, fog and grain
    training/clean/<sequence>/frame_0001.png       the same without them
    training/depth/<sequence>/frame_0001.dpt       float32 metres along the optical axis, see `depth_files.read_dpt`
    training/camdata_left/<sequence>/frame_0001.cam    the tag 202021.25 (float32), then float64: intrinsics 3 x 3,
                                                       extrinsics 3 x 4; all little-endian

1,064 frames in 23 sequences (both passes have the same depth). Formats: the SDK in the download of depth. The principal
point is (511.5, 217.5), the middle of the pictures when the center of the first pixel is (0, 0), so it needs no shift.

No value stands for "unknown". Much of the sky is a painted dome at a finite distance, and stays as stored: where to
stop (benchmarks take 70 to 80 m) is for the evaluation to say. Where nothing was hit the renderer left huge numbers:
from a million metres on, further than anything drawn, a value is taken as sky.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from dav2_jax.data import listing
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

_SKY = 1e6  # metres
_TAG = np.array(202021.25, "<f4").tobytes()


def source(root: Path, *, render: Literal["final", "clean"] = "final") -> Source:
    """Frames with depth, in metres, and intrinsics where camdata_left is there.

    root     the folder that holds `training`, or `training` itself
    render   which pictures: "final" (as evaluations use) or "clean"

    Raises Dav2Error where nothing is found.
    """
    training = root / "training" if (root / "training").is_dir() else root
    images = [f"{render}/{name}" for name in listing.files(training / render, (".png",))]
    frames = [path.partition("/")[2] for path in map(listing.stem, images)]
    depths = set(map(listing.stem, listing.files(training / "depth", (".dpt",))))
    missing = listing.left_out(
        "images without depth", [i for i, f in zip(images, frames, strict=True) if f not in depths]
    )
    frames = [frame for frame in frames if frame in depths]
    if not frames:
        raise listing.nothing(training, f"{render}/*/frame_*.png with depth/*/frame_*.dpt", missing)
    return Source("sintel", frames, partial(_read, training, render), about=missing)


def _read(root: Path, render: str, frame: str) -> Example:
    image, _ = read_image(root / render / f"{frame}.png")
    depth = depth_files.read_dpt(root / "depth" / f"{frame}.dpt")
    depth = np.where(depth >= _SKY, np.float32(np.inf), depth)
    intrinsics = _intrinsics(root / "camdata_left" / f"{frame}.cam")
    return labeled(f"{render}/{frame}", image, depth, intrinsics=intrinsics)


def _intrinsics(path: Path) -> np.ndarray | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None  # camdata_left is a download of its own
    if len(data) != 4 + (9 + 12) * 8 or not data.startswith(_TAG):
        raise Dav2Error(f"{path}: is no Sintel camera file: the tag 202021.25 and 21 numbers of 64 bits are expected")
    matrix = np.frombuffer(data, "<f8", 9, 4).reshape(3, 3)
    return matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
