"""What all readers of pairs of files promise, on a small true dataset of each."""

import concurrent.futures
import pickle
import random
import shutil
import sys

import dataset_files
import numpy as np
import pytest
from PIL import Image

from dav2_jax.data import layout
from dav2_jax.data.readers import blendedmvs, hypersim, irs, kitti, nyu, tartanair, vkitti2
from dav2_jax.errors import Dav2Error

OPTIONS = {hypersim: {"split": "all"}, kitti: {"split": "all"}, nyu: {"split": "test"}}
MODULES = [blendedmvs, hypersim, irs, kitti, nyu, tartanair, vkitti2]


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def dataset(request, tmp_path):
    """(the frames on disk, a function that opens the dataset)"""
    name = request.param.__name__.rsplit(".", 1)[-1]
    frames = getattr(dataset_files, name)(tmp_path)

    def source(root=tmp_path, **options):
        return request.param.source(root, **OPTIONS.get(request.param, {}), **options)

    return frames, source


def test_values_order_and_names(dataset, tmp_path, monkeypatch):
    frames, source = dataset
    opened = source()
    assert len(opened) == 4
    for example, (image, _) in zip(opened, frames, strict=True):
        assert image.removeprefix("raw_data/").rsplit(".", 1)[0] == example["id"]
        assert example["image"].shape == (dataset_files.HEIGHT, dataset_files.WIDTH, 3)
        np.testing.assert_allclose(example["image"].reshape(-1, 3), [[250, 130, 10]] * 48, atol=4)  # JPEG
        kind = "disparity" if opened.unit == "disparity" else "depth"
        assert example[kind].dtype == np.float32
        assert example["valid"].all()
        if "ai_" not in image:
            np.testing.assert_array_equal(example[kind], dataset_files.DEPTH)
    assert not any("left out" in line for line in opened.about)

    def shuffled(pattern, root_dir, iglob=layout.glob.iglob):
        found = list(iglob(pattern, root_dir=root_dir))
        random.shuffle(found)
        return iter(found)

    monkeypatch.setattr(layout.glob, "iglob", shuffled)
    assert list(source().items) == list(opened.items)


def test_a_source_goes_to_other_processes(dataset):
    _, source = dataset
    opened = source()
    copy = pickle.loads(pickle.dumps(opened))
    assert (copy.name, copy.items, copy.unit, copy.about) == (opened.name, opened.items, opened.unit, opened.about)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        read = list(pool.map(copy.__getitem__, [3, 0, 3, 0]))
    for one, index in zip(read, [3, 0, 3, 0], strict=True):
        for name, value in opened[index].items():
            np.testing.assert_array_equal(one[name], value)


def test_damaged_and_missing_files_are_named(dataset, tmp_path):
    frames, source = dataset
    opened = source()
    image, depth = (tmp_path / path for path in frames[2])
    whole = depth.read_bytes()
    for data in (b"", b"no depth at all " * 20, whole[: len(whole) // 2]):
        depth.write_bytes(data)
        with pytest.raises(Dav2Error, match=f"{opened.name}: .*{frames[2][1]}") as caught:
            opened[2]
        assert "\n" not in str(caught.value)
    depth.unlink()
    with pytest.raises(Dav2Error, match=frames[2][1]):
        opened[2]
    depth.write_bytes(whole)
    picture = image.read_bytes()
    image.write_bytes(picture[: len(picture) // 2])
    with pytest.raises(Dav2Error, match=f"{opened.name}: .*{frames[2][0]}: (damaged|not an image)"):
        opened[2]
    image.unlink()
    with pytest.raises(Dav2Error, match=f"{frames[2][0]}: no such file"):
        opened[2]
    dataset_files.photo(image, 5, 8)
    with pytest.raises(Dav2Error, match=r"the image is 8 x 5 and its (depth|disparity) 8 x 6") as caught:
        opened[2]
    assert image.stem.rsplit(".", 1)[0] in str(caught.value)
    assert len(opened[3]["image"]) == dataset_files.HEIGHT


@pytest.mark.parametrize("dataset", [kitti, nyu, vkitti2], indirect=True)
def test_a_picture_of_depth_is_no_depth(dataset, tmp_path):
    frames, source = dataset
    Image.new("L", (8, 6), 77).save(tmp_path / frames[1][1])
    with pytest.raises(Dav2Error, match=f"{frames[1][1]}: has 8 bits where depth needs 16"):
        source()[1]


def test_half_pairs_are_left_out_and_said(dataset, tmp_path):
    frames, source = dataset
    (tmp_path / frames[1][0]).unlink()
    (tmp_path / frames[3][1]).unlink()
    opened = source()
    assert [example["id"] for example in opened] == [
        frames[index][0].removeprefix("raw_data/").rsplit(".", 1)[0] for index in (0, 2)
    ]
    about = "\n".join(opened.about)
    assert f"1 depth files without an image left out, the first is {frames[1][1]}" in about
    if opened.name != "kitti":  # there it is nothing special
        assert f"1 images without depth left out, the first is {frames[3][0]}" in about
    for index in (0, 2):
        (tmp_path / frames[index][0]).unlink()
    with pytest.raises(Dav2Error, match=r"no .* below it|not one whole example: . .* left out"):
        source()


def test_a_wrong_folder_is_said_and_the_right_one_if_it_is_near(dataset, tmp_path):
    frames, source = dataset
    with pytest.raises(Dav2Error, match="nowhere: no such folder"):
        source(tmp_path / "nowhere")
    (tmp_path / "empty/some/more/and/more/and").mkdir(parents=True)
    with pytest.raises(Dav2Error, match=r"empty/some/more/and/more/and: no .* below it: is the dataset unpacked"):
        source(tmp_path / "empty/some/more/and/more/and")
    whole = tmp_path / "other" / "set"
    for path in {path.split("/", 1)[0] for pair in frames for path in pair}:
        shutil.copytree(tmp_path / path, whole / path)
        shutil.rmtree(tmp_path / path)
    with pytest.raises(Dav2Error, match=rf"other: no .* below it, but below {whole}: give that folder"):
        source(tmp_path / "other")
    inside = whole / frames[0][0].rsplit("/", 1)[0]
    with pytest.raises(
        Dav2Error, match=rf"no .* below it, but below {whole}(/official_splits|/Home)?: give that folder"
    ):
        source(inside)
    assert len(source(whole)) == 4


def test_readers_do_not_import_jax():
    import subprocess

    names = ", ".join(module.__name__.rsplit(".", 1)[-1] for module in MODULES)
    heavy = {"jax", "h5py", "OpenEXR", "scipy"}
    code = f"import sys; from dav2_jax.data.readers import {names}; assert not {heavy} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)
