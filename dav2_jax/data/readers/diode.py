"""DIODE, Dense Indoor and Outdoor Depth (Vasiljevic et al., arXiv:1908.00463; https://diode-dataset.org): laser scans.

    val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.png               8-bit RGB, 1024 x 768
    val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010_depth.npy         float32 metres [768, 1024, 1]
    val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010_depth_mask.npy    float32 [768, 1024], 1 is valid
    val/outdoor/..., train/indoors/..., train/outdoor/...

The validation part has 325 indoor and 446 outdoor images; the numbers that papers report are of the indoor ones. Names
and the mask: README of diode-dataset/diode-devkit. Depth without a sensor return is 0 and outside of the mask; a mask
does not catch everything (a plane that the meshing has put across a doorway), and sky has no return. The paper does not
say whether depth runs along the ray or along the optical axis. It is the latter: read so, the walls of 28 indoor
images are flat to 0.014 % of their distance over patches of 160 pixels, and read as the former they bulge by 0.14 %
(an independent public check).

Intrinsics: the devkit's intrinsics.txt has fx 886.81, fy 927.06, cx 512, cy 384 for all images: 60.0 by 45.0 degrees
over the whole picture, so (512, 384) is its middle counted from its corner: (511.5, 383.5) from the first pixel's
center.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from dav2_jax.data import listing
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

_INTRINSICS = (886.81, 927.06, 511.5, 383.5)  # at 1024 x 768, the size of every image
_DOMAINS = {"indoors": ("indoors",), "outdoor": ("outdoor",), "all": ("indoors", "outdoor")}


def source(
    root: Path,
    *,
    split: Literal["val", "train", "all"] = "val",
    domain: Literal["indoors", "outdoor", "all"] = "all",
) -> Source:
    """Images with depth, in metres, of the parts that are there; `root` is the folder that holds val and train.

    Raises Dav2Error where nothing is found.
    """
    parts = [
        f"{part}/{name}" for part in (("val", "train") if split == "all" else (split,)) for name in _DOMAINS[domain]
    ]
    items, missing = [], []
    for part in parts:
        if not (root / part).is_dir():
            continue
        names = set(listing.files(root / part, (".png", ".npy")))
        for name in sorted(names, key=lambda name: name.split("/")):
            if name.endswith(".png"):
                item = f"{part}/{listing.stem(name)}"
                whole = {f"{listing.stem(name)}_depth.npy", f"{listing.stem(name)}_depth_mask.npy"} <= names
                (items if whole else missing).append(item)
    about = listing.left_out("images without depth or mask", missing)
    if not items:
        layout = " or ".join(f"{part}/scene_*/scan_*/*.png" for part in parts)
        raise listing.nothing(root, f"{layout} with *_depth.npy and *_depth_mask.npy beside it", about)
    return Source("diode", items, partial(_read, root), about=about)


def _read(root: Path, item: str) -> Example:
    image, _ = read_image(root / f"{item}.png")
    depth = depth_files.read_npy(root / f"{item}_depth.npy")
    mask = depth_files.read_mask(root / f"{item}_depth_mask.npy")
    if mask.shape != depth.shape:
        raise Dav2Error(f"{root / item}_depth_mask.npy: is {list(mask.shape)} and the depth {list(depth.shape)}")
    intrinsics = _INTRINSICS if image.shape[:2] == (768, 1024) else None
    return labeled(item, image, depth, mask, intrinsics)
