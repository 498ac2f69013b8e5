"""NYU Depth V2: the labeled MATLAB file, raw and filled, and the PNG layouts."""

import dataset_files
import numpy as np
import pytest

from dav2_jax.data.readers import nyu
from dav2_jax.errors import Dav2Error


@pytest.fixture
def labeled(tmp_path):
    """(images, filled, raw) of five frames of 6 x 8 in the labeled file below tmp_path"""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 6, 8, 3), np.uint8)
    filled = rng.uniform(0.7, 9.9, (5, 6, 8)).astype(np.float32)
    raw = np.where(rng.random(filled.shape) < 0.3, np.float32(0), filled)
    dataset_files.nyu_labeled(tmp_path, images, filled, raw)
    return images, filled, raw


def test_labeled_file(labeled, tmp_path):
    images, filled, raw = labeled
    for depth, wanted in (("raw", raw), ("filled", filled)):
        source = nyu.source(tmp_path, split="all", depth=depth)
        assert [example["id"] for example in source] == [f"nyu_depth_v2_labeled/{n:04d}" for n in range(1, 6)]
        for example, image, values in zip(source, images, wanted, strict=True):
            np.testing.assert_array_equal(example["image"], image)
            np.testing.assert_array_equal(example["depth"], values)
            np.testing.assert_array_equal(example["valid"], values > 0)
            assert example["image"].flags.c_contiguous
            np.testing.assert_array_equal(example["intrinsics"], np.float32([518.858, 519.470, 325.582, 253.736]))
    assert list(nyu.source(tmp_path, split="train").items) == [1, 3]
    assert list(nyu.source(tmp_path / "nyu_depth_v2_labeled.mat", split="test").items) == [0, 2, 4]
    np.testing.assert_array_equal(nyu.source(tmp_path, split="train")[1]["image"], images[3])


def test_labeled_file_broken_or_incomplete(labeled, tmp_path):
    mat, splits = tmp_path / "nyu_depth_v2_labeled.mat", tmp_path / "splits.mat"
    source = nyu.source(tmp_path)
    whole = mat.read_bytes()
    for data in (b"", b"MATLAB 5.0 MAT-file" * 50, whole[: len(whole) // 2]):
        mat.write_bytes(data)
        with pytest.raises(Dav2Error, match=r"nyu: .*nyu_depth_v2_labeled\.mat: damaged"):
            source[0]
        with pytest.raises(Dav2Error, match=r"nyu_depth_v2_labeled\.mat: damaged"):
            nyu.source(tmp_path)
    mat.write_bytes(whole)
    numbers = splits.read_bytes()
    splits.write_bytes(numbers[: len(numbers) // 2])
    with pytest.raises(Dav2Error, match=r"splits\.mat: damaged, or no splits"):
        nyu.source(tmp_path)
    splits.unlink()
    with pytest.raises(Dav2Error, match=r"split 'test' needs splits\.mat there .*, or take 'all'"):
        nyu.source(tmp_path, split="test")
    assert len(nyu.source(tmp_path, split="all")) == 5
    from scipy.io import savemat

    savemat(splits, {"trainNdxs": [[1], [6]]})
    with pytest.raises(Dav2Error, match=r"splits\.mat: counts frames up to 6, but nyu_depth_v2_labeled\.mat has 5"):
        nyu.source(tmp_path)
    import h5py

    with h5py.File(mat, "r+") as file:
        del file["rawDepths"]
    with pytest.raises(Dav2Error, match=r'labeled\.mat: has no dataset "rawDepths": it has depths, images'):
        nyu.source(tmp_path, split="all")[0]
    with h5py.File(mat, "r+") as file:
        del file["images"]
        file["images"] = np.zeros((5, 8, 6))
    with pytest.raises(Dav2Error, match=r"labeled\.mat: frame 2 is float64 \[8, 6\]"):
        nyu.source(tmp_path, split="all", depth="filled")[1]


def test_bts_layout(tmp_path):
    frames = dataset_files.nyu(tmp_path)
    for number in (7, 8):
        dataset_files.photo(tmp_path / f"sync/kitchen_0028b/rgb_{number:05d}.jpg")
        dataset_files.png16(tmp_path / f"sync/kitchen_0028b/sync_depth_{number:05d}.png", np.full((6, 8), 10 * number))
    dataset_files.photo(tmp_path / "official_splits/train/office/rgb_00000.jpg")
    dataset_files.png16(tmp_path / "official_splits/train/office/sync_depth_00000.png", np.zeros((6, 8)))
    train = nyu.source(tmp_path)
    assert [example["id"] for example in train] == ["sync/kitchen_0028b/rgb_00007", "sync/kitchen_0028b/rgb_00008"]
    np.testing.assert_array_equal(train[1]["depth"], np.float32(0.08))
    test = nyu.source(tmp_path, split="test")
    assert list(test.items) == [image for image, _ in frames]
    assert len(nyu.source(tmp_path, split="all")) == 7
    assert not nyu.source(tmp_path, split="all")[4]["valid"].any()
    with pytest.raises(Dav2Error, match=r"filled_\*\.png|rgb_\*\.png"):
        nyu.source(tmp_path, split="test", depth="filled")
    (tmp_path / "nyudepthv2_test_files_with_gt.txt").write_text(
        "kitchen/rgb_00088.jpg kitchen/sync_depth_00088.png 518.8579\n"
        "/office/rgb_00003.jpg /office/sync_depth_00003.png 518.8579\n"
    )
    listed = nyu.source(tmp_path / "official_splits", split=tmp_path / "nyudepthv2_test_files_with_gt.txt")
    assert list(listed.items) == ["test/kitchen/rgb_00088.jpg", "test/office/rgb_00003.jpg"]
    listed = nyu.source(tmp_path, split=tmp_path / "nyudepthv2_test_files_with_gt.txt")
    assert list(listed.items) == [frames[2][0], frames[3][0]]
    listed = nyu.source(tmp_path / "official_splits/test", split=tmp_path / "nyudepthv2_test_files_with_gt.txt")
    assert list(listed.items) == ["kitchen/rgb_00088.jpg", "office/rgb_00003.jpg"]


def test_marigolds_layout_raw_and_filled(tmp_path):
    folder = tmp_path / "test/bathroom"
    dataset_files.photo(folder / "rgb_0046.png")
    dataset_files.png16(folder / "depth_0046.png", np.array([[0, 1, 999, 1000, 10000, 65535, 5, 6]] * 6))
    dataset_files.png16(folder / "filled_0046.png", np.full((6, 8), 2500))
    raw, filled = (nyu.source(tmp_path, split="test", depth=depth) for depth in ("raw", "filled"))
    assert list(raw.items) == list(filled.items) == ["test/bathroom/rgb_0046.png"]
    metres = np.array([0, 1, 999, 1000, 10000, 65535, 5, 6], np.float32) / np.float32(1000)
    np.testing.assert_array_equal(raw[0]["depth"], [metres] * 6)
    np.testing.assert_array_equal(raw[0]["valid"][:, 0], False)
    np.testing.assert_array_equal(filled[0]["depth"], 2.5)


def test_eigens_crop_hides_the_frame(tmp_path):
    dataset_files.photo(tmp_path / "test/den/rgb_0001.png", 480, 640)
    dataset_files.png16(tmp_path / "test/den/depth_0001.png", np.full((480, 640), 1000))
    example = nyu.source(tmp_path, split="test", eigen_crop=True)[0]
    rows, columns = np.nonzero(example["valid"])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (45, 470, 41, 600)
    assert example["valid"].sum() == 426 * 560
    assert example["image"].shape == (480, 640, 3)
    assert nyu.source(tmp_path, split="test")[0]["valid"].all()
