"""ScanNet, as exported and as scannet_frames_25k."""

import pickle

import numpy as np
import pytest
from dataset_files_more import HEIGHT, WIDTH, picture, write_bytes, write_image, write_png16
from PIL import Image

from dav2_jax.data.readers import scannet
from dav2_jax.errors import Dav2Error

STEPS = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1371  # 0 is unknown, the rest up to 64.4 m
BIG = picture(1, 40, 53)  # of slightly another shape, as 1296 x 968 is
MATRIX = b"%f 0.0 %f 0.0\n0.0 %f %f 0.0\n0.0 0.0 1.0 0.0\n0.0 0.0 0.0 1.0\n"


def frame(root, scene, name, image=BIG, steps=STEPS):
    write_image(root / scene / "color" / f"{name}.png", image)  # .jpg in the dataset; exact here
    write_png16(root / scene / "depth" / f"{name}.png", steps)


@pytest.fixture
def root(tmp_path):
    frame(tmp_path, "scans/scene0001_00", "10")
    frame(tmp_path, "scans/scene0001_00", "2")
    write_bytes(tmp_path / "scans/scene0001_00/intrinsic/intrinsic_depth.txt", MATRIX % (577.5, 319.5, 578.5, 239.5))
    write_bytes(
        tmp_path / "scans/scene0001_00/intrinsic/intrinsic_color.txt", MATRIX % (1170.5, 647.75, 1171.5, 483.75)
    )
    frame(tmp_path, "frames_25k/scene0000_00", "000100")
    write_image(tmp_path / "frames_25k/scene0000_00/label/000100.png", picture())
    write_bytes(tmp_path / "frames_25k/scene0000_00/intrinsics_depth.txt", MATRIX % (570, 320, 571, 240))
    return tmp_path


def test_the_image_comes_to_the_size_of_the_depth(root):
    source = pickle.loads(pickle.dumps(scannet.source(root)))
    assert [one["id"] for one in source] == [
        "frames_25k/scene0000_00/color/000100",
        "scans/scene0001_00/color/10",
        "scans/scene0001_00/color/2",
    ]
    one = source[1]
    np.testing.assert_array_equal(one["depth"], STEPS / np.float32(1000))
    np.testing.assert_array_equal(one["valid"], STEPS > 0)
    np.testing.assert_array_equal(one["image"], Image.fromarray(BIG).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(one["intrinsics"], np.float32([577.5, 578.5, 319.5, 239.5]))
    np.testing.assert_array_equal(source[0]["intrinsics"], np.float32([570, 571, 320, 240]))


def test_or_the_depth_to_that_of_the_image(root):
    one = scannet.source(root / "scans/scene0001_00", size="color")[0]
    assert one["id"] == "color/10"
    np.testing.assert_array_equal(one["image"], BIG)
    rows, columns = (np.arange(40) + 0.5) * 6 // 40, (np.arange(53) + 0.5) * 8 // 53
    expected = STEPS[rows.astype(int)][:, columns.astype(int)] / np.float32(1000)
    np.testing.assert_array_equal(one["depth"], expected)
    np.testing.assert_array_equal(one["intrinsics"], np.float32([1170.5, 1171.5, 647.75, 483.75]))
    assert "intrinsics" not in scannet.source(root / "frames_25k", size="color")[0]


def test_half_pairs_and_broken_files(root):
    scene = root / "scans/scene0001_00"
    source = scannet.source(scene)
    frame(scene, ".", "10", picture(0, 12, 12))
    with pytest.raises(
        Dav2Error, match=r"^scannet: color/10: the image is 12 x 12 and its depth 8 x 6: they differ in sh"
    ):
        source[0]
    path = scene / "depth/2.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    with pytest.raises(Dav2Error, match=r"depth/2\.png: damaged or unreadable"):
        source[1]
    write_image(path, STEPS.astype(np.uint8))
    with pytest.raises(Dav2Error, match=r"depth/2\.png: has 8 bits"):
        source[1]
    path.write_bytes(whole)
    write_bytes(scene / "intrinsic/intrinsic_depth.txt", b"1 2 3")
    with pytest.raises(Dav2Error, match=r"intrinsic_depth\.txt: is no matrix of 4 x 4 numbers"):
        source[1]
    (scene / "color/2.png").write_bytes(b"\x89PNG")
    with pytest.raises(Dav2Error, match=r"color/2\.png: not an image"):
        source[1]
    path.unlink()
    source = scannet.source(scene)
    assert len(source) == 1
    assert source.about == ("1 images without depth left out, the first is color/2.png",)
    with pytest.raises(Dav2Error, match=r"nothing to read: looked for <scene>/color/\*\.jpg"):
        scannet.source(scene / "intrinsic")
