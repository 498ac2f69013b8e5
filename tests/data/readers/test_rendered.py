"""TartanAir, IRS and BlendedMVS: sky, channels, order of rows and bytes, cameras, parts and lists."""

import dataset_files
import numpy as np
import pytest

from dav2_jax.data import example as examples
from dav2_jax.data.readers import blendedmvs, irs, tartanair
from dav2_jax.errors import Dav2Error


def test_tartanair_sky_and_traps_in_both_versions(tmp_path):
    frames = dataset_files.tartanair(tmp_path)
    values = dataset_files.DEPTH.copy()
    values[0] = [999.5, 1000, 10000, 65504, np.inf, np.nan, 0, -1]
    dataset_files.png_floats(tmp_path / frames[0][1], values)
    dataset_files.npy(tmp_path / frames[1][1], values)
    source = tartanair.source(tmp_path)
    for index, center in ((0, 2.5), (1, 2.5)):
        read = source[index]
        np.testing.assert_array_equal(read["depth"][0], np.array([999.5] + [np.inf] * 4 + [0] * 3, np.float32))
        np.testing.assert_array_equal(read["valid"][0], [True] * 5 + [False] * 3)
        np.testing.assert_array_equal(read["depth"][1:], values[1:])
        np.testing.assert_array_equal(read["intrinsics"], np.float32([4, 4, 3.5, center]))
    assert tartanair.source(tmp_path, sky=900)[1]["depth"][0, 0] == np.inf


def test_tartanair_intrinsics_at_full_size(tmp_path):
    trip = tmp_path / "ocean/Easy/P000"
    dataset_files.photo(trip / "image_left/000000_left.png", 480, 640)
    dataset_files.npy(trip / "depth_left/000000_left_depth.npy", np.ones((480, 640)))
    np.testing.assert_array_equal(tartanair.source(tmp_path)[0]["intrinsics"], np.float32([320, 320, 319.5, 239.5]))


def test_tartanair_parts(tmp_path):
    images = [image for image, _ in dataset_files.tartanair(tmp_path)]
    assert list(tartanair.source(tmp_path, split="hard").items) == [images[2]]
    assert list(tartanair.source(tmp_path, split="easy").items) == [images[0], images[1], images[3]]
    assert list(tartanair.source(tmp_path, cameras=("left",)).items) == images[1:]
    dataset_files.photo(tmp_path / "amusement/Easy/P001/image_right/000000_right.png")
    dataset_files.npy(tmp_path / "amusement/Easy/P001/depth_right/000000_right_depth.npy", dataset_files.DEPTH)
    right = tartanair.source(tmp_path, cameras=("right",))
    assert [one["id"] for one in right] == ["amusement/Easy/P001/image_right/000000_right"]
    (tmp_path / "list.txt").write_text(f"data/{images[2]}\n")
    assert list(tartanair.source(tmp_path, split=tmp_path / "list.txt").items) == [images[2]]


def test_irs_keeps_disparity(tmp_path):
    frames = dataset_files.irs(tmp_path)
    values = dataset_files.DEPTH.copy()
    values[0] = [0, 0.5, 48, np.nan, np.inf, -1, 120, 0.125]
    dataset_files.exr(tmp_path / frames[0][1], {"G": values})
    source = irs.source(tmp_path)
    assert source.unit == "disparity"
    assert source.about == ("depth in metres is 48 / disparity",)
    read = source[0]
    np.testing.assert_array_equal(read["disparity"][0], np.float32([0, 0.5, 48, 0, 0, 0, 120, 0.125]))
    np.testing.assert_array_equal(read["disparity"][1:], values[1:])
    np.testing.assert_array_equal(read["valid"][0], [True, True, True, False, False, False, True, True])
    metres = irs.FOCAL * irs.BASELINE * examples.depth(read)
    np.testing.assert_allclose(metres[0, :3], [np.inf, 96, 1])
    np.testing.assert_array_equal(read["intrinsics"], np.float32([480, 480, 3.5, 2.5]))


def test_irs_takes_green_of_three_channels_and_one_of_any_name(tmp_path):
    frames = dataset_files.irs(tmp_path)
    dataset_files.exr(
        tmp_path / frames[0][1], {name: dataset_files.DEPTH * k for name, k in (("R", 2), ("G", 1), ("B", 3))}
    )
    dataset_files.exr(tmp_path / frames[1][1], {"disparity": dataset_files.DEPTH})
    for read in irs.source(tmp_path):
        np.testing.assert_array_equal(read["disparity"], dataset_files.DEPTH)


def test_irs_parts(tmp_path):
    images = [image for image, _ in dataset_files.irs(tmp_path)]
    assert list(irs.source(tmp_path, split="Home").items) == images[:2]
    flat = [image.removeprefix("Home/") for image in images[:2]]
    assert list(irs.source(tmp_path / "Home").items) == flat
    lines = [f"{name} {name.replace('l_', 'r_')} d n" for name in (f"IRSDataset/{images[2]}", images[0])]
    (tmp_path / "irs_test.list").write_text("\n".join(lines))
    assert list(irs.source(tmp_path, split=tmp_path / "irs_test.list").items) == [images[2], images[0]]
    (tmp_path / "irs_test.list").write_text("\n")
    with pytest.raises(Dav2Error, match=r"irs_test\.list: an empty list"):
        irs.source(tmp_path, split=tmp_path / "irs_test.list")
    (tmp_path / "irs_test.list").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Dav2Error, match=r"irs_test\.list: is no text"):
        irs.source(tmp_path, split=tmp_path / "irs_test.list")


def test_blendedmvs_rows_bytes_holes_and_cameras(tmp_path):
    frames = dataset_files.blendedmvs(tmp_path)
    values = dataset_files.DEPTH.copy()
    values[0, :4] = [0, np.nan, -1, 3]
    for (_, depth), big_endian in zip(frames, (True, False, True, False), strict=True):
        dataset_files.pfm(tmp_path / depth, values, big_endian=big_endian)
    (tmp_path / frames[3][0].replace("blended_images", "cams").replace(".jpg", "_cam.txt")).unlink()
    source = blendedmvs.source(tmp_path)
    assert source.unit == "any scale"
    for read in source:
        np.testing.assert_array_equal(read["depth"][0, :4], [0, 0, 0, 3])
        np.testing.assert_array_equal(read["valid"][0, :4], [False, False, False, True])
        np.testing.assert_array_equal(read["depth"][1:], values[1:])
    assert tuple(source[0]["intrinsics"]) == (579.5, 580.5, 3.75, 3.0)
    assert "intrinsics" not in source[3]
    assert not any("masked" in item for item in source.items)
    dataset_files.pfm(tmp_path / frames[0][1], values * 0)  # an empty map is no error
    assert not source[0]["valid"].any()
    for text in ("extrinsic 1 2 3", "extrinsic 1\nintrinsic\n1 0 2\n0 x 3\n0 0 1"):
        camera = tmp_path / frames[1][0].replace("blended_images", "cams").replace(".jpg", "_cam.txt")
        camera.write_text(text)
        with pytest.raises(Dav2Error, match=r"blendedmvs: .*00000001_cam\.txt: no camera in the format of MVSNet"):
            source[1]


def test_blendedmvs_lists_of_scenes(tmp_path):
    images = [image for image, _ in dataset_files.blendedmvs(tmp_path)]
    (tmp_path / "training_list.txt").write_text("57f8d9bbe73f6760f10e916a\n5b08\n5c34300a73a8df509add216d\n")
    (tmp_path / "validation_list.txt").write_text("5a3c")
    train = blendedmvs.source(tmp_path, split="train")
    assert list(train.items) == [images[0], images[1], images[3]]
    missing = "1 scenes of the list that are not on disk left out, the first is 5c34300a73a8df509add216d"
    assert train.about == (missing,)
    assert list(blendedmvs.source(tmp_path, split="val").items) == [images[2]]
    assert list(blendedmvs.source(tmp_path, split=tmp_path / "validation_list.txt").items) == [images[2]]
    (tmp_path / "training_list.txt").unlink()
    with pytest.raises(Dav2Error, match=r"training_list\.txt: No such file or directory: give the path of a list"):
        blendedmvs.source(tmp_path, split="train")
