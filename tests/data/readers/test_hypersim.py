"""Hypersim: distance becomes depth, by the right camera; NaN; the official split."""

import dataset_files
import numpy as np
import pytest

from dav2_jax.data.readers import hypersim
from dav2_jax.errors import Dav2Error

# M_cam_from_uv of three scenes, from the authors' table.
STRAIGHT = (0.5773502886169104, 0.0, 0.0, 0.0, 0.4330127164626828, 0.0, 0.0, 0.0, -1.0)  # ai_001_001
SHIFTED = (0.5782227289, 0.0, -0.034693363, 0.0, 0.4336670467, 0.0578222738, 0.0, 0.0, -1.0015111119)  # ai_044_002
TILTED = (0.5859437529, 0.0, 0.0, 0.0, 0.4354028775, 0.0, -0.0585943762, -0.07401849, -1.0182560623)  # ai_044_004

IMAGE = "ai_{}/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg"
DEPTH = "ai_{}/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5"


def write(root, distance, scene="001_001", dtype=np.float32):
    dataset_files.photo(root / IMAGE.format(scene), *distance.shape)
    dataset_files.hdf5(root / DEPTH.format(scene), distance, dtype)


def write_cameras(path, cameras):
    names = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
    lines = [",".join(["scene_name", "settings_output_img_height", *names, "M_proj_00"])]
    lines += [",".join([scene, "768.0", *map(str, camera), "1.0"]) for scene, camera in cameras.items()]
    path.write_text("\n".join(lines) + "\n")


def rays(camera, height, width):
    """[H, W, 3]: through the centers of pixels, by the authors' notebook: u to the right, v up, both from -1 to 1."""
    u, v = np.meshgrid(
        np.linspace(-1 + 1 / width, 1 - 1 / width, width), np.linspace(1 - 1 / height, -1 + 1 / height, height)
    )
    return np.stack([u, v, np.ones_like(u)], -1) @ np.reshape(camera, (3, 3)).T


def test_without_cameras_depth_is_that_of_the_official_code(tmp_path):
    distance = np.random.default_rng(0).uniform(0.1, 20, (768, 1024)).astype(np.float16)
    write(tmp_path, distance, dtype=np.float16)
    source = hypersim.source(tmp_path, split="all")
    x = np.linspace(-511.5, 511.5, 1024, dtype=np.float32)
    y = np.linspace(-383.5, 383.5, 768, dtype=np.float32)[:, None]
    official = distance / np.sqrt(x * x + y * y + np.float32(886.81) ** 2) * 886.81
    example = source[0]
    np.testing.assert_allclose(example["depth"], official, rtol=1e-6)
    np.testing.assert_allclose(example["intrinsics"], [886.81, 886.81, 511.5, 383.5], rtol=1e-7)
    assert source.about == (
        f"depth by one camera (f = 886.81 at 1024) for all scenes: metadata_camera_parameters.csv is not in {tmp_path}",
    )


def test_the_usual_camera_of_the_table_is_the_official_one(tmp_path):
    distance = np.random.default_rng(0).uniform(0.1, 20, (48, 64)).astype(np.float32)
    write(tmp_path, distance)
    fixed = hypersim.source(tmp_path, split="all")[0]
    write_cameras(tmp_path / "metadata_camera_parameters.csv", {"ai_001_001": STRAIGHT})
    own = hypersim.source(tmp_path, split="all")[0]
    np.testing.assert_allclose(own["depth"], fixed["depth"], rtol=1e-6)
    np.testing.assert_allclose(own["intrinsics"], fixed["intrinsics"], rtol=1e-6)


@pytest.mark.parametrize(("camera", "skew"), [(STRAIGHT, 1e-5), (SHIFTED, 1e-5), (TILTED, 0.008)])
def test_depth_and_intrinsics_give_the_points_back(tmp_path, camera, skew):
    """Points made from depth by the pinhole camera have the stored distances, and lie on the stored rays."""
    distance = np.random.default_rng(1).uniform(1, 9, (48, 64)).astype(np.float32)
    write(tmp_path, distance)
    write_cameras(tmp_path / "cameras.csv", {"ai_001_001": camera})
    source = hypersim.source(tmp_path, split="all", cameras=tmp_path / "cameras.csv")
    assert source.about == ("depth by the camera of each scene, from metadata_camera_parameters.csv",)
    fx, fy, cx, cy = source[0]["intrinsics"].astype(float)
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    points = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones(x.shape)], -1) * source[0]["depth"][..., None]
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), distance, rtol=skew)
    # The angle between any two rays is that of the points.
    wanted = rays(camera, 48, 64).reshape(-1, 3)[::97]
    made = points.reshape(-1, 3)[::97]
    wanted, made = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (wanted, made))
    np.testing.assert_allclose(made @ made.T, wanted @ wanted.T, atol=skew)


def test_a_wall_parallel_to_the_sensor_of_a_tilted_lens_has_one_depth(tmp_path):
    ray = rays(TILTED, 48, 64)
    normal = np.cross(TILTED[0::3], TILTED[1::3])
    normal /= np.linalg.norm(normal)
    points = ray * (3 / abs(ray @ normal))[..., None]
    write(tmp_path, np.linalg.norm(points, axis=-1))
    write_cameras(tmp_path / "metadata_camera_parameters.csv", {"ai_001_001": TILTED})
    np.testing.assert_allclose(hypersim.source(tmp_path, split="all")[0]["depth"], 3, rtol=1e-6)


def test_nan_is_not_valid_and_infinity_is_far(tmp_path):
    distance = np.full((6, 8), 2.0)
    distance[0] = np.nan
    distance[1, 0] = np.inf
    write(tmp_path, distance, dtype=np.float16)
    example = hypersim.source(tmp_path, split="all")[0]
    np.testing.assert_array_equal(example["valid"][0], False)
    np.testing.assert_array_equal(example["depth"][0], 0)
    assert example["valid"][1:].all()
    assert example["depth"][1, 0] == np.inf
    assert np.isfinite(example["depth"]).sum() == 47


def test_official_split(tmp_path):
    frames = dataset_files.hypersim(tmp_path)
    with pytest.raises(
        Dav2Error, match=r"split 'train' needs metadata_images_split_scene_v1\.csv there .* or take 'all'"
    ):
        hypersim.source(tmp_path)
    head = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"
    rows = ["ai_001_001,cam_00,0,True,,train", "ai_001_001,cam_00,5,False,bad,train", "ai_001_001,cam_01,0,True,,train",
            "ai_044_004,cam_00,0,True,,val", "ai_055_010,cam_00,7,True,,test"]  # fmt: skip
    (tmp_path / "metadata_images_split_scene_v1.csv").write_text(head + "\n".join(rows) + "\n")
    assert list(hypersim.source(tmp_path).items) == [frames[0][0], frames[2][0]]
    assert list(hypersim.source(tmp_path, split="val").items) == [frames[3][0]]
    with pytest.raises(Dav2Error, match="not one whole example"):
        hypersim.source(tmp_path, split="test")
    with pytest.raises(Dav2Error, match="no split 'valid': use train, val, test, all or the path of a list"):
        hypersim.source(tmp_path, split="valid")
    (tmp_path / "metadata_images_split_scene_v1.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Dav2Error, match=r"scene_v1\.csv: has no column scene_name"):
        hypersim.source(tmp_path)


def test_lists_of_depth_anything_and_marigold(tmp_path):
    frames = dataset_files.hypersim(tmp_path)
    prefix = "/mnt/bn/liheyang/DepthDatasets/HyperSim/all/"
    lines = [f"{prefix}{image} {prefix}{depth}" for image, depth in (frames[3], frames[0])]
    lines.append(f"{prefix}{frames[0][0].replace('001_001', '099_001')} {prefix}x")
    (tmp_path / "val.txt").write_text("\n".join(lines))
    source = hypersim.source(tmp_path, split=tmp_path / "val.txt")
    assert list(source.items) == [frames[3][0], frames[0][0]]
    assert (
        "1 entries of val.txt without an image and depth on disk left out, the first is ai_099_001" in source.about[0]
    )
    (tmp_path / "m.txt").write_text("ai_001_001/rgb_cam_00_fr0005.png ai_001_001/depth_plane_cam_00_fr0005.png\n\n")
    assert list(hypersim.source(tmp_path, split=str(tmp_path / "m.txt")).items) == [frames[1][0]]


def test_cameras_that_are_missing_are_said(tmp_path):
    frames = dataset_files.hypersim(tmp_path)
    write_cameras(tmp_path / "metadata_camera_parameters.csv", {"ai_044_004": TILTED, "ai_055_001": TILTED})
    source = hypersim.source(tmp_path, split="all")
    assert source.about[-1] == "1 scenes are not in it and get the common camera, the first is ai_001_001"
    tilted, common = (source[index]["intrinsics"] for index in (3, 0))
    assert frames[3][0].startswith("ai_044_004")
    assert tilted[2] < common[2] - 0.1
    np.testing.assert_allclose(common, [886.81 / 128, 886.81 / 128, 3.5, 2.5], rtol=1e-6)
    with pytest.raises(Dav2Error, match=r"none\.csv: no such table of cameras"):
        hypersim.source(tmp_path, split="all", cameras=tmp_path / "none.csv")


def test_damaged_tables_are_named(tmp_path):
    write(tmp_path, np.ones((6, 8)))
    table = tmp_path / "metadata_camera_parameters.csv"
    write_cameras(table, {"ai_001_001": STRAIGHT, "ai_044_004": TILTED})
    whole = table.read_bytes()
    for data, reason in {
        whole[:-40]: "damaged",
        whole.replace(b"0.5773", b"x"): "damaged",
        whole[:99]: "has no column",
        whole.replace(b"0.5773", b"\xff"): "is no table",
    }.items():
        table.write_bytes(data)
        with pytest.raises(Dav2Error, match=rf"metadata_camera_parameters\.csv: {reason}"):
            hypersim.source(tmp_path, split="all")


def test_what_is_no_map_of_distances_is_named(tmp_path):
    write(tmp_path, np.ones((6, 8)))
    dataset_files.hdf5(tmp_path / DEPTH.format("001_001"), np.ones((6, 8, 3)))
    with pytest.raises(Dav2Error, match=r"depth_meters\.hdf5: holds \[6, 8, 3\], not distances"):
        hypersim.source(tmp_path, split="all")[0]
