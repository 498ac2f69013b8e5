"""NYU Depth V2: indoor frames of a Kinect. Silberman et al., ECCV 2012
https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html

In one of two layouts:

    root/nyu_depth_v2_labeled.mat         the 1,449 labeled frames, MATLAB 7.3 (HDF5): images, depths, rawDepths
    root/splits.mat                       trainNdxs and testNdxs, counted from 1 (795 and 654), MATLAB 5

    root/official_splits/test/bathroom/rgb_00045.jpg + sync_depth_00045.png      BTS, or root/test/bathroom/...
    root/sync/kitchen_0028b/rgb_00045.jpg + sync_depth_00045.png                 BTS's 24,231 to train with
    root/test/bathroom/rgb_0046.png + depth_0046.png + filled_0046.png           Marigold

Stored is depth along the optical axis: float32 metres in the .mat file (axes reversed, as MATLAB does), uint16
millimetres in PNGs; 0 is not measured. rawDepths (BTS, depth_* of Marigold) is what the Kinect saw, brought to the
color camera; depths (filled_*) has its holes filled by colorization (Levin et al.). Scores are lower on raw depth.
The color images have a white frame of some pixels, which BTS paints black in official_splits (its
utils/extract_official_train_test_set_from_mat.py).

Intrinsics are those of the color camera from the authors' toolbox (camera_params.m), to a pixel's precision: the
toolbox counts from 1 where the calibration it used counts from 0. TFDS nyu_depth_v2 is read by data/records.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from dav2_jax.data import layout
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

LABELED = "nyu_depth_v2_labeled.mat"
INTRINSICS = (518.858, 519.470, 325.582, 253.736)
EIGEN_CROP = (slice(45, 471), slice(41, 601))

_FOLDERS = {"train": ("sync/", "official_splits/train/", "train/"), "test": ("official_splits/test/", "test/")}


def source(
    root: Path, *, split: str = "train", depth: Literal["raw", "filled"] = "raw", eigen_crop: bool = False
) -> Source:
    """Depth in metres; from the .mat file, if it is there (root may also be its path), else from PNGs.

    split        train, test or all; for PNGs also the path of a list: BTS's or Marigold's
    depth        raw: as measured, with holes; filled: without
    eigen_crop   pixels outside of rows 45:471 and columns 41:601 are not valid, as in most evaluations; the image
                 stays whole
    """
    root = Path(root)
    named = layout.split_choice(split, ("train", "test", "all"))
    file = root if root.suffix == ".mat" else root / LABELED
    if file.exists():
        if named is None:
            raise Dav2Error(f"{file}: a list ({split}) is for the PNG layouts: use train, test or all")
        items, about = _frames(file, named), ()
        read = partial(_read_labeled, file=str(file), filled=depth == "filled", eigen_crop=eigen_crop)
    else:
        images, depths = (layout.find(root, *_patterns(root, named, names)) for names in _NAMES[depth])
        items, about = layout.pair(images, depths, partial(_depth_of, filled=depth == "filled"))
        if named is None:
            items, about = layout.chosen(items, Path(split))
        read = partial(_read_png, root=str(root), filled=depth == "filled", eigen_crop=eigen_crop)
    return Source("nyu", layout.some(items, about, f"{root}, {split}"), read, "metres", about)


_NAMES = {  # of images, of depths
    "raw": (("rgb_*.jpg", "rgb_*.png"), ("sync_depth_*.png", "depth_*.png")),
    "filled": (("rgb_*.png",), ("filled_*.png",)),
}


def _read_labeled(index: int, *, file: str, filled: bool, eigen_crop: bool) -> Example:
    path = Path(file)
    image = depth_files.read_hdf5(path, "images", index)
    depth = depth_files.read_hdf5(path, "depths" if filled else "rawDepths", index)
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != np.uint8 or depth.ndim != 2:
        raise Dav2Error(f"{path}: frame {index + 1} is {image.dtype} {list(image.shape)}, {list(depth.shape)}")
    return _example(f"{path.stem}/{index + 1:04d}", np.ascontiguousarray(image.T), depth.T, eigen_crop)


def _read_png(image: str, *, root: str, filled: bool, eigen_crop: bool) -> Example:
    steps = depth_files.read_png16(Path(root, _depth_of(image, filled)))
    photo = read_image(Path(root, image))[0]
    return _example(image.rsplit(".", 1)[0], photo, steps.astype(np.float32) / np.float32(1000), eigen_crop)


def _example(id: str, image: np.ndarray, depth: np.ndarray, eigen_crop: bool) -> Example:
    valid = None
    if eigen_crop:
        valid = np.zeros(depth.shape, bool)
        valid[EIGEN_CROP] = True
    return labeled(id, image, depth, valid, INTRINSICS)


def _depth_of(image: str, filled: bool) -> str:
    folder, _, name = image.rpartition("/")
    kind = "filled_" if filled else "sync_depth_" if name.endswith(".jpg") else "depth_"
    return f"{folder}/{name.replace('rgb_', kind).rsplit('.', 1)[0]}.png"


def _patterns(root: Path, named: str | None, names: tuple[str, ...]) -> list[str]:
    """Where such names may be. To train with, the first folder that is there: BTS's two are of different frames."""
    folders = [*_FOLDERS["train"], *_FOLDERS["test"], ""] if named in ("all", None) else _FOLDERS[named]
    if named in _FOLDERS:
        folders = [folder for folder in folders if (root / folder).is_dir()][:1] or folders
    return [f"{folder}*/{name}" for folder in folders for name in names]


def _frames(file: Path, split: str) -> list[int]:
    """Places of the frames of a split in the labeled file, from 0."""
    count = depth_files.hdf5_length(file, "images")
    if split == "all":
        return list(range(count))
    path = file.parent / "splits.mat"
    if not path.exists():
        raise Dav2Error(
            f"{file.parent}: split {split!r} needs splits.mat there (from the dataset's page), or take 'all'"
        )
    from scipy.io import loadmat

    try:
        numbers = np.ravel(loadmat(path)[f"{split}Ndxs"]).astype(int)
    except Exception as error:  # of many kinds: MATLAB's format is read by guesses
        raise Dav2Error(f"{path}: damaged, or no splits of NYU Depth V2 ({error}): check the file") from error
    if numbers.size == 0 or numbers.min() < 1 or numbers.max() > count:
        raise Dav2Error(f"{path}: counts frames up to {numbers.max(initial=0)}, but {file.name} has {count}")
    return sorted((numbers - 1).tolist())
