"""Lists of files that name images from another folder than the root."""

import pytest

from dav2_jax.data import layout
from dav2_jax.errors import Dav2Error

IMAGES = ["a/one/1.png", "a/two/1.png", "b/one/1.png", "b/three/2.png"]


def test_entries_match_from_their_end_if_that_leaves_no_doubt(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("/mnt/data/b/one/1.png x\ntwo/1.png\n\nthree/2.png y z\r\na/one/1.png\n")
    assert layout.chosen(IMAGES, path) == ([IMAGES[2], IMAGES[1], IMAGES[3], IMAGES[0]], ())
    path.write_text("one/1.png\nc/one/1.png\nd/2.png\na/one/1.png")  # one/1.png is in two folders, c and d in none
    found, about = layout.chosen(IMAGES, path)
    assert found == [IMAGES[0]]
    assert about == ("3 entries of list.txt without an image and depth on disk left out, the first is one/1.png",)
    assert layout.chosen(IMAGES, path, lambda row: "b/" + row[0])[0] == [IMAGES[2], IMAGES[0]]


def test_lists_that_cannot_be_read(tmp_path):
    with pytest.raises(Dav2Error, match=r"none\.txt: No such file or directory: give the path of a list of files"):
        layout.read_list(tmp_path / "none.txt")
    with pytest.raises(Dav2Error, match="Is a directory"):
        layout.read_list(tmp_path)
