"""DIODE."""

import pickle

import numpy as np
import pytest
from dataset_files_more import DEPTH, picture, write_image, write_npy

from dav2_jax.data.readers import diode
from dav2_jax.errors import Dav2Error

NAMES = [
    "val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010",
    "val/indoors/scene_00019/scan_00183/00019_00183_indoors_010_000",
    "val/outdoor/scene_00022/scan_00193/00022_00193_outdoor_000_020",
    "train/outdoor/scene_00001/scan_00001/00001_00001_outdoor_000_000",
]
MASK = np.float32(np.arange(DEPTH.size).reshape(DEPTH.shape) % 5 != 0)


def frame(root, name, image=None, depth=DEPTH, mask=MASK):
    write_image(root / f"{name}.png", picture() if image is None else image)
    write_npy(root / f"{name}_depth.npy", depth[..., None])
    write_npy(root / f"{name}_depth_mask.npy", mask)


@pytest.fixture
def root(tmp_path):
    for name in reversed(NAMES):
        frame(tmp_path, name)
    return tmp_path


def test_splits_and_domains(root):
    def ids(**options):
        return [one["id"] for one in diode.source(root, **options)]

    assert ids() == NAMES[:3]
    assert ids(domain="indoors") == NAMES[:2]
    assert ids(domain="outdoor") == NAMES[2:3]
    assert ids(split="train") == NAMES[3:]
    assert ids(split="all") == NAMES
    with pytest.raises(Dav2Error, match=r"nothing to read: looked for train/indoors/scene_\*/scan_\*/\*\.png with"):
        diode.source(root, split="train", domain="indoors")


def test_the_mask_decides_and_zero_is_never_valid(root):
    depth = DEPTH.astype(">f4")
    depth[0, 1], depth[0, 2], depth[0, 3] = 0, np.nan, -1
    mask = MASK.copy()
    mask[0, 4] = 0.5  # anything that is not 0
    frame(root, NAMES[0], depth=depth, mask=mask)
    one = pickle.loads(pickle.dumps(diode.source(root)))[0]
    valid = mask > 0
    valid[0, 1:4] = False
    np.testing.assert_array_equal(one["valid"], valid)
    np.testing.assert_array_equal(one["depth"], np.where(valid, DEPTH, 0))
    assert one["depth"].dtype == np.float32
    assert "intrinsics" not in one  # they are those of 1024 x 768


def test_intrinsics_at_the_size_of_the_dataset(root):
    deep = np.ones((768, 1024), np.float32)
    frame(root, NAMES[0], np.zeros((768, 1024, 3), np.uint8), deep, deep)
    np.testing.assert_array_equal(diode.source(root)[0]["intrinsics"], np.float32([886.81, 927.06, 511.5, 383.5]))


def test_half_items_are_left_out_and_broken_ones_named(root):
    source = diode.source(root)
    mask = root / f"{NAMES[0]}_depth_mask.npy"
    write_npy(mask, MASK.T.copy())
    with pytest.raises(Dav2Error, match=r"indoors_000_010_depth_mask\.npy: is \[8, 6\] and the depth \[6, 8\]"):
        source[0]
    mask.write_bytes(mask.read_bytes()[:-9])
    with pytest.raises(Dav2Error, match=r"indoors_000_010_depth_mask\.npy: damaged or unreadable"):
        source[0]
    mask.unlink()
    with pytest.raises(Dav2Error, match=r"indoors_000_010_depth_mask\.npy: No such file"):
        source[0]
    path = root / f"{NAMES[1]}_depth.npy"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Dav2Error, match=r"indoors_010_000_depth\.npy: damaged or unreadable"):
        source[1]
    frame(root, NAMES[2], picture(width=9))
    with pytest.raises(Dav2Error, match=r"outdoor_000_020: the image is 9 x 6 and its depth 8 x 6"):
        source[2]
    source = diode.source(root)
    assert len(source) == 2
    assert source.about == (f"1 images without depth or mask left out, the first is {NAMES[0]}",)
