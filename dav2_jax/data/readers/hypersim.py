"""Hypersim: 77,400 rendered images of 461 indoor scenes. https://github.com/apple/ml-hypersim (arXiv 2011.02523)

    root/                                       what contrib/99991/download.py or dataset_download_images.py unpack
      metadata_images_split_scene_v1.csv        the official split: evermotion_dataset/analysis/ of that repository
      metadata_camera_parameters.csv            optional cameras: contrib/mikeroberts3000/ of that repository
      ai_001_001/images/
        scene_cam_00_final_preview/frame.0000.tonemap.jpg
        scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5     key "dataset", float16, 768 x 1024

Stored is the Euclidean distance to the camera's center in metres, not depth ("should really be called
distance_meters", issue 9 there); NaN where a ray hit nothing. The split's rows with included_in_public_release False
(broken frames) are left out.

Depth along the optical axis comes from the camera of each scene where the table has it, else from the one camera that
DepthAnything/Depth-Anything-V2 metric_depth/dataset/hypersim.py uses for all: 60 degrees wide, f = 886.81, centered.
In the table, M_cam_from_uv maps (u, v, 1), -1 to 1 over the image with v upwards, to a ray (see the notebook
01_casting_rays_that_match_hypersim_images there). Many scenes have tilt-shift lenses: their image plane is not
perpendicular to the camera's own z axis. The optical axis is then the normal of the image plane, as in any picture of
straight lines, and what a shifted lens is for: a wall parallel to the sensor has one depth. For the other scenes it
is the camera's z axis. Intrinsics leave out the skew of such lenses, at most a few pixels.
"""

from __future__ import annotations

import csv
import functools
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

SPLIT_TABLE = "metadata_images_split_scene_v1.csv"
CAMERA_TABLE = "metadata_camera_parameters.csv"
SPLITS = ("train", "val", "test", "all")

Camera = tuple[float, ...]  # M_cam_from_uv, row by row

_ORIGINAL = re.compile(r"(ai_\d+_\d+)/images/scene_(cam_\d+)_\w+/frame\.(\d+)\.")
_MARIGOLD = re.compile(r"(ai_\d+_\d+)/rgb_(cam_\d+)_fr(\d+)\.")  # data_split/hypersim*/ of prs-eth/Marigold


def source(root: Path, *, split: str = "train", cameras: Path | None = None) -> Source:
    """Depth in metres.

    split     train, val or test of the official table, all that is on disk, or the path of a list of files as
              Depth Anything V2 and Marigold use them (folders before the scene's are ignored)
    cameras   the table of cameras, if it is not in root
    """
    root = Path(root)
    named = layout.split_choice(split, SPLITS)
    images = layout.find(root, "ai_*_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg")
    depths = layout.find(root, "ai_*_*/images/scene_cam_*_geometry_hdf5/frame.*.depth_meters.hdf5")
    items, about = layout.pair(images, depths, _depth_of)
    if named is None:
        items, about = layout.chosen(items, Path(split), _image_of_row)
    elif named != "all":
        wanted = _official(root, named)
        items = [item for item in items if item in wanted]
    layout.some(items, about, f"{root}, {split}")
    table = _cameras(root, cameras)
    if table is None:
        about += (f"depth by one camera (f = 886.81 at 1024) for all scenes: {CAMERA_TABLE} is not in {root}",)
    else:
        scenes = {item.split("/", 1)[0] for item in items}
        table = {scene: camera for scene, camera in table.items() if scene in scenes}
        about += (f"depth by the camera of each scene, from {CAMERA_TABLE}",)
        if bare := sorted(scenes - table.keys()):
            about += (f"{len(bare)} scenes are not in it and get the common camera, the first is {bare[0]}",)
    return Source("hypersim", items, partial(_read, root=str(root), cameras=table or {}), "metres", about)


def _read(image: str, *, root: str, cameras: dict[str, Camera]) -> Example:
    path = Path(root, _depth_of(image))
    distance = depth_files.read_hdf5(path, "dataset")
    if distance.ndim != 2:
        raise Dav2Error(f"{path}: holds {list(distance.shape)}, not distances [H, W]")
    camera = cameras.get(image.split("/", 1)[0])
    depth = distance.astype(np.float32) * _depth_per_distance(*distance.shape, camera)
    photo = read_image(Path(root, image))[0]
    return labeled(image.removesuffix(".jpg"), photo, depth, intrinsics=_intrinsics(*distance.shape, camera))


def _depth_of(image: str) -> str:
    return image.replace("_final_preview/", "_geometry_hdf5/").replace(".tonemap.jpg", ".depth_meters.hdf5")


def _image(scene: str, camera: str, frame: str) -> str:
    return f"{scene}/images/scene_{camera}_final_preview/frame.{int(frame):04d}.tonemap.jpg"


def _image_of_row(row: list[str]) -> str:
    match = _ORIGINAL.search(row[0]) or _MARIGOLD.search(row[0])
    return _image(*match.groups()) if match else row[0]


def _official(root: Path, split: str) -> set[str]:
    rows = _table(root / SPLIT_TABLE, ("scene_name", "camera_name", "frame_id", "split_partition_name"))
    if rows is None:
        raise Dav2Error(f"{root}: split {split!r} needs {SPLIT_TABLE} there (from apple/ml-hypersim), or take 'all'")
    return {
        _image(row["scene_name"], row["camera_name"], row["frame_id"])
        for row in rows
        if row["split_partition_name"] == split and row.get("included_in_public_release", "True") == "True"
    }


def _cameras(root: Path, path: Path | None) -> dict[str, Camera] | None:
    """Scene -> camera; None where there is no table."""
    names = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
    path, given = Path(path or root / CAMERA_TABLE), path is not None
    rows = _table(path, ("scene_name", *names))
    if rows is None:
        if given:
            raise Dav2Error(f"{path}: no such table of cameras")
        return None
    try:
        return {row["scene_name"]: tuple(float(row[name]) for name in names) for row in rows}
    except (ValueError, TypeError) as error:  # TypeError: the last line is not whole
        raise Dav2Error(f"{path}: damaged ({error}): check the table") from error


def _table(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]] | None:
    if not path.exists():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [name for name in needed if name not in (rows.fieldnames or ())]
            if missing:
                raise Dav2Error(f"{path}: has no column {missing[0]}: is it the table of apple/ml-hypersim?")
            return list(rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise Dav2Error(f"{path}: is no table ({error}): check the file") from error


@functools.lru_cache(maxsize=8)  # 3 MB each; most scenes share one camera
def _depth_per_distance(height: int, width: int, camera: Camera | None) -> np.ndarray:
    """float32 [H, W]: the cosine between each pixel's ray and the optical axis."""
    u = (2 * np.arange(width) + 1) / width - 1
    v = 1 - (2 * np.arange(height)[:, None] + 1) / height
    matrix = _matrix(height, width, camera)
    rays = [row[0] * u + row[1] * v + row[2] for row in matrix]
    normal = np.cross(matrix[:, 0], matrix[:, 1])
    along = abs(normal @ matrix[:, 2]) / np.linalg.norm(normal)  # the same for all rays: they end on one plane
    return (along / np.sqrt(rays[0] ** 2 + rays[1] ** 2 + rays[2] ** 2)).astype(np.float32)


@functools.lru_cache(maxsize=512)
def _intrinsics(height: int, width: int, camera: Camera | None) -> Camera:
    matrix = _matrix(height, width, camera)
    right = matrix[:, 0] / np.linalg.norm(matrix[:, 0])
    normal = np.cross(matrix[:, 0], matrix[:, 1])
    normal /= np.linalg.norm(normal)
    up = np.cross(normal, right)
    along = abs(normal @ matrix[:, 2])
    (x_per_u, x), (y_per_v, y) = (right @ matrix[:, [0, 2]], up @ matrix[:, [1, 2]])
    # The axis meets the image at u = -x / x_per_u, v = -y / y_per_v.
    return (
        along / x_per_u * width / 2,
        along / y_per_v * height / 2,
        (1 - x / x_per_u) * width / 2 - 0.5,
        (1 + y / y_per_v) * height / 2 - 0.5,
    )


def _matrix(height: int, width: int, camera: Camera | None) -> np.ndarray:
    if camera is not None:
        return np.reshape(camera, (3, 3))
    focal = 886.81 * width / 1024
    return np.diag([width / 2 / focal, height / 2 / focal, -1.0])
