"""Your own images with depth: folders and CSV files, in every format, with everything that means "unknown"."""

import pickle
import struct

import numpy as np
import OpenEXR
import pytest
from dataset_files_more import (
    DEPTH,
    picture,
    write_bytes,
    write_dpt,
    write_image,
    write_npy,
    write_npz_header,
    write_png16,
)
from PIL import ExifTags, Image

from dav2_jax.data.readers import own
from dav2_jax.data.sources import open_source
from dav2_jax.errors import Dav2Error
from dav2_jax.inference import formats
from dav2_jax.inference.depth import Depth

NAN, INF = np.nan, np.inf
STEPS = np.rint(DEPTH * 1000).astype(np.uint16)


def write_depth(path, values):
    """Of any format, by the ending; integers are stored as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        write_png16(path, values)
    elif path.suffix == ".npy":
        write_npy(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, depth=values)
    elif path.suffix == ".exr":
        OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Z": values.astype(np.float32)}).write(str(path))
    elif path.suffix == ".pfm":  # bottom row first, big-endian
        height, width = values.shape
        write_bytes(path, b"Pf\n%d %d\n1.0\n" % (width, height), values[::-1].astype(">f4"))
    else:
        write_dpt(path, values)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".exr", ".pfm", ".dpt"])
@pytest.mark.parametrize(
    ("image", "depth"),
    [
        ("images/a/x.png", "depth/a/x"),
        ("rgb/a/x.png", "depths/a/x_depth"),
        ("images/a/x.png", "depth/a/x.png"),
        ("a/x.png", "a/x_depth"),
        ("a/x.png", "a/x.depth"),
        ("a/x.png", "a/x"),
        ("a/x.png", "a/x.png"),
    ],
)
def test_each_format_and_each_place(tmp_path, image, depth, ending):
    write_image(tmp_path / image, picture())
    write_depth(tmp_path / (depth + ending), DEPTH)
    source = pickle.loads(pickle.dumps(own.source(tmp_path)))
    (one,) = source
    assert one["id"] == image.removesuffix(".png")
    assert (source.name, source.unit, source.about) == ("own", "metres", ())
    np.testing.assert_array_equal(one["image"], picture())
    np.testing.assert_array_equal(one["depth"], DEPTH)
    assert one["valid"].all()


@pytest.mark.parametrize("depth", ["depth/x.png", "depth/x_depth.png", "x_depth.png", "x-depth.png", "x.depth.png"])
def test_a_png_of_16_bits_needs_a_scale(tmp_path, depth):
    write_image(tmp_path / ("images/x.jpg" if "/" in depth else "x.jpg"), picture())
    write_png16(tmp_path / depth, STEPS)
    with pytest.raises(
        Dav2Error, match=r"x.*\.png: holds integers and does not state what one step is worth: give scale"
    ):
        own.source(tmp_path)
    (one,) = own.source(tmp_path, scale=0.001)
    np.testing.assert_array_equal(one["depth"], (STEPS.astype(np.float64) * 0.001).astype(np.float32))
    (one,) = own.source(tmp_path, scale=1 / 256)
    np.testing.assert_array_equal(one["depth"], STEPS / np.float32(256))


def test_what_is_not_valid(tmp_path):
    """65535 is sky or unknown as the user says; 0 always is unknown, so sparse depth needs nothing special."""
    sparse = np.zeros_like(STEPS)
    sparse[2, 3], sparse[4, 5] = 1500, 65535
    write_image(tmp_path / "x.png", picture())
    write_png16(tmp_path / "x_depth.png", sparse)
    expected = np.zeros(DEPTH.shape, np.float32)
    expected[2, 3] = 1.5
    for options, last in (
        ({}, 65.535),
        ({"invalid": 65535}, 0),
        ({"sky": 65535}, INF),
        ({"sky": 65535, "invalid": 7}, INF),
    ):
        expected[4, 5] = last
        (one,) = own.source(tmp_path, scale=0.001, **options)
        np.testing.assert_array_equal(one["depth"], expected)
        np.testing.assert_array_equal(one["valid"], expected > 0)
    (tmp_path / "x_depth.png").unlink()
    traps = DEPTH.astype(">f8")
    traps[0, :6] = NAN, INF, -INF, -1, 0, -999
    write_npy(tmp_path / "x_depth.npy", traps)
    (one,) = own.source(tmp_path)
    np.testing.assert_array_equal(one["valid"], np.isfinite(traps) & (traps > 0))
    np.testing.assert_array_equal(one["depth"], np.where(one["valid"], DEPTH, 0))
    (one,) = own.source(tmp_path, sky=INF)
    assert one["depth"][0, 1] == INF
    assert one["valid"][0, :7].tolist() == [False, True, False, False, False, False, True]


def test_disparity(tmp_path):
    write_image(tmp_path / "x.png", picture())
    values = DEPTH.copy()
    values[0, :4] = 0, NAN, -1, INF
    write_npy(tmp_path / "x_depth.npy", values)
    source = own.source(tmp_path, unit="disparity", scale=0.5)
    assert source.unit == "disparity"
    np.testing.assert_array_equal(source[0]["valid"][0, :5], [False, False, False, False, True])
    np.testing.assert_array_equal(source[0]["disparity"][1:], DEPTH[1:] / 2)
    (one,) = own.source(tmp_path, unit="disparity", sky=0)
    np.testing.assert_array_equal(one["valid"][0, :5], [True, False, False, False, True])
    assert one["disparity"][0, 0] == 0


@pytest.mark.parametrize("format", ["png16", "npz", "exr", "npy"])
@pytest.mark.parametrize("unit", ["metres", "disparity"])
def test_files_that_dav2_predict_wrote(tmp_path, format, unit):
    values = DEPTH.copy()
    values[3, 3] = 0
    depth = Depth(values, unit, max_depth=80.0 if unit == "metres" else None)
    write_image(tmp_path / "photos/x.jpg", picture())
    formats.FORMATS["color"].write(depth, tmp_path / "photos/x.jpg.color.png")
    (tmp_path / "depths").mkdir()
    path = tmp_path / f"depths/x.jpg{formats.FORMATS[format].suffix}"
    formats.FORMATS[format].write(depth, path)
    source = own.source(tmp_path, unit=unit if format == "npy" else None)
    assert source.unit == unit
    (one,) = source
    name = "depth" if unit == "metres" else "disparity"
    read = formats.read(path)["values"]
    np.testing.assert_array_equal(one[name], read)
    assert abs(read - values).max() < 0.003
    assert one["valid"][3, 3] == (unit == "disparity" and format != "npy")  # a plain array does not say whose it is
    assert one["valid"].sum() >= values.size - 1
    if format != "npy":
        other = "disparity" if unit == "metres" else "metres"
        with pytest.raises(Dav2Error, match=rf"x\.jpg\..*: states that it is {unit}, where {other} is expected"):
            own.source(tmp_path, unit=other)[0]


def test_a_stated_scale_and_a_given_one(tmp_path):
    depth = Depth(DEPTH, "metres", max_depth=80.0)
    write_image(tmp_path / "x.jpg", picture())
    path = tmp_path / "x.jpg.png16.png"
    formats.write_png16(depth, path)
    with pytest.raises(
        Dav2Error, match=r"png16\.png: states its scale, 0\.00390625, and 0\.001 is given: leave scale out"
    ):
        own.source(tmp_path, scale=0.001)
    wanted = own.source(tmp_path, scale=1 / 256)[0]["depth"]
    write_png16(path, np.rint(DEPTH * 256).astype(np.uint16))  # an editor dropped the text; the .json is still there
    np.testing.assert_array_equal(own.source(tmp_path)[0]["depth"], wanted)
    for text, why in (
        ("{", "damaged or unreadable"),
        ('{"unit": "feet", "scale": 1, "offset": 0}', "states what is no"),
    ):
        (tmp_path / "x.jpg.png16.png.json").write_text(text)
        with pytest.raises(Dav2Error, match=rf"x\.jpg\.png16\.png: {why}"):
            own.source(tmp_path)


def test_a_hostile_unit_costs_no_memory(tmp_path):
    write_image(tmp_path / "x.png", picture())
    for unit in (("<U4", (10**12,)), ("<U100000000", ()), ("|O", ())):
        write_npz_header(tmp_path / "x_depth.npz", {"depth": ("<f4", (6, 8)), "unit": unit})
        with pytest.raises(Dav2Error, match=r"x_depth\.npz: damaged or unreadable"):  # and has no values either
            own.source(tmp_path)[0]


def test_half_pairs_and_ambiguous_ones(tmp_path):
    for name in ("images/b.png", "images/a.png", "images/only.png"):
        write_image(tmp_path / name, picture())
    for name in ("depth/b.npy", "depth/a.npy", "depth/none.npy"):
        write_npy(tmp_path / name, DEPTH)
    source = own.source(tmp_path)
    assert [one["id"] for one in source] == ["images/a", "images/b"]
    assert source.about == (
        "1 images without depth left out, the first is images/only.png",
        "1 depth files without image left out, the first is depth/none.npy",
    )
    assert len(own.source(tmp_path, images="images", depths="depth")) == 2
    with pytest.raises(Dav2Error, match="give both, or none"):
        own.source(tmp_path, images="images")
    write_dpt(tmp_path / "depth/a_depth.dpt", DEPTH)
    with pytest.raises(
        Dav2Error, match=r"images/a\.png: its depth could be depth/a\.npy or depth/a_depth\.dpt: keep one"
    ):
        own.source(tmp_path)
    (tmp_path / "depth/a_depth.dpt").unlink()
    write_image(tmp_path / "images/a.jpg", picture())
    with pytest.raises(Dav2Error, match=r"depth/a\.npy: could belong to images/a\.jpg or images/a\.png: rename it"):
        own.source(tmp_path)
    write_image(tmp_path / "empty/1.jpg", picture())
    write_image(tmp_path / "empty/2.jpg", picture())
    with pytest.raises(
        Dav2Error, match=r"nothing to read: looked for x\.jpg with x_depth\.png .*; 2 images without depth"
    ):
        own.source(tmp_path / "empty")


def test_unlike_sizes_are_refused_or_brought_to_one(tmp_path):
    write_image(tmp_path / "x.png", picture(0, 12, 16))
    write_npy(tmp_path / "x_depth.npy", DEPTH)
    with pytest.raises(Dav2Error, match=r"^own: x: the image is 16 x 12 and its depth 8 x 6: add \?resize=depth for"):
        own.source(tmp_path)[0]
    assert own.source(tmp_path, resize="image")[0]["image"].shape == (6, 8, 3)
    one = own.source(tmp_path, resize="depth")[0]
    np.testing.assert_array_equal(one["depth"], np.kron(DEPTH, np.ones((2, 2), np.float32)))
    write_npy(tmp_path / "x_depth.npy", DEPTH.T.copy())
    with pytest.raises(Dav2Error, match=r"^own: x: the image is 16 x 12 and its depth 6 x 8: they differ in shape"):
        own.source(tmp_path, resize="image")[0]


def test_integers_of_another_size_than_the_photo_need_two_options_and_one_error_says_both(tmp_path):
    """As an iPhone's LiDAR has them (ARKit)."""
    write_image(tmp_path / "x.png", picture(0, 12, 16))
    write_png16(tmp_path / "x_depth.png", STEPS)
    why = r"x_depth\.png: holds integers .* as in \?scale=0\.001 .*; the image is 16 x 12 .* add \?resize=depth"
    with pytest.raises(Dav2Error, match=why):
        own.source(tmp_path)
    assert own.source(tmp_path, scale=0.001, resize="depth")[0]["depth"].shape == (12, 16)


def save_turned(path, upright, orientation):
    """A photo as a camera stores it that was held otherwise: turned back, with the orientation that turns it again."""
    names = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]
    stored = Image.fromarray(upright).transpose(Image.Transpose[names[orientation - 2]])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    stored.save(path, exif=exif)
    return np.asarray(stored)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_depth_stored_as_the_pixels_of_a_turned_photo(tmp_path, orientation):
    photo, depth = picture(), DEPTH[..., None].repeat(3, -1)
    save_turned(tmp_path / "x.png", photo, orientation)
    turned = save_turned(tmp_path / "helper.png", np.rint(depth * 5).astype(np.uint8), orientation)[..., 0]
    (tmp_path / "helper.png").unlink()
    write_npy(tmp_path / "x_depth.npy", turned.astype(np.float32))
    (one,) = own.source(tmp_path, turn=True)
    np.testing.assert_array_equal(one["image"], photo)
    np.testing.assert_array_equal(one["depth"], np.rint(DEPTH * 5))
    if orientation >= 5:
        with pytest.raises(
            Dav2Error,
            match=rf"the image is 8 x 6 and its depth 6 x 8: the photo carries EXIF orientation {orientation}, "
            r"its depth does not: add \?turn=true$",
        ):
            own.source(tmp_path)[0]
    write_npy(tmp_path / "x_depth.npy", turned.astype(np.float32)[::2, ::2])
    assert own.source(tmp_path, turn=True, resize="depth")[0]["depth"].shape == (6, 8)
    if orientation >= 5:
        with pytest.raises(Dav2Error, match=r"add \?turn=true&resize=depth$"):
            own.source(tmp_path)[0]


def test_a_depth_png_with_an_orientation_of_its_own_is_turned_by_it(tmp_path):
    save_turned(tmp_path / "x.png", picture(), 6)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.ascontiguousarray(STEPS.T[::-1])).save(tmp_path / "x_depth.png", exif=exif)
    (one,) = own.source(tmp_path, scale=0.001)
    np.testing.assert_array_equal(one["depth"], (STEPS.astype(np.float64) * 0.001).astype(np.float32))


def test_a_square_photo_that_was_turned_is_noted_where_its_depth_does_not_say_whether_it_is_upright(tmp_path):
    save_turned(tmp_path / "x.png", picture()[:6, :6], 6)
    write_npy(tmp_path / "x_depth.npy", DEPTH[:6, :6])

    def notes(**options):
        source = own.source(tmp_path, **options)
        return source.notes(source.items[0], source[0])

    (note,) = notes()
    assert note.startswith("where the photo carries EXIF orientation 6, its depth does not: ")
    assert notes(turn=False) == notes(turn=True) == []
    write_npy(tmp_path / "x_depth.npy", DEPTH[:6, :5])  # the shape tells that it is upright
    save_turned(tmp_path / "x.png", picture()[:6, :5], 6)
    assert notes() == []
    save_turned(tmp_path / "x.png", picture()[:6, :5], 3)
    assert "EXIF orientation 3" in notes()[0]
    (tmp_path / "x_depth.npy").unlink()
    formats.FORMATS["npz"].write(Depth(DEPTH[:6, :5], "metres"), tmp_path / "x.png.npz")  # which is upright
    assert notes() == []


def test_an_exr_with_several_depths_needs_its_channel(tmp_path):
    write_image(tmp_path / "x.png", picture())
    channels = {"left.Depth.Z": DEPTH, "right.Depth.Z": DEPTH * 2}
    OpenEXR.File({"type": OpenEXR.scanlineimage}, channels).write(str(tmp_path / "x_depth.exr"))
    with pytest.raises(Dav2Error, match=r"x_depth\.exr: has 2 channels .* name one of left\.Depth\.Z, right\.Depth\.Z"):
        own.source(tmp_path)[0]
    np.testing.assert_array_equal(open_source(f"own:{tmp_path}?channel=right.Depth.Z")[0]["depth"], DEPTH * 2)


def csv(root, text, encoding="utf-8"):
    (root / "all.csv").write_text(text, encoding=encoding)
    return root / "all.csv"


@pytest.fixture
def root(tmp_path):
    for number in (1, 2):
        write_image(tmp_path / f"photos/{number}.png", picture(number, 12, 16))
        write_png16(tmp_path / f"gt/{number}.png", np.kron(STEPS, np.ones((2, 2), np.uint16)))
        write_image(tmp_path / f"ok/{number}.png", np.kron(np.eye(6, 8, dtype=np.uint8), np.ones((2, 2), np.uint8)))
    return tmp_path


def test_a_csv_says_everything(root):
    path = csv(
        root,
        "image, depth ,scale,fx,fy,cx,cy,mask,unit\n"
        "photos/2.png,gt/2.png,0.001,100,101,7.5,5.5,ok/2.png,metres\n"
        '"photos/1.png",gt/1.png,0.002,,,,,,metres\n'
        "photos/3.png,gt/1.png,,,,,,,metres\n",
        "utf-8-sig",
    )
    source = pickle.loads(pickle.dumps(own.source(path)))
    assert [one["id"] for one in source] == ["photos/2", "photos/1"]  # the order is the user's
    assert source.about == (f"1 rows whose files are not there left out, the first is {path}:4 (photos/3.png)",)
    one = source[0]
    mask = np.kron(np.eye(6, 8), np.ones((2, 2))) > 0
    np.testing.assert_array_equal(one["valid"], mask)
    metres = np.kron((STEPS.astype(np.float64) * 0.001).astype(np.float32), np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(one["depth"], np.where(mask, metres, 0))
    np.testing.assert_array_equal(one["intrinsics"], np.float32([100, 101, 7.5, 5.5]))
    assert "intrinsics" not in source[1]
    np.testing.assert_array_equal(source[1]["depth"], (2 * metres.astype(np.float64)).astype(np.float32))


def test_the_camera_follows_a_resized_image_and_a_path_may_be_absolute(root):
    write_npy(root / "small.npy", DEPTH)
    path = csv(root, f"image,depth,fx,fy,cx,cy\n{root}/photos/1.png,small.npy,100,110,7.5,5.5\n")
    (one,) = own.source(path, resize="image")
    np.testing.assert_array_equal(one["intrinsics"], np.float32([50, 55, 3.5, 2.5]))
    assert own.source(path, resize="depth")[0]["intrinsics"].tolist() == [100, 110, 7.5, 5.5]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"needs a header with the columns image and depth, each once"),
        ("image\na.png\n", "needs a header with the columns image and depth"),
        ("image,depth,depth\n", "needs a header with the columns image and depth, each once"),
        ("image,depht\n", r"has an unknown column 'depht' \(did you mean depth\?\): known are"),
        ("image,depth,Scale\n", r"has an unknown column 'Scale' \(did you mean scale\?\): known are"),
        ("image,depth,zzz\n", "has an unknown column 'zzz': known are image, depth"),
        ("image,depth\na,b,c\n", "all.csv:2: has not as many values as the header has columns"),
        ("image,depth,mask\na,b\n", "all.csv:2: has not as many values"),
        ("image,depth\n,b\n", "all.csv:2: has no image, or no depth"),
        ("image,depth,scale\na,b,0.001m\n", "all.csv:2: scale is no number: '0.001m'"),
        ("image,depth,scale\na,b,nan\n", "all.csv:2: scale is no number"),
        ("image,depth,fx\na,b,100\n", "all.csv:2: has some of fx, fy, cx, cy"),
        ("image,depth,unit\na,b,feet\n", "all.csv:2: the unit is 'feet', not metres or disparity"),
        (
            "image,depth\na.png,b.png\n",
            r"nothing to read: .*; 1 rows whose files are not there left out, .*:2 \(a\.png\)",
        ),
        ("image,depth\na.png," + "x" * 200_000 + "\n", "is no CSV text in UTF-8"),
        ('image,depth\n"a.png,b\n', "is no CSV text in UTF-8"),
        ("image,depth\na\0,b\n", "all.csv"),
    ],
)
def test_a_csv_that_makes_no_sense(tmp_path, text, why):
    with pytest.raises(Dav2Error, match=rf"all\.csv.*{why.removeprefix('all.csv')}") as error:
        own.source(csv(tmp_path, text))
    assert "\n" not in str(error.value)


def test_units_of_a_csv(root):
    path = csv(root, "image,depth,scale,unit\nphotos/1.png,gt/1.png,1,metres\nphotos/2.png,gt/2.png,1,disparity\n")
    with pytest.raises(Dav2Error, match=r"its rows have unlike units \(disparity, metres\): make a CSV of each"):
        own.source(path)
    path = csv(root, "image,depth,scale,unit\nphotos/1.png,gt/1.png,1,disparity\n")
    assert own.source(path).unit == "disparity"
    with pytest.raises(Dav2Error, match="its column unit says disparity, and unit= metres"):
        own.source(path, unit="metres")
    path.write_bytes(b"image,depth\n\xff,\xfe\n")
    with pytest.raises(Dav2Error, match="is no CSV text in UTF-8"):
        own.source(path)
    with pytest.raises(Dav2Error, match=r"none\.csv: no such file"):
        own.source(root / "none.csv")


def test_what_is_broken_is_named(root):
    source = own.source(
        csv(root, "image,depth,mask\nphotos/1.png,gt/1.png,ok/1.png\nphotos/2.png,gt/2.png,\n"), scale=1
    )
    (root / "gt/2.png").write_bytes((root / "gt/2.png").read_bytes()[:70])
    with pytest.raises(Dav2Error, match=r"^own: .*gt/2\.png: damaged or unreadable"):
        source[1]
    (root / "photos/2.png").write_bytes(b"")
    with pytest.raises(Dav2Error, match=r"photos/2\.png: not an image"):
        source[1]
    write_image(root / "ok/1.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(Dav2Error, match=r"ok/1\.png: is 8 x 6 and its depth 16 x 12"):
        source[0]
    (root / "gt/1.png").unlink()
    with pytest.raises(Dav2Error, match=r"gt/1\.png: No such file"):
        source[0]
    write_image(root / "photos/1.png", np.zeros((5, 5, 3), np.uint8))
    write_bytes(
        root / "gt/1.png",
        b"\x89PNG\r\n\x1a\n",
        struct.pack(">I", 13),
        b"IHDR",
        struct.pack(">IIB", 2**31 - 1, 2**31 - 1, 16),
    )
    with pytest.raises(Dav2Error, match=r"gt/1\.png: "):
        source[0]
