"""KITTI depth: 93,000 frames from a car, with depth from several laser scans put together. arXiv 1708.06500
https://www.cvlibs.net/datasets/kitti/eval_depth_all.php and raw_data.php

    root/                                                   or all of it in root/data_depth_annotated
      train/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png     uint16, about 375 x 1242
      val/...                                               train/ and val/ may also be merged into one, as BTS does
    images/                                                 root/raw_data, root/raw, root itself, or the option
      2011_09_26/
        2011_09_26_drive_0001_sync/image_02/data/0000000005.png      or .jpg
        calib_cam_to_cam.txt                                optional

Stored is depth along the optical axis in metres times 256; 0 is not measured (80 % of the pixels, and all of the sky).
The first and last five frames of a drive have no depth. Intrinsics are those of P_rect_02 or P_rect_03, if the file
of the day is there; OpenCV's convention is ours.

The official train and val are those of the depth benchmark. The test of most papers is Eigen's: 697 images of raw
drives, 652 of which have a depth here, in train/ as well as in val/. It needs its list, as split=PATH, in any of the
usual forms: "rgb depth focal" (BTS eigen_test_files_with_gt.txt, Marigold data_split/kitti*/), "rgb depth" with other
folders before (Depth-Anything-V2 metric_depth/dataset/splits/kitti/val.txt), or "date/drive frame side" (monodepth2).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from dav2_jax.data import layout
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

PARTS = {"train": ("train/",), "val": ("val/",), "all": ("train/", "val/", "")}

Frame = tuple[str, str, str]  # drive, camera (02 is the left color camera, 03 the right one), number

_DEPTH = re.compile(r"(\d+_\d+_\d+_drive_\d+_sync)/proj_depth/groundtruth/image_(0[23])/(\d+)\.png")
_IMAGE = re.compile(r"(\d+_\d+_\d+_drive_\d+_sync)/image_(0[23])/data/(\d+)\.")
_MONODEPTH = re.compile(r"(\d+_\d+_\d+_drive_\d+_sync) (\d+) ([lr])")


def source(
    root: Path, *, split: str = "train", images: Path | None = None, cameras: tuple[int, ...] = (2, 3)
) -> Source:
    """Depth in metres.

    split     train, val or all, or the path of a list such as Eigen's test list
    images    the folder of the raw data, where days are; the default is what is found in root
    cameras   2 is the left one, 3 the right one; not used with a list, which says it
    """
    root = Path(root)
    named = layout.split_choice(split, tuple(PARTS))
    ending = "*_drive_*_sync/proj_depth/groundtruth/image_0[23]/*.png"
    bases = [f"{base}{part}" for base in ("", "data_depth_annotated/") for part in PARTS[named or "all"]]
    depths = {_frame(_DEPTH, path): path for path in layout.find(root, *[base + ending for base in bases])}
    folder = Path(images) if images is not None else _raw_folder(root)
    photos = {_frame(_IMAGE, path): path for path in layout.find(folder, "*/*_drive_*_sync/image_0[23]/data/*.*")}
    if named is None:
        wanted, about = _listed(Path(split), photos, depths)
    else:
        wanted = sorted(frame for frame in depths if int(frame[1]) in cameras)
        halves = [depths[frame] for frame in wanted if frame not in photos]
        wanted = [frame for frame in wanted if frame in photos]
        about = layout.left_out("depth files without an image", halves)
    items = layout.some([(photos[frame], depths[frame]) for frame in wanted], about, f"{root} with images of {folder}")
    days = {image.split("/", 1)[0] for image, _ in items}
    known = {day: found for day in sorted(days) if (found := _calibration(folder / day / "calib_cam_to_cam.txt"))}
    if bare := sorted(days - known.keys()):
        about += (f"no intrinsics for {len(bare)} days without calib_cam_to_cam.txt, the first is {bare[0]}",)
    read = partial(_read, images=str(folder), depths=str(root), intrinsics=known)
    return Source("kitti", items, read, "metres", about)


def _read(
    item: tuple[str, str], *, images: str, depths: str, intrinsics: dict[str, dict[str, tuple[float, ...]]]
) -> Example:
    image, depth = item
    metres = depth_files.read_png16(Path(depths, depth)).astype(np.float32) / np.float32(256)
    known = intrinsics.get(image.split("/", 1)[0], {}).get(_frame(_IMAGE, image)[1])
    photo = read_image(Path(images, image))[0]
    return labeled(image.rsplit(".", 1)[0], photo, metres, intrinsics=known)


def _frame(pattern: re.Pattern, path: str) -> Frame | None:
    match = pattern.search(path)
    return match.groups() if match else None


def _raw_folder(root: Path) -> Path:
    named = [root / "raw_data", root / "raw"]
    return next((folder for folder in named if folder.is_dir()), root)


def _listed(path: Path, photos: dict[Frame, str], depths: dict[Frame, str]) -> tuple[list[Frame], tuple[str, ...]]:
    found, missing = [], []
    for row in layout.read_list(path):
        frame = _frame(_IMAGE, row[0])
        if frame is None and (match := _MONODEPTH.search(" ".join(row))):
            drive, number, side = match.groups()
            frame = (drive, "02" if side == "l" else "03", f"{int(number):010d}")
        (found if frame in photos and frame in depths else missing).append(frame or row[0])
    names = [frame if isinstance(frame, str) else " ".join(frame) for frame in missing]
    return found, layout.left_out(f"entries of {path.name} without an image and depth on disk", names)


def _calibration(path: Path) -> dict[str, tuple[float, ...]]:
    """Camera -> fx, fy, cx, cy; empty where there is no such file."""
    if not path.exists():
        return {}
    found = {}
    try:
        for line in path.read_text("utf-8").splitlines():
            name, _, values = line.partition(":")
            if name in ("P_rect_02", "P_rect_03"):
                matrix = np.array(values.split(), np.float64).reshape(3, 4)
                found[name[-2:]] = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    except ValueError as error:
        raise Dav2Error(f"{path}: no calibration of KITTI ({error}): check the file") from error
    return found
