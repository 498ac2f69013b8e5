"""ETH3D: depth without a header under the name of a JPEG, and the camera that bends it."""

import pickle

import numpy as np
import pytest
from dataset_files_more import DEPTH, picture, write_bytes, write_image
from PIL import Image

from dav2_jax.data.readers import eth3d
from dav2_jax.errors import Dav2Error

LENS = (112.0, 114.0, 62.0, 48.0, -0.02, 0.03, 4e-4, -3e-4, 0.01, -0.005, 2e-4, -1e-4)


def frame(root, scene, name, image=None, depth=DEPTH):
    write_image(root / scene / "images/dslr_images" / name, picture() if image is None else image)
    write_bytes(root / scene / "ground_truth_depth/dslr_images" / name, depth.astype("<f4"))


@pytest.fixture
def root(tmp_path):
    for scene, name in (("pipes", "DSC_0635.JPG"), ("courtyard", "DSC_0287.JPG"), ("courtyard", "DSC_0286.JPG")):
        frame(tmp_path, scene, name)
    return tmp_path


def test_infinity_is_unknown_and_the_size_is_that_of_the_image(root):
    depth = DEPTH.copy()
    depth[0, :4] = np.inf, 0, np.nan, -np.inf
    frame(root, "courtyard", "DSC_0286.JPG", depth=depth)
    frame(root, "courtyard", "DSC_0287.JPG", picture(0, 8, 6), DEPTH.reshape(8, 6))
    source = pickle.loads(pickle.dumps(eth3d.source(root)))
    names = ["courtyard/images/dslr_images/DSC_0286", "courtyard/images/dslr_images/DSC_0287"]
    assert [one["id"] for one in source] == [*names, "pipes/images/dslr_images/DSC_0635"]
    one = source[0]
    assert one["valid"][0, :5].tolist() == [False, False, False, False, True]
    np.testing.assert_array_equal(one["depth"], np.where(one["valid"], DEPTH, 0))
    assert "intrinsics" not in one
    np.testing.assert_array_equal(source[1]["depth"], DEPTH.reshape(8, 6))
    assert [one["id"] for one in eth3d.source(root / "pipes")] == ["images/dslr_images/DSC_0635"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_depth_turns_with_an_image_that_has_to_be_turned(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.repeat(np.rint(DEPTH * 6).astype(np.uint8)[..., None], 3, -1)  # gray, so that JPEG keeps it nearly
    frame(tmp_path, "a", "1.JPG")
    Image.fromarray(pixels).save(tmp_path / "a/images/dslr_images/1.JPG", quality=100, subsampling=0, exif=exif)
    one = eth3d.source(tmp_path)[0]
    assert abs(one["image"][..., 0] - one["depth"] * 6).max() < 4


def test_broken_files_and_half_pairs(root):
    path = root / "courtyard/ground_truth_depth/dslr_images/DSC_0286.JPG"
    source = eth3d.source(root)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(Dav2Error, match=r"^eth3d: .*depth/dslr_images/DSC_0286\.JPG: 188 bytes of values where 8 x 6"):
        source[0]
    write_image(root / "courtyard/images/dslr_images/DSC_0287.JPG", picture(width=9))
    with pytest.raises(Dav2Error, match=r"DSC_0287\.JPG: 192 bytes of values where 9 x 6 need 216"):
        source[1]
    (root / "pipes/images/dslr_images/DSC_0635.JPG").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(Dav2Error, match=r"images/dslr_images/DSC_0635\.JPG: not an image"):
        source[2]
    path.unlink()
    with pytest.raises(Dav2Error, match=r"DSC_0286\.JPG: No such file"):
        source[0]
    source = eth3d.source(root)
    assert len(source) == 2
    assert source.about == ("1 images without depth left out, the first is courtyard/images/dslr_images/DSC_0286.JPG",)
    with pytest.raises(Dav2Error, match=r"nothing to read: looked for <scene>/images/dslr_images_undistorted/\*\.JPG"):
        eth3d.source(root, images="undistorted")


def colmap(folder, camera, *names):
    write_bytes(folder / "cameras.txt", f"# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n# one\n7 {camera}\n".encode())
    lines = ["# IMAGE_ID, ...", "#   POINTS2D[] as (X, Y, POINT3D_ID)"]
    for number, name in enumerate(names):
        lines += [f"{number} 1 0 0 0 0 0 0 7 {name}", "" if number == 0 else "1.5 2.5 -1 3.5 4.5 12"]
    write_bytes(folder / "images.txt", "\n".join(lines).encode())


@pytest.fixture
def undistorted(tmp_path):
    """A plane whose depth is written as the lens sees it: the undistorted image must show it plane again."""
    scene = tmp_path / "office"
    rows, columns = np.indices((96, 124)) + 0.5
    stored = (10 + 0.05 * columns + 0.1 * rows).astype(np.float32)
    stored[0] = np.inf
    frame(tmp_path, "office", "1.JPG", picture(0, 96, 124), stored)
    frame(tmp_path, "office", "2.JPG", picture(0, 96, 124), stored)
    for name in ("1.JPG", "2.JPG"):
        write_image(scene / "images/dslr_images_undistorted" / name, picture(1, 100, 130))
    lens = "THIN_PRISM_FISHEYE 124 96 " + " ".join(map(str, LENS))
    colmap(scene / "dslr_calibration_jpg", lens, "dslr_images/1.JPG", "dslr_images/2.JPG")
    names = [f"dslr_images_undistorted/{number}.JPG" for number in (1, 2)]
    colmap(scene / "dslr_calibration_undistorted", "PINHOLE 130 100 100.0 101.0 66.0 49.0", *names)
    return tmp_path


def test_the_lens():
    """Against COLMAP's formula, written out for one direction, and at the middle."""
    x, y = eth3d.distort(np.array([0.3, 0.0]), np.array([-0.2, 0.0]), LENS)
    fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 = LENS
    r = (0.3**2 + 0.2**2) ** 0.5
    theta = np.arctan(r)
    a, b = 0.3 * theta / r, -0.2 * theta / r
    t2 = theta**2
    radial = k1 * t2 + k2 * t2**2 + k3 * t2**3 + k4 * t2**4
    np.testing.assert_allclose(x, [cx + fx * (a + a * radial + 2 * p1 * a * b + p2 * (t2 + 2 * a * a) + sx1 * t2), cx])
    np.testing.assert_allclose(y, [cy + fy * (b + b * radial + 2 * p2 * a * b + p1 * (t2 + 2 * b * b) + sy1 * t2), cy])


def test_undistorted_images_get_the_depth_of_what_they_show(undistorted, monkeypatch):
    monkeypatch.setattr(eth3d, "_ROWS", 32)
    source = pickle.loads(pickle.dumps(eth3d.source(undistorted, images="undistorted")))
    assert [one["id"] for one in source] == [f"office/images/dslr_images_undistorted/{number}" for number in (1, 2)]
    one = source[0]
    np.testing.assert_array_equal(one["intrinsics"], np.float32([100, 101, 65.5, 48.5]))
    v, u = np.indices((100, 130)) + 0.5
    x, y = eth3d.distort((u - 66) / 100, (v - 49) / 101, LENS)
    seen = (x >= 0) & (x < 124) & (y >= 1) & (y < 96)
    np.testing.assert_array_equal(one["valid"], seen)
    assert 5_000 < seen.sum() < seen.size
    wanted = 10 + 0.05 * (np.floor(x) + 0.5) + 0.1 * (np.floor(y) + 0.5)
    np.testing.assert_allclose(one["depth"][seen], wanted[seen], rtol=1e-6)


def test_cameras_that_are_not_there_or_make_no_sense(undistorted):
    scene = undistorted / "office"
    folder = scene / "dslr_calibration_undistorted"

    def refused(match, index=0):
        eth3d._cameras.cache_clear()
        with pytest.raises(Dav2Error, match=match):
            eth3d.source(undistorted, images="undistorted")[index]

    colmap(folder, "PINHOLE 130 100 100.0 101.0 66.0 49.0", "dslr_images_undistorted/1.JPG")
    refused(r"undistorted/images\.txt: has no dslr_images_undistorted/2\.JPG", 1)
    colmap(folder, "PINHOLE 131 100 100.0 101.0 66.0 49.0", "dslr_images_undistorted/1.JPG")
    refused(r"undistorted/1\.JPG: the image is 130 x 100 and its camera 131 x 100")
    colmap(folder, "OPENCV 130 100 1 2 3 4 5 6 7 8", "dslr_images_undistorted/1.JPG")
    refused(r"cameras\.txt: the camera of dslr_images_undistorted/1\.JPG is OPENCV, where PINHOLE is expected")
    colmap(folder, "PINHOLE 130 100 1.0", "dslr_images_undistorted/1.JPG")
    refused(r"cameras\.txt: is no text file of COLMAP")
    colmap(folder, "PINHOLE 130 100 100.0 101.0 66.0 49.0", "dslr_images_undistorted/1.JPG")
    write_bytes(folder / "images.txt", b"1 2 3\n")
    refused(r"images\.txt: is no text file of COLMAP")
    (folder / "cameras.txt").unlink()
    refused(r"dslr_calibration_undistorted/cameras\.txt: No such file")
