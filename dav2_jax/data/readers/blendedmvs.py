"""BlendedMVS and BlendedMVG: photos blended with renderings of the models made from them; up to 502 scenes, 110,000
frames. https://github.com/YoYo000/BlendedMVS (arXiv 1911.10127)

    root/5a3ca9cb270f0e3f14d0eddb/
      blended_images/00000000.jpg               576 x 768; 00000000_masked.jpg, without background, is not used
      rendered_depth_maps/00000000.pfm          float32, bottom row first
      cams/00000000_cam.txt                     optional: extrinsic, intrinsic, depth range (the format of MVSNet)
    root/training_list.txt, validation_list.txt     optional: scenes, one a line

Stored is depth along the optical axis in units that differ between the scenes; 0 is where the model has no surface:
holes, background and sky alike, so sky is not known here. A map may be empty altogether (README, Note). The authors'
own code (get_pixel_grids of MVSNet and Vis-MVSNet) counts pixels from the corner of the picture, first center at 0.5,
so half a pixel is taken off the principal point.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dav2_jax.data import layout
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

LISTS = {"train": "training_list.txt", "val": "validation_list.txt"}


def source(root: Path, *, split: str = "all") -> Source:
    """Depth in any scale, one for each scene.

    split   all; train or val, by the lists in root; or the path of a list of scenes (project_lists/ of the authors)
    """
    root = Path(root)
    named = layout.split_choice(split, ("all", *LISTS))
    images = layout.find(root, "*/blended_images/*.jpg")
    images = [image for image in images if not image.endswith("_masked.jpg")]
    items, about = layout.pair(images, layout.find(root, "*/rendered_depth_maps/*.pfm"), _depth_of)
    if named != "all":
        scenes = {row[0] for row in layout.read_list(Path(split) if named is None else root / LISTS[named])}
        items = [item for item in items if item.split("/", 1)[0] in scenes]
        there = {item.split("/", 1)[0] for item in items}
        about += layout.left_out("scenes of the list that are not on disk", sorted(scenes - there))
    layout.some(items, about, f"{root}, {split}")
    return Source("blendedmvs", items, partial(_read, root=str(root)), "any scale", about)


def _read(image: str, *, root: str) -> Example:
    depth = depth_files.read_pfm(Path(root, _depth_of(image)))
    camera = image.replace("/blended_images/", "/cams/").removesuffix(".jpg") + "_cam.txt"
    photo = read_image(Path(root, image))[0]
    return labeled(image.removesuffix(".jpg"), photo, depth, intrinsics=_intrinsics(Path(root, camera)))


def _depth_of(image: str) -> str:
    return image.replace("/blended_images/", "/rendered_depth_maps/").removesuffix(".jpg") + ".pfm"


def _intrinsics(path: Path) -> tuple[float, ...] | None:
    """fx, fy, cx, cy; None where there is no such file."""
    if not path.exists():
        return None
    try:
        words = path.read_text("utf-8").split()
        start = words.index("intrinsic") + 1
        values = [float(word) for word in words[start : start + 9]]
        return values[0], values[4], values[2] - 0.5, values[5] - 0.5
    except (ValueError, IndexError) as error:
        raise Dav2Error(f"{path}: no camera in the format of MVSNet ({error}): check the file") from error
