"""MPI Sintel."""

import pickle
import struct

import numpy as np
import pytest
from dataset_files_more import DEPTH, picture, write_bytes, write_dpt, write_image

from dav2_jax.data.readers import sintel
from dav2_jax.errors import Dav2Error

CAMERA = [1120.0, 0, 511.5, 0, 1130.0, 217.5, 0, 0, 1]


def frame(training, name, seed=0, depth=DEPTH):
    for render in ("final", "clean"):
        write_image(training / render / f"{name}.png", picture(seed + (render == "clean")))
    write_dpt(training / "depth" / f"{name}.dpt", depth)


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(["market_2/frame_0001", "alley_1/frame_0002", "alley_1/frame_0001"]):
        frame(tmp_path / "training", name, 10 * seed)
    write_bytes(
        tmp_path / "training/camdata_left/alley_1/frame_0001.cam",
        struct.pack("<f", 202021.25),
        np.array(CAMERA + [1.0] * 12, "<f8"),
    )
    return tmp_path


def test_frames_in_order_with_exact_depth_and_camera(root):
    source = pickle.loads(pickle.dumps(sintel.source(root)))
    assert [one["id"] for one in source] == [
        "final/alley_1/frame_0001",
        "final/alley_1/frame_0002",
        "final/market_2/frame_0001",
    ]
    assert source.unit == "metres"
    assert source.about == ()
    np.testing.assert_array_equal(source[0]["image"], picture(20))
    np.testing.assert_array_equal(source[0]["depth"], DEPTH)
    assert source[0]["valid"].all()
    np.testing.assert_array_equal(source[0]["intrinsics"], np.float32([1120, 1130, 511.5, 217.5]))
    assert "intrinsics" not in source[1]
    clean = sintel.source(root / "training", render="clean")
    assert clean[0]["id"] == "clean/alley_1/frame_0001"
    np.testing.assert_array_equal(clean[0]["image"], picture(21))


def test_far_is_kept_and_huge_is_sky(root):
    depth = DEPTH.copy()
    depth[0, :5] = 72, 5000, 9e5, 1e6, 1e10
    depth[1, :3] = np.nan, 0, np.inf
    frame(root / "training", "alley_1/frame_0001", depth=depth)
    one = sintel.source(root)[0]
    np.testing.assert_array_equal(one["depth"][0, :5], np.float32([72, 5000, 9e5, np.inf, np.inf]))
    np.testing.assert_array_equal(one["depth"][1, :3], [0, 0, np.inf])
    np.testing.assert_array_equal(one["valid"][1, :4], [False, False, True, True])


def test_half_pairs_are_left_out_and_named(root):
    write_image(root / "training/final/alley_1/frame_0003.png", picture())
    write_dpt(root / "training/depth/alley_1/frame_0004.dpt", DEPTH)
    source = sintel.source(root)
    assert len(source) == 3
    assert source.about == ("1 images without depth left out, the first is final/alley_1/frame_0003.png",)


def test_what_is_broken_is_named(root, tmp_path):
    training = root / "training"
    write_image(training / "final/alley_1/frame_0002.png", picture(height=7))
    with pytest.raises(Dav2Error, match=r"^sintel: final/alley_1/frame_0002: the image is 8 x 7 and its depth 8 x 6"):
        sintel.source(root)[1]
    path = training / "depth/market_2/frame_0001.dpt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Dav2Error, match=r"^sintel: .*market_2/frame_0001\.dpt: 191 bytes of values where 8 x 6"):
        sintel.source(root)[2]
    path = training / "camdata_left/alley_1/frame_0001.cam"
    for data in (path.read_bytes()[:-1], b"HEIP" + path.read_bytes()[4:]):
        path.write_bytes(data)
        with pytest.raises(Dav2Error, match=r"alley_1/frame_0001\.cam: is no Sintel camera file"):
            sintel.source(root)[0]
    source = sintel.source(root)
    (training / "final/alley_1/frame_0001.png").write_bytes(b"")
    with pytest.raises(Dav2Error, match=r"alley_1/frame_0001\.png: not an image"):
        source[0]
    (training / "final/alley_1/frame_0001.png").unlink()
    with pytest.raises(Dav2Error, match=r"alley_1/frame_0001\.png: no such file"):
        source[0]


def test_nothing_says_what_was_looked_for(tmp_path):
    with pytest.raises(Dav2Error, match=r"final: no such folder"):
        sintel.source(tmp_path)
    (tmp_path / "depth").mkdir()
    write_image(tmp_path / "final/a/frame_0001.png", picture())
    with pytest.raises(Dav2Error, match=r"looked for final/\*/frame_\*\.png with .*; 1 images without depth left out"):
        sintel.source(tmp_path)
