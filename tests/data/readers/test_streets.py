"""Virtual KITTI 2 and KITTI: steps to metres, sky, what is not measured, intrinsics, parts and lists."""

import shutil

import dataset_files
import numpy as np
import pytest

from dav2_jax.data.readers import kitti, vkitti2
from dav2_jax.errors import Dav2Error


def test_vkitti_centimetres_and_sky(tmp_path):
    (_, depth), *_ = dataset_files.vkitti2(tmp_path)
    steps = np.array([[1, 123, 8000, 65534, 65535, 0, 0x0102, 0x0201]] * 6, np.uint16)
    dataset_files.png16(tmp_path / depth, steps)
    example = vkitti2.source(tmp_path)[0]
    metres = np.array([0.01, 1.23, 80, 655.34, np.inf, 0, 2.58, 5.13], np.float32)
    np.testing.assert_array_equal(example["depth"], [metres] * 6)
    np.testing.assert_array_equal(example["valid"], [[True] * 5 + [False] + [True] * 2] * 6)
    np.testing.assert_allclose(example["intrinsics"], [725.0087, 725.0087, 620.5, 187], rtol=1e-7)


def test_vkitti_archives_beside_each_other_with_intrinsics(tmp_path):
    frames = dataset_files.vkitti2(tmp_path / "flat")
    for image, depth in frames:
        for kind, path in (("rgb", image), ("depth", depth)):
            (tmp_path / f"vkitti_2.0.3_{kind}" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(tmp_path / "flat" / path, tmp_path / f"vkitti_2.0.3_{kind}" / path)
    plain = vkitti2.source(tmp_path)
    assert [example["id"] for example in plain] == [image.removesuffix(".jpg") for image, _ in frames]
    assert plain.about == ("intrinsics: the known ones, for there is no intrinsic.txt",)
    table = tmp_path / "vkitti_2.0.3_textgt/Scene01/clone/intrinsic.txt"
    table.parent.mkdir(parents=True)
    head = "frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]\n"
    table.write_text(head + "0 0 1 2 3 4\n0 1 5 6 7 8\n1 0 700.5 701 620 180\n1 1 710 711 630 190.25\n")
    source = vkitti2.source(tmp_path)
    assert source.about == ()
    assert [tuple(example["intrinsics"]) for example in source] == [
        tuple(np.float32(vkitti2.INTRINSICS)), (700.5, 701, 620, 180), (710, 711, 630, 190.25),
        tuple(np.float32(vkitti2.INTRINSICS)),
    ]  # fmt: skip
    table.write_text(head + "0 zero\n")
    vkitti2._intrinsics.cache_clear()
    with pytest.raises(Dav2Error, match=r"clone/intrinsic\.txt: no table of frame, camera and four intrinsics"):
        source[1]
    vkitti2._intrinsics.cache_clear()


def test_vkitti_parts(tmp_path):
    images = [image for image, _ in dataset_files.vkitti2(tmp_path)]
    assert list(vkitti2.source(tmp_path, cameras=(0,)).items) == [images[0], images[1], images[3]]
    assert list(vkitti2.source(tmp_path, cameras=(1,)).items) == [images[2]]
    assert list(vkitti2.source(tmp_path, scenes=("Scene20",)).items) == [images[3]]
    assert list(vkitti2.source(tmp_path, variations=("clone", "fog"), cameras=(0,)).items) == [images[1], images[3]]
    with pytest.raises(Dav2Error, match="not one whole example"):
        vkitti2.source(tmp_path, variations=("snow",))
    prefix = "/mnt/bn/liheyang/DepthDatasets/vKITTI2/"
    (tmp_path / "train.txt").write_text(f"{prefix}{images[3]} {prefix}x\n{prefix}{images[0]} {prefix}y\n")
    assert list(vkitti2.source(tmp_path, split=tmp_path / "train.txt").items) == [images[3], images[0]]


def test_kitti_steps_of_a_256th_and_holes(tmp_path):
    (_, depth), *_ = dataset_files.kitti(tmp_path)
    dataset_files.png16(tmp_path / depth, np.array([[0, 1, 255, 256, 20000, 65535, 0x0102, 0x0201]] * 6, np.uint16))
    example = kitti.source(tmp_path)[0]
    metres = np.array([0, 1, 255, 256, 20000, 65535, 258, 513], np.float32) / 256
    np.testing.assert_array_equal(example["depth"], [metres] * 6)
    np.testing.assert_array_equal(example["valid"], [[False] + [True] * 7] * 6)


def test_kitti_parts_and_calibration(tmp_path):
    frames = dataset_files.kitti(tmp_path)
    names = [image.removeprefix("raw_data/").removesuffix(".png") for image, _ in frames]
    source = kitti.source(tmp_path)
    assert [example["id"] for example in source] == [names[0], names[1], names[3]]
    assert source.about == ("no intrinsics for 1 days without calib_cam_to_cam.txt, the first is 2011_10_03",)
    np.testing.assert_array_equal(source[0]["intrinsics"], np.float32([721.5377, 721.5378, 609.5593, 172.854]))
    np.testing.assert_array_equal(source[1]["intrinsics"], source[0]["intrinsics"])
    assert "intrinsics" not in source[2]
    assert [example["id"] for example in kitti.source(tmp_path, cameras=(2,))] == [names[0], names[3]]
    assert [example["id"] for example in kitti.source(tmp_path, split="val")] == [names[2]]
    (tmp_path / "raw_data/2011_09_26/calib_cam_to_cam.txt").write_text("P_rect_02: 1 2 3\n")
    with pytest.raises(Dav2Error, match=r"calib_cam_to_cam\.txt: no calibration of KITTI"):
        kitti.source(tmp_path)


def test_kitti_with_images_elsewhere_parts_merged_and_as_jpeg(tmp_path):
    """The layout of BTS: raw data in one folder, all drives with depth in another."""
    frames = dataset_files.kitti(tmp_path / "kitti")
    merged = tmp_path / "gt"
    for part in ("train", "val"):
        shutil.copytree(tmp_path / "kitti/data_depth_annotated" / part, merged, dirs_exist_ok=True)
    raw = tmp_path / "kitti/raw_data"
    for path in [*raw.glob("*/*/*/data/*.png")]:
        path.rename(path.with_suffix(".jpg"))
    source = kitti.source(merged, split="all", images=raw)
    names = [image.removeprefix("raw_data/").removesuffix(".png") for image, _ in frames]
    assert [example["id"] for example in source] == names
    with pytest.raises(Dav2Error, match=r"gt: no \*/\*_drive_\*_sync/image_0\[23\]/data/\*\.\*"):
        kitti.source(merged, split="all")


def test_the_lists_of_eigens_test(tmp_path):
    frames = dataset_files.kitti(tmp_path)
    raw = [image.removeprefix("raw_data/") for image, _ in frames]
    val, train = (2, 0)
    bare = [frames[index][1].split("/", 2)[2] for index in range(4)]
    mount = "/mnt/bn/liheyang/Kitti/"
    absent = "2011_09_26/2011_09_26_drive_0117_sync/image_02/data/0000000000.png"
    dataset_files.photo(tmp_path / "raw_data" / absent)  # as 45 of the 697: an image, and no depth
    lists = {
        "bts": [f"{raw[val]} {bare[val]} 721.5377", f"{raw[train]} {bare[train]} 721.5377"],
        "da2": [f"{mount}raw_data/{raw[index]} {mount}{frames[index][1]}" for index in (val, train)],
        "monodepth2": [
            "2011_09_26/2011_09_26_drive_0002_sync 69 l",
            "2011_09_26/2011_09_26_drive_0001_sync 0000000005 l",
        ],
    }  # fmt: skip
    for name, lines in lists.items():
        path = tmp_path / f"{name}.txt"
        path.write_text("\n".join([*lines, f"{mount}{absent} None"]))
        source = kitti.source(tmp_path, split=path)
        assert list(source.items) == [(raw[val], frames[val][1]), (raw[train], frames[train][1])], name
        assert f"1 entries of {name}.txt without an image and depth on disk left out, the first is " in source.about[0]
        np.testing.assert_array_equal(source[0]["depth"], dataset_files.DEPTH)
    (tmp_path / "right.txt").write_text("2011_09_26/2011_09_26_drive_0001_sync 5 r")
    assert list(kitti.source(tmp_path, split=tmp_path / "right.txt").items) == [(raw[1], frames[1][1])]
    (tmp_path / frames[1][0]).unlink()
    with pytest.raises(Dav2Error, match=r"not one whole example: 1 entries of right\.txt"):
        kitti.source(tmp_path, split=tmp_path / "right.txt")
    (tmp_path / "other.txt").write_text("a.png b.png\n")
    with pytest.raises(
        Dav2Error, match=r"not one whole example: 1 entries of other\.txt .* left out, the first is a\.png"
    ):
        kitti.source(tmp_path, split=tmp_path / "other.txt")
