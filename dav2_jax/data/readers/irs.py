"""IRS: 103,316 rendered stereo pairs of homes, offices, restaurants and shops. https://github.com/HKBU-HPML/IRS
(arXiv 1912.09678)

    root/Home/ArchVizInterior03Data/        Home, Office, Restaurant, Store; scenes may also lie in root itself
      l_00001.png r_00001.png               540 x 960
      d_00001.exr n_00001.exr               disparity, normals

Stored is the disparity of the left image in pixels, top row first (dataloader/IRSLoader.py there does not flip EXR),
and kept as it is: affine-invariant training wants disparity. Depth in metres is 48 / disparity (f = 480 pixels,
baseline 0.1 m; dataloader/scripts/disp2pcd.py), 0 is infinitely far. The EXR has one channel, whatever its name, or
three equal ones, of which the authors take G. The principal point is the middle of the picture (the same script).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dav2_jax.data import layout
from dav2_jax.data.example import Example, from_disparity
from dav2_jax.data.source import Source
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

FOCAL = 480.0
BASELINE = 0.1  # metres: depth is FOCAL * BASELINE / disparity


def source(root: Path, *, split: str = "all") -> Source:
    """Disparity in pixels.

    split   all, Home, Office, Restaurant or Store, or the path of a list of the authors (lists/*.list: left, right,
            disparity, normals)
    """
    root = Path(root)
    parts = ("Home", "Office", "Restaurant", "Store")
    named = layout.split_choice(split, ("all", *parts))
    folders = [f"{named}/*"] if named in parts else ["*/*", "*"]
    images = layout.find(root, *[f"{folder}/l_*.png" for folder in folders])
    depths = layout.find(root, *[f"{folder}/d_*.exr" for folder in folders])
    items, about = layout.pair(images, depths, _depth_of)
    if named is None:
        items, about = layout.chosen(items, Path(split))
    layout.some(items, about, f"{root}, {split}")
    about += ("depth in metres is 48 / disparity",)
    return Source("irs", items, partial(_read, root=str(root)), "disparity", about)


def _read(image: str, *, root: str) -> Example:
    disparity = depth_files.read_exr(Path(root, _depth_of(image)), color="G")
    height, width = disparity.shape
    photo = read_image(Path(root, image))[0]
    intrinsics = (FOCAL, FOCAL, (width - 1) / 2, (height - 1) / 2)
    return from_disparity(image.removesuffix(".png"), photo, disparity, intrinsics=intrinsics)


def _depth_of(image: str) -> str:
    return image.replace("/l_", "/d_").removesuffix(".png") + ".exr"
