"""SA-1B."""

import json
import pickle

import numpy as np
import pytest
from dataset_files_more import picture, png, write_bytes, write_tar
from PIL import Image

from dav2_jax.data.readers import sa1b
from dav2_jax.errors import Dav2Error


def jpg(seed=0):
    import io

    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "JPEG")
    return file.getvalue()


def notes(*points):
    """As the dataset has them; a point is (x, y)."""
    annotations = [
        {
            "id": 500 + number,
            "segmentation": {"size": [6, 8], "counts": "PP\\1"},
            "bbox": [0.0, 0.0, 3.0, 2.0],
            "area": 6,
            "predicted_iou": 0.93,
            "stability_score": 0.97,
            "crop_box": [0.0, 0.0, 8.0, 6.0],
            "point_coords": [list(point)],
        }
        for number, point in enumerate(points)
    ]
    image = {"image_id": 1, "width": 8, "height": 6, "file_name": "sa_1.jpg"}
    return json.dumps({"image": image, "annotations": annotations}).encode()


FILES = {
    "sa_2.jpg": jpg(2),
    "sa_1.jpg": jpg(1),
    "sa_1.json": notes((7.25, 1.5), (0, 5.5)),
    "sa_2.json": notes((3, 4)),
    "sa_3.jpg": jpg(3),
}


@pytest.fixture(params=["folder", "tar"])
def root(request, tmp_path):
    if request.param == "tar":
        write_tar(tmp_path / "sa_000000.tar", {f"./{name}": data for name, data in FILES.items()})
    else:
        for name, data in FILES.items():
            write_bytes(tmp_path / "sa_000000" / name, data)
    return tmp_path


def test_points_are_row_and_column(root):
    source = pickle.loads(pickle.dumps(sa1b.source(root)))
    assert [one["id"] for one in source] == [f"sa_000000/sa_{number}" for number in (1, 2, 3)]
    assert source.unit == "none"
    assert source[0]["points"].dtype == np.float32
    np.testing.assert_array_equal(source[0]["points"], [[1.5, 7.25], [5.5, 0]])
    np.testing.assert_array_equal(source[1]["points"], [[4, 3]])
    assert "points" not in source[2]
    assert len(source.about) == 1
    assert source.about[0].startswith("1 photos have no annotations and so no points, the first is sa_000000")
    assert source[0]["image"].shape == (6, 8, 3)
    assert not np.array_equal(source[0]["image"], source[1]["image"])


def test_one_tar(tmp_path):
    write_tar(tmp_path / "sa_000001.tar", FILES)
    write_tar(tmp_path / "sa_000002.tar", FILES)
    assert [one["id"] for one in sa1b.source(tmp_path / "sa_000001.tar")][:1] == ["sa_000001/sa_1"]
    assert len(sa1b.source(tmp_path)) == 6


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", r"holds no annotations of SA-1B \(JSONDecodeError\)"),
        (b"[" * 100_000, r"holds no annotations of SA-1B \(RecursionError\)"),
        (b"\xff", "holds no annotations"),
        (b"[]", "holds no annotations"),
        (b"{}", r"holds no annotations of SA-1B \(KeyError\)"),
        (b'{"annotations": [{"point_coords": [[1]]}]}', "holds no annotations"),
        (b'{"annotations": [{"point_coords": "ab"}]}', "holds no annotations"),
        (b'{"annotations": [{"point_coords": [[1, NaN]]}]}', "has a point outside of the photo, which is 8 x 6"),
        (notes((6, 7)), "has a point outside of the photo"),  # (x, y) = (6, 7) lies below; (7, 6) would not
        (notes((-1, 0)), "has a point outside of the photo"),
    ],
)
def test_annotations_that_make_no_sense(tmp_path, kind, data, why):
    files = {"sa_1.jpg": jpg(), "sa_1.json": data}
    if kind == "tar":
        write_tar(tmp_path / "x.tar", files)
    else:
        for name, one in files.items():
            write_bytes(tmp_path / name, one)
    with pytest.raises(Dav2Error, match=rf"sa_1\.json: {why}") as error:
        sa1b.source(tmp_path)[0]
    assert "\n" not in str(error.value)


def test_no_masks_and_broken_photos(tmp_path):
    write_bytes(tmp_path / "sa_1.json", notes())
    write_bytes(tmp_path / "sa_1.jpg", jpg())
    assert sa1b.source(tmp_path)[0]["points"].shape == (0, 2)
    write_bytes(tmp_path / "sa_1.jpg", jpg()[:300])
    write_tar(tmp_path / "t.tar", {"sa_2.jpg": png(picture())[:60]})
    source = sa1b.source(tmp_path)
    with pytest.raises(Dav2Error, match=r"sa_1\.jpg: damaged or unreadable"):
        source[0]
    with pytest.raises(Dav2Error, match=r"t\.tar: sa_2\.jpg: damaged or unreadable"):
        source[1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(Dav2Error, match=r"nothing to read: looked for sa_\*\.jpg"):
        sa1b.source(tmp_path / "empty")


def test_annotations_of_an_absurd_size_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sa1b, "_MAX_BYTES", 50)
    write_bytes(tmp_path / "sa_1.jpg", jpg())
    write_bytes(tmp_path / "sa_1.json", notes((1, 1)))
    with pytest.raises(Dav2Error, match=r"sa_1\.json: has \d+ bytes, which no annotations of one photo have"):
        sa1b.source(tmp_path)[0]
