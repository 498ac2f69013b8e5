"""TartanAir: flights through rendered worlds. https://theairlab.org/tartanair-dataset (arXiv 2003.14338), V1 and V2

    root/abandonedfactory/Easy/P000/                V1; the archives' doubled folder (abandonedfactory/ twice) is fine
      image_left/000000_left.png                    480 x 640
      depth_left/000000_left_depth.npy              float32 (castacks/tartanair_tools data_type.md says 16 bits)
    root/AbandonedFactory/Data_easy/P000/           V2 (docs/modalities.rst of castacks/tartanairpy)
      image_lcam_front/000000_lcam_front.png        640 x 640; cameras lcam and rcam, in six directions
      depth_lcam_front/000000_lcam_front_depth.png  float32 in the four channels of an 8-bit PNG

Stored is depth along the optical axis in metres. There is no infinity: the sky is a sphere far away ("e.g. 10000"), so
depth of `sky` metres and more becomes infinitely far. All cameras see 90 degrees: f = 320 at 640 pixels, and the
principal point 320, 240 (320 in V2) of the documentation is the middle of the picture counted from its corner, half a
pixel before the center of the first pixel.
"""

from __future__ import annotations

import glob
from functools import partial
from pathlib import Path

import numpy as np

from dav2_jax.data import layout
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image


def source(
    root: Path,
    *,
    split: str = "all",
    cameras: tuple[str, ...] = ("left", "lcam_front"),
    sky: float = 1000.0,
) -> Source:
    """Depth in metres. There is no official split with depth beside easy and hard motion.

    split     all, easy or hard, or the path of a list of images
    cameras   left and right of V1, lcam_front and eleven others of V2
    sky       metres from which on a surface counts as sky
    """
    root = Path(root)
    named = layout.split_choice(split, ("all", "easy", "hard"))
    kinds = ["Easy", "Hard"] if named in ("all", None) else [named.capitalize()]
    doubled = [glob.escape(f"{one.name}/{one.name}") for one in sorted(root.glob("*")) if (one / one.name).is_dir()]
    folders = [f"{base}/{kind}/P*" for kind in kinds for base in ("*", *doubled)]
    folders += [f"*/Data_{kind.lower()}/P*" for kind in kinds]
    images = layout.find(root, *[f"{one}/image_{camera}/*_{camera}.png" for one in folders for camera in cameras])
    depths = layout.find(root, *[f"{one}/depth_{camera}/*_{camera}_depth.*" for one in folders for camera in cameras])
    items, about = layout.pair(images, depths, _depth_of)
    if named is None:
        items, about = layout.chosen(items, Path(split))
    layout.some(items, about, f"{root}, {split}")
    return Source("tartanair", items, partial(_read, root=str(root), sky=sky), "metres", about)


def _read(item: str, *, root: str, sky: float) -> Example:
    path = Path(root, _depth_of(item))
    depth = depth_files.read_npy(path) if path.suffix == ".npy" else depth_files.read_png_floats(path)
    depth = np.where(depth >= sky, np.float32(np.inf), depth)
    height, width = depth.shape
    photo = read_image(Path(root, item))[0]
    return labeled(
        item.removesuffix(".png"), photo, depth, intrinsics=(width / 2, width / 2, (width - 1) / 2, (height - 1) / 2)
    )


def _depth_of(image: str) -> str:
    """V1 has npy files, V2 PNGs."""
    ending = ".png" if "/Data_" in image else ".npy"
    return image.replace("/image_", "/depth_").removesuffix(".png") + "_depth" + ending
