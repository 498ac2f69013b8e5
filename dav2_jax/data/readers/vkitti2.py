"""Virtual KITTI 2: five streets of KITTI rendered in ten conditions, 21,260 frames of two cameras. arXiv 2001.10773
https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2/

    root/                                       or root/vkitti_2.0.3_rgb, _depth, _textgt, as the archives are called
      Scene01/clone/                            scenes 01 02 06 18 20; clone fog morning overcast rain sunset and
        frames/rgb/Camera_0/rgb_00000.jpg       15-deg-left 15-deg-right 30-deg-left 30-deg-right
        frames/depth/Camera_0/depth_00000.png   uint16, 375 x 1242
        intrinsic.txt                           optional (vkitti_2.0.3_textgt): frame cameraID K[0,0] K[1,1] K[0,2] ...

Stored is depth along the optical axis in centimetres; 65535 (655.35 m) is the far plane, which only the sky reaches:
it becomes infinitely far. The official reader (DepthAnything/Depth-Anything-V2 metric_depth/dataset/vkitti2.py) cuts
at 80 m instead. The principal point (620.5, 187) is the middle of 1242 x 375 counted from the first pixel's center, so
the intrinsics are taken as they are.
"""

from __future__ import annotations

import functools
from functools import partial
from pathlib import Path

import numpy as np

from dav2_jax.data import layout
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

SKY = 65535
INTRINSICS = (725.0087, 725.0087, 620.5, 187.0)  # of every frame in the files that were looked at


def source(
    root: Path,
    *,
    split: str = "all",
    cameras: tuple[int, ...] = (0, 1),
    scenes: tuple[str, ...] = (),
    variations: tuple[str, ...] = (),
) -> Source:
    """Depth in metres. There is no official split: hold out a scene, or give a list.

    split        all, or the path of a list as Depth Anything V2 has one (image first, folders before Scene ignored)
    cameras      0 is the left one, 1 the right one; Depth Anything V2 uses 0 alone
    scenes, variations   of these names only, such as Scene01 and fog; empty is all of them
    """
    root = Path(root)
    folders = {kind: root / f"vkitti_2.0.3_{kind}" for kind in ("rgb", "depth", "textgt")}
    folders = {kind: folder if folder.is_dir() else root for kind, folder in folders.items()}
    images = layout.find(folders["rgb"], "Scene*/*/frames/rgb/Camera_[01]/rgb_*.jpg")
    depths = layout.find(folders["depth"], "Scene*/*/frames/depth/Camera_[01]/depth_*.png")
    items, about = layout.pair(images, depths, _depth_of)
    if layout.split_choice(split, ("all",)) is None:
        items, about = layout.chosen(items, Path(split))
    items = [item for item in items if _wanted(item, cameras, scenes, variations)]
    layout.some(items, about, f"{root}, the chosen part")
    if next(folders["textgt"].glob("Scene*/*/intrinsic.txt"), None) is None:
        about += ("intrinsics: the known ones, for there is no intrinsic.txt",)
    read = partial(_read, **{kind: str(folder) for kind, folder in folders.items()})
    return Source("vkitti2", items, read, "metres", about)


def _read(image: str, *, rgb: str, depth: str, textgt: str) -> Example:
    steps = depth_files.read_png16(Path(depth, _depth_of(image)))
    metres = steps.astype(np.float32) / np.float32(100)
    metres[steps == SKY] = np.inf
    scene, variation, *_, camera, name = image.split("/")
    known = _intrinsics(Path(textgt, scene, variation, "intrinsic.txt"))
    key = (int(name.removeprefix("rgb_").removesuffix(".jpg")), int(camera.removeprefix("Camera_")))
    photo = read_image(Path(rgb, image))[0]
    return labeled(image.removesuffix(".jpg"), photo, metres, intrinsics=known.get(key, INTRINSICS))


def _depth_of(image: str) -> str:
    return image.replace("/rgb/", "/depth/").replace("/rgb_", "/depth_").replace(".jpg", ".png")


def _wanted(image: str, cameras: tuple[int, ...], scenes: tuple[str, ...], variations: tuple[str, ...]) -> bool:
    scene, variation, *_, camera, _ = image.split("/")
    return (
        int(camera.removeprefix("Camera_")) in cameras
        and (not scenes or scene in scenes)
        and (not variations or variation in variations)
    )


@functools.lru_cache(maxsize=64)
def _intrinsics(path: Path) -> dict[tuple[int, int], tuple[float, ...]]:
    """(frame, camera) -> fx, fy, cx, cy; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        rows = [line.split() for line in path.read_text("utf-8").splitlines()[1:]]
        return {(int(row[0]), int(row[1])): tuple(float(x) for x in row[2:6]) for row in rows if row}
    except (ValueError, IndexError) as error:
        raise Dav2Error(f"{path}: no table of frame, camera and four intrinsics ({error}): check the file") from error
