"""DA-2K."""

import json
import pickle

import numpy as np
import pytest
from dataset_files_more import picture, write_image

from dav2_jax.data.readers import da2k
from dav2_jax.errors import Dav2Error


def pair(first, second, closer="point1"):
    return {"point1": list(first), "point2": list(second), "closer_point": closer}


@pytest.fixture
def root(tmp_path):
    notes = {
        "images/outdoor/b.png": [pair((0, 7), (5, 1))],
        "images/indoor/a.png": [pair((1, 2), (3, 4)), pair((5, 6), (0, 1), "point2")],
        "images/indoor/gone.png": [pair((1, 2), (3, 4))],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(notes))
    write_image(tmp_path / "images/indoor/a.png", picture(1))
    write_image(tmp_path / "images/outdoor/b.png", picture(2))
    return tmp_path


def test_pairs_are_row_and_column_with_the_closer_one_first(root):
    source = pickle.loads(pickle.dumps(da2k.source(root)))
    assert [one["id"] for one in source] == ["images/indoor/a", "images/outdoor/b"]
    assert [one["scene"] for one in source] == ["indoor", "outdoor"]
    assert source.unit == "none"
    assert source.about == ("1 images that are not there left out, the first is images/indoor/gone.png",)
    assert source[0]["pairs"].dtype == np.int32
    np.testing.assert_array_equal(source[0]["pairs"], [[[1, 2], [3, 4]], [[0, 1], [5, 6]]])
    np.testing.assert_array_equal(source[1]["pairs"], [[[0, 7], [5, 1]]])
    np.testing.assert_array_equal(source[0]["image"], picture(1))
    assert "depth" not in source[0]


def test_one_scene(root):
    assert [one["id"] for one in da2k.source(root, scene="outdoor")] == ["images/outdoor/b"]
    with pytest.raises(Dav2Error, match=r"the images that annotations\.json names of aerial"):
        da2k.source(root, scene="aerial")
    assert len(da2k.SCENES) == 8


def test_paths_without_the_folder_images(root):
    (root / "annotations.json").write_text(json.dumps({"indoor/a.png": [pair((1, 2), (3, 4))]}))
    one = da2k.source(root)[0]
    assert (one["id"], one["scene"]) == ("images/indoor/a", "indoor")


def test_broken_images_are_named(root):
    source = da2k.source(root)
    write_image(root / "images/outdoor/b.png", picture(2, width=7))
    with pytest.raises(Dav2Error, match=r"outdoor/b\.png: is 7 x 6, and a pair of points lies outside"):
        source[1]
    (root / "images/outdoor/b.png").write_bytes(b"\xff\xd8")
    with pytest.raises(Dav2Error, match=r"outdoor/b\.png: not an image"):
        source[1]
    (root / "images/outdoor/b.png").unlink()
    with pytest.raises(Dav2Error, match=r"outdoor/b\.png: no such file"):
        source[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is no JSON file"),
        ("[" * 100_000, r"is no JSON file \(RecursionError\)"),
        ("[1]", "is no object of image paths"),
        ("\xff", "is no JSON file"),
        ('{"a.jpg": 1}', r"'a\.jpg': a list of pairs under a path below"),
        ('{"../a.jpg": []}', r"'\.\./a\.jpg': a list of pairs under a path below"),
        ('{"/etc/a.jpg": []}', "a list of pairs under a path below"),
        ('{"a.jpg": [{"point1": [1, 2], "point2": [3, 4]}]}', r"'a\.jpg': is no pair"),
        ('{"a.jpg": [{"point1": [1, 2], "point2": [3], "closer_point": "point1"}]}', "is no pair"),
        ('{"a.jpg": [{"point1": [1, 2], "point2": [3, NaN], "closer_point": "point1"}]}', "is no pair"),
        ('{"a.jpg": [{"point1": [1, -2], "point2": [3, 4], "closer_point": "point1"}]}', "is no pair"),
        ('{"a.jpg": [{"point1": [1, 1e300], "point2": [3, 4], "closer_point": "point1"}]}', "is no pair"),
        ('{"a.jpg": [{"point1": [1, 2], "point2": [3, 4], "closer_point": ["point1"]}]}', "is no pair"),
        ('{"a.jpg": ["' + "long" * 1000 + '"]}', "is no pair: long"),
    ],
)
def test_annotations_that_make_no_sense(root, text, why):
    (root / "annotations.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(Dav2Error, match=rf"annotations\.json: .*{why}") as error:
        da2k.source(root)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_no_annotations(tmp_path):
    with pytest.raises(Dav2Error, match=r"annotations\.json: no such file: give the folder that holds it"):
        da2k.source(tmp_path)
