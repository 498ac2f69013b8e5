"""Listing the files of a dataset."""

import pytest

from dav2_jax.data import listing
from dav2_jax.errors import Dav2Error


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_files_come_in_one_order_and_hidden_ones_do_not_come(tmp_path):
    touch(tmp_path, "b/2.png", "b/10.PNG", "b-c/1.png", "a.png", "b/x/1.png", ".h/1.png", "b/.1.png", "b/1.jpg")
    found = listing.files(tmp_path, (".png",))
    assert found == ["a.png", "b/10.PNG", "b/2.png", "b/x/1.png", "b-c/1.png"]
    assert listing.files(tmp_path, lambda name: name.startswith("1")) == [
        "b/1.jpg",
        "b/10.PNG",
        "b/x/1.png",
        "b-c/1.png",
    ]
    assert listing.folders(tmp_path) == ["b", "b-c"]
    assert listing.folders(tmp_path / "none") == []


def test_links_are_followed_once(tmp_path):
    touch(tmp_path / "elsewhere", "1.png")
    touch(tmp_path / "root", "a/2.png")
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/a/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/self.png").symlink_to("self.png")
    (tmp_path / "root/link.png").symlink_to(tmp_path / "elsewhere/1.png")
    assert listing.files(tmp_path / "root", (".png",)) == ["a/2.png", "link/1.png", "link.png", "self.png"]


def test_what_is_said(tmp_path):
    assert listing.stem("a.b/x.tar.gz") == "a.b/x.tar"
    assert listing.left_out("images", []) == ()
    lines = listing.left_out("images without depth", ["p/1.png"] * 2000)
    assert lines == ("2,000 images without depth left out, the first is p/1.png",)
    assert str(listing.nothing(tmp_path, "a/*.png", lines)) == (
        f"{tmp_path}: nothing to read: looked for a/*.png; {lines[0]}"
    )
    with pytest.raises(Dav2Error, match=r"none: no such folder: give the folder that holds the dataset$"):
        listing.files(tmp_path / "none", (".png",))
