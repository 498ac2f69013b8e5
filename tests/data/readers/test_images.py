"""Photos without depth: folders, .tar shards, lists."""

import pickle

import numpy as np
import pytest
from dataset_files_more import picture, png, write_image, write_tar

from dav2_jax.data.readers import images
from dav2_jax.errors import Dav2Error
from dav2_jax.inference.formats import FORMATS


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(["b/2.png", "b/10.PNG", "b/c/1.bmp", "a.png", "b/a.png.color.png", ".h/1.png"]):
        write_image(tmp_path / name, picture(seed))
    (tmp_path / "b/notes.txt").touch()
    write_tar(
        tmp_path / "shards/000.tar",
        {
            "0002.png": png(picture(12)),
            "0002.txt": b"a caption",
            "./x/0001.png": png(picture(11)),
            "../out.png": png(picture(13)),
            ".hidden.png": b"",
        },
    )
    return tmp_path


def test_a_tree_with_shards_in_it(root):
    source = pickle.loads(pickle.dumps(images.source(root)))
    assert [one["id"] for one in source] == [
        "a",
        "b/10",
        "b/2",
        "b/c/1",
        "shards/000/0002",
        "shards/000/x/0001",
        "shards/000/out",  # a name, which leads nowhere
    ]
    assert source.unit == "none"
    for one, seed in zip(source, [3, 1, 0, 2, 12, 11, 13], strict=True):
        assert set(one) == {"id", "image"}
        np.testing.assert_array_equal(one["image"], picture(seed))
    assert not (root.parent / "out.png").exists()


def test_one_shard_and_a_list(root):
    assert [one["id"] for one in images.source(root / "shards/000.tar")] == ["000/0002", "000/x/0001", "000/out"]
    (root / "some.txt").write_text(
        f"# chosen\n\nb/2.png\ngone.png\n{root / 'a.png'}\n b/2.png \n", encoding="utf-8-sig"
    )
    source = images.source(root / "some.txt")
    assert [one["id"] for one in source] == ["b/2", str(root / "a").lstrip("/")]
    assert source.about == ("1 listed files that are not there left out, the first is gone.png",)
    np.testing.assert_array_equal(source[1]["image"], picture(3))


def test_ids_stay_unique(tmp_path):
    for number, name in enumerate(["x.png", "x.bmp", "y.png"]):
        write_image(tmp_path / name, picture(number))
    write_tar(tmp_path / "x.tar", {"1.png": png(picture(3)), "./1.png": png(picture(4))})
    source = images.source(tmp_path)
    assert [one["id"] for one in source] == ["x.bmp", "x.png", "x/1.png", "x/1.png#2", "y"]
    np.testing.assert_array_equal(source[3]["image"], picture(4))


def test_what_is_broken_is_named(root):
    data = png(picture())
    write_tar(root / "shards/001.tar", {"good.png": data, "half.png": data[:50], "none.png": b""})
    source = images.source(root)
    with pytest.raises(Dav2Error, match=r"^images: .*001\.tar: half\.png: damaged or unreadable"):
        source[8]
    with pytest.raises(Dav2Error, match=r"001\.tar: none\.png: not an image"):
        source[9]
    (root / "b/2.png").write_bytes(b"GIF")
    with pytest.raises(Dav2Error, match=r"b/2\.png: not an image"):
        source[2]
    (root / "shards/001.tar").unlink()
    with pytest.raises(Dav2Error, match=r"001\.tar: No such file"):
        source[7]
    (root / "shards/002.tar").write_bytes(b"no tar" * 100)
    with pytest.raises(Dav2Error, match=r"002\.tar: is no \.tar file"):
        images.source(root)
    (root / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Dav2Error, match=r"list\.txt: is no text in UTF-8"):
        images.source(root / "list.txt")
    (root / "empty").mkdir()
    with pytest.raises(Dav2Error, match=r"nothing to read: looked for photos that Pillow can open"):
        images.source(root / "empty")


def test_the_pictures_of_predict_are_known():
    assert sorted(images.PICTURES) == sorted(one.suffix for one in FORMATS.values() if one.suffix.endswith(".png"))
