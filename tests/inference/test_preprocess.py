"""The way in and out, against OpenCV and PyTorch, and every kind of picture people have."""

import io
import struct
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, features

from dav2_jax.errors import Dav2Error
from dav2_jax.image.preprocess import postprocess, preprocess
from dav2_jax.image.read import read_image
from dav2_jax.image.resize import network_size

SIZES = [  # photo (H, W), input size -> network (H', W'), from the official size rule
    ((480, 640), 518, (518, 686)),
    ((640, 480), 518, (686, 518)),
    ((375, 1242), 518, (518, 1722)),
    ((768, 1024), 518, (518, 686)),
    ((400, 500), 518, (518, 644)),
    ((518, 518), 518, (518, 518)),
    ((1, 1), 518, (518, 518)),
    ((100, 100), 510, (518, 518)),  # 510 / 14 rounds to 36, which is below 510: up
    ((100, 100), 500, (504, 504)),
    ((14, 21), 14, (14, 28)),  # 1.5 patches round to even
    ((14, 35), 14, (14, 28)),  # 2.5 too
]


@pytest.mark.parametrize(("size", "input_size", "expected"), SIZES)
def test_size_rule(size, input_size, expected):
    assert network_size(*size, input_size) == expected


def test_sizes_that_are_refused():
    with pytest.raises(Dav2Error, match=r"200,318 patches.*smaller input_size"):
        network_size(200, 29263, 518)
    with pytest.raises(Dav2Error, match="at least 14"):
        network_size(480, 640, 13)


def official_input(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """In double precision, as the official code."""
    x = cv2.resize(photo / 255.0, size[::-1], interpolation=cv2.INTER_CUBIC)
    return ((x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)


@pytest.mark.parametrize(("size", "input_size"), [((200, 300), 252), ((700, 500), 140), ((5, 3), 98), ((1, 1), 28)])
def test_input_is_the_official_one(size, input_size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    ours = preprocess(photo, input_size)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, official_input(photo, network_size(*size, input_size)), rtol=0, atol=5e-6)


@pytest.mark.parametrize("size", [(200, 300), (56, 70), (1, 1), (1, 90), (333, 17)])
def test_output_is_bilinear_with_corners_aligned(size):
    net = np.random.default_rng(0).standard_normal((56, 70), dtype=np.float32)
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(net)[None, None], size, mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(postprocess(net, *size), reference[0, 0], rtol=0, atol=2e-6)


def saved(image: Image.Image, format: str, **options) -> io.BytesIO:
    data = io.BytesIO()
    image.save(data, format=format, **options)
    return data


RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
GRAY16 = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)


def with_alpha() -> Image.Image:
    image = RGB.copy()
    image.putalpha(Image.fromarray(np.zeros((20, 30), np.uint8)))  # fully transparent, and still there
    return image


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("rgb.png", RGB, {}),
        ("alpha.png", with_alpha(), {}),
        ("gray.png", RGB.convert("L"), {}),
        ("gray_alpha.png", with_alpha().convert("LA"), {}),
        ("palette.png", RGB.quantize(16), {}),
        ("one_bit.png", RGB.convert("1"), {}),
        ("gray16.png", Image.fromarray(GRAY16), {}),
        ("gray.jpg", RGB.convert("L"), {"quality": 95}),
        ("rgb.bmp", RGB, {}),
        ("rgb.webp", RGB, {"lossless": True}),
        ("rgb.tiff", RGB, {}),
    ],
)
def test_reads_what_opencv_reads(tmp_path, name, image, options):
    path = tmp_path / name
    image.save(path, **options)
    array, _ = read_image(path)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


def test_cmyk_and_animation(tmp_path):
    RGB.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    array, _ = read_image(tmp_path / "cmyk.jpg")
    assert np.abs(array.astype(int) - np.asarray(RGB)).mean() < 8  # JPEG's loss
    frames = [RGB.quantize(64), Image.new("P", RGB.size)]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "animated.gif")[0], np.asarray(frames[0].convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_comes_first(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    RGB.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    array, _ = read_image(tmp_path / "turned.jpg")
    assert array.shape == ((20, 30, 3) if orientation <= 4 else (30, 20, 3))
    np.testing.assert_array_equal(array, cv2.imread(str(tmp_path / "turned.jpg"))[..., ::-1])


def test_bytes_of_a_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    RGB.save(tmp_path / "turned.jpg", exif=exif)
    data = (tmp_path / "turned.jpg").read_bytes()
    array, exif = read_image(data)
    np.testing.assert_array_equal(array, read_image(tmp_path / "turned.jpg")[0])
    assert exif[0x0112] == 6
    with pytest.raises(Dav2Error, match=r"^not an image that Pillow can read \(5 bytes\)$"):
        read_image(b"image")
    with pytest.raises(Dav2Error, match=r"^damaged or unreadable image"):
        read_image(data[:-400])


def test_arrays_and_pil_images():
    array = np.asarray(RGB)
    assert read_image(array)[0] is array
    np.testing.assert_array_equal(read_image(array[..., 0])[0], np.repeat(array[..., :1], 3, -1))
    np.testing.assert_array_equal(read_image(RGB)[0], array)
    for wrong in (array.astype(np.float32), array[..., :2], array[:0]):
        with pytest.raises(Dav2Error, match=r"uint8 RGB \[H, W, 3\]"):
            read_image(wrong)
    with pytest.raises(Dav2Error, match="a NoneType is no image"):
        read_image(None)


def test_bad_files(tmp_path):
    good = saved(RGB.resize((300, 200)), "JPEG").getvalue()
    bad = {
        "empty.jpg": (b"", "not an image"),
        "text.jpg": (b"hello" * 100, "not an image"),
        "truncated.jpg": (good[: len(good) // 2], "damaged"),
        "truncated.png": (saved(RGB, "PNG").getvalue()[:300], "damaged"),
    }
    for name, (data, message) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(Dav2Error, match=message):
            read_image(tmp_path / name)
    with pytest.raises(Dav2Error, match="no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(Dav2Error, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(Dav2Error) as caught:
        read_image(str(tmp_path / "truncated.jpg"))
    assert str(caught.value).startswith(f"{tmp_path / 'truncated.jpg'}: damaged or unreadable image (")
    assert str(caught.value).count("truncated.jpg") == 1
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(Dav2Error, match="floating-point"):
        read_image(tmp_path / "float.tiff")


@pytest.mark.parametrize("error", [RuntimeError("codec gave up"), ZeroDivisionError(), struct.error("short")])
def test_whatever_a_codec_raises_is_a_damaged_image(error, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    RGB.save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(Dav2Error, match=r"a\.png: damaged or unreadable image \(\w.*\): check the file"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif(tmp_path):
    data = bytearray(saved(RGB.resize((300, 200)), "AVIF").getvalue())
    start = data.index(b"mdat") + 4
    data[start : start + 200] = bytes(200)
    (tmp_path / "a.avif").write_bytes(data)
    with pytest.raises(Dav2Error, match=r"a\.avif: damaged"):
        read_image(tmp_path / "a.avif")


def test_a_truncated_file_that_pil_has_opened(tmp_path):
    good = saved(RGB.resize((300, 200)), "JPEG").getvalue()
    with pytest.raises(Dav2Error, match=r"^damaged or unreadable image"):
        read_image(Image.open(io.BytesIO(good[: len(good) // 2])))


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    RGB.save(tmp_path / "bomb.png")
    with pytest.raises(Dav2Error, match=r"600 pixels are over the limit of 599: raise max_pixels"):
        read_image(tmp_path / "bomb.png", max_pixels=599)
    read_image(tmp_path / "bomb.png", max_pixels=600)


def test_max_pixels_decides_and_not_the_limit_of_pillow(tmp_path, monkeypatch):
    RGB.save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # it raises for more than twice this
    read_image(tmp_path / "bomb.png", max_pixels=600)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Dav2Error, match=r"bomb\.png: more pixels than the limit of 150: raise max_pixels"):
        read_image(tmp_path / "bomb.png", max_pixels=150)


def test_settings_of_the_process_are_left_alone(tmp_path, monkeypatch):
    """By eight threads that overlap, and at any time for other users of Pillow."""
    RGB.save(tmp_path / "photo.png")
    limit, filters, seen = Image.MAX_IMAGE_PIXELS, list(warnings.filters), []
    pillow_open = Image.open

    def slow_open(*arguments):
        seen.append(Image.MAX_IMAGE_PIXELS)
        time.sleep(0.002 * (len(seen) % 3))
        return pillow_open(*arguments)

    monkeypatch.setattr(Image, "open", slow_open)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [tmp_path / "photo.png"] * 32))
    assert set(seen) == {limit}
    assert limit == Image.MAX_IMAGE_PIXELS
    assert warnings.filters == filters
