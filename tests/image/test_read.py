"""Photos of every kind that people have, beside those in test_preprocess: what can be read is, the rest is named."""

import contextlib
import io
import struct
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from dav2_jax.errors import Dav2Error
from dav2_jax.image import fetch, read
from dav2_jax.image.read import read_header, read_image, read_photo

HEIGHT, WIDTH = 45, 61  # odd, so that packed rows end within a byte
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
PHOTO = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 2)
RGB = Image.fromarray(PHOTO)


def saved(image: Image.Image, format: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format=format, **options)
    return data.getvalue()


def tiff_file(*images, order: str = "<") -> bytes:
    """A TIFF file of images (values [H, W, samples], bits, tags); the first one has the others as its SubIFDs."""
    data, offsets = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8), []
    for values, bits, tags in images:
        height, width, samples = values.shape
        if bits == 16:
            strip = values.astype(f"{order}u2").tobytes()
        else:
            each = (values.reshape(height, -1, 1).astype(int) >> np.arange(bits - 1, -1, -1)) & 1
            strip = np.packbits(each.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
        subs = len(images) - 1 if not offsets else 0
        known = {256: [width], 257: [height], 258: [bits] * samples, 259: [1], 262: [1 if samples == 1 else 2]}
        known |= {273: [0], 277: [samples], 278: [height], 279: [len(strip)], **{tag: [tags[tag]] for tag in tags}}
        known |= {330: [0] * subs} if subs else {}
        offsets.append(len(data))
        end = len(data) + 2 + 12 * len(known) + 4
        known[273] = [end + 100]  # below, values that do not fit in an entry
        entries, beyond = b"", b""
        for tag, numbers in sorted(known.items()):
            packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
            if len(packed) > 4:
                packed, beyond = struct.pack(f"{order}I", end + len(beyond)), beyond + packed
            entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
        data += struct.pack(f"{order}H", len(known)) + entries + bytes(4) + beyond.ljust(100, b"\0") + strip
    if len(images) == 2:
        at = data.index(struct.pack(f"{order}HHI", 330, 4, 1)) + 8
        data = data[:at] + struct.pack(f"{order}I", offsets[1]) + data[at + 4 :]
    return data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["black is 0", "white is 0", "RGB"])
def test_tiff_of_nine_to_sixteen_bits(order, bits, kind):
    """The faults of these were a nearly black photo (12 bits) and a negative one (white is 0)."""
    values = np.round((RAMP if kind != "RGB" else np.concatenate([RAMP, RAMP[::-1], RAMP / 2], 2)) * (2**bits - 1))
    stored, tags = (2**bits - 1 - values, {262: 0}) if kind == "white is 0" else (values, {})
    photo = read_photo(tiff_file((stored, bits, tags), order=order))
    assert np.array_equal(photo.image, np.broadcast_to(values.astype(int) >> (bits - 8), (HEIGHT, WIDTH, 3)))
    assert photo.notes == ()


def test_a_tiff_that_states_its_largest_value():
    photo = read_photo(tiff_file((np.round(RAMP * 1023), 16, {281: 1023})))
    assert np.array_equal(photo.image[..., 0], np.round(RAMP[..., 0] * 1023).astype(int) >> 2)
    assert photo.notes == ()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("bits", "noted"), [(10, True), (12, True), (16, False)])
def test_few_bits_in_a_png_of_sixteen_are_noted(channels, bits, noted):
    values = np.repeat(np.round(RAMP * (2**bits - 1)).astype(np.uint16), channels, 2)
    photo = read_photo(cv2.imencode(".png", values)[1].tobytes())
    assert np.array_equal(photo.image[..., 0], values[..., 0] >> 8)  # as OpenCV
    assert [f"they are {bits}-bit values, multiply them by {2 ** (16 - bits)} first" in n for n in photo.notes] == (
        [True] if noted else []
    )


def test_integers_of_32_bits_have_no_range():
    with pytest.raises(Dav2Error, match=r"32-bit integers \(to 70,000\)"):
        read_photo(Image.fromarray(np.full((4, 4), 70_000, np.int32)))


SMALL = (np.full((4, 5, 3), 9.0), 8, {254: 1, 50706: 1})


def test_the_photo_behind_a_thumbnail():
    photo = read_photo(tiff_file(SMALL, (np.round(RAMP * 255), 8, {})))
    assert np.array_equal(photo.image[..., 0], np.round(RAMP[..., 0] * 255))


@pytest.mark.parametrize("name", ["photo.dng", "photo.nef", "two words.dng"])
@pytest.mark.parametrize("sensor", [32803, 34892])
def test_what_a_sensor_saw_is_named_as_raw(name, sensor, tmp_path):
    (tmp_path / name).write_bytes(tiff_file(SMALL, (RAMP * 4095, 12, {262: sensor})))
    with pytest.raises(Dav2Error, match=r": is a camera's raw file, .* develop it .*darktable-cli '?/"):
        read_photo(tmp_path / name)


def test_a_tiff_that_links_its_images_in_a_circle():
    data = bytearray(tiff_file(SMALL, (RAMP * 255, 8, {})))
    at = data.index(struct.pack("<HHI", 330, 4, 1)) + 8
    data[at : at + 4] = struct.pack("<I", 8)  # itself
    assert read_photo(bytes(data)).image.shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic", "is a HEIC photo, which needs pillow-heif: pip install 'dav2-jax[heic]'"),
        ("a.jpg", b"\0\0\0\x18ftypmif1", "is a HEIC photo"),
        ("a.mp4", b"\0\0\0\x18ftypisom", "is a video, not a photo: dav2 video "),
        ("a.bin", b"\x1aE\xdf\xa3", "is a video"),
        ("a.ts", b"\x47" + bytes(187) + b"\x47", "is a video"),
        ("a.cr3", b"\0\0\0\x18ftypcrx ", "is a camera's raw file"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0", "is a camera's raw file"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201", "is a camera's raw file"),
        ("a.arw", b"no TIFF", "is a camera's raw file"),
        ("a.exr", b"\x76\x2f\x31\x01", "is an OpenEXR image"),
        ("a.jpg", b"<!DOCTYPE html><title>404", "is a web page, not a photo"),
        ("a.svg", b"<?xml version='1.0'?><svg", "is an SVG drawing"),
        ("a.npy", b"\x93NUMPY", "is a NumPy array"),
        ("a.txt", b"words", "not an image that Pillow can read (200 bytes)"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(name, head, message, tmp_path, monkeypatch):
    monkeypatch.setattr(read, "photo_extensions", lambda: frozenset({".jpg"}))  # as without pillow-heif
    (tmp_path / name).write_bytes(head.ljust(200, b"\0"))
    with pytest.raises(Dav2Error) as caught:
        read_photo(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")
    assert "\n" not in str(caught.value)


def test_heic_where_pillow_heif_is_installed(tmp_path):
    pytest.importorskip("pillow_heif")
    assert {".heic", ".heif"} <= read.photo_extensions()
    exif = Image.Exif()
    exif[0x0112] = 6
    RGB.resize((64, 48)).save(tmp_path / "a.heic", exif=exif, quality=100)
    photo = read_photo(tmp_path / "a.heic")
    expected = np.asarray(RGB.resize((64, 48)))
    assert np.abs(photo.image.astype(int) - expected).mean() < 4  # libheif has turned it, where the file asks for that


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("missing", [1, 2, 8, 100])
def test_a_jpeg_that_lacks_its_end_is_read_as_opencv_does(options, missing, tmp_path):
    data = saved(RGB, "JPEG", quality=95, **options)[:-missing]
    (tmp_path / "cut.jpg").write_bytes(data)
    expected = cv2.imread(str(tmp_path / "cut.jpg"))[..., ::-1]
    for source in (tmp_path / "cut.jpg", data, io.BytesIO(data), Image.open(io.BytesIO(data))):
        photo = read_photo(source)
        assert np.array_equal(photo.image, expected)
        assert len(photo.notes) == 1
        assert photo.notes[0].startswith("the file is cut short")
        with pytest.raises(Dav2Error, match="damaged or unreadable image"):
            read_image(source)  # of data to train on


def test_how_much_of_a_jpeg_is_missing():
    data = saved(RGB.resize((64, 160)), "JPEG", quality=90)
    notes = read_photo(data[: len(data) // 2]).notes
    (rows,) = [int(note.split("last ")[1].split()[0]) for note in notes]
    assert 48 < rows <= 112
    with pytest.raises(Dav2Error, match=r"144 of its 160 rows are missing"):
        read_photo(data[: data.index(b"\xff\xda") + 14])


def with_chunk(data: bytes, kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    """A PNG with one more chunk, before its pixels."""
    crc = zlib.crc32(kind + content) if crc is None else crc
    at = data.index(b"IDAT") - 4
    return data[:at] + struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc) + data[at:]


@pytest.mark.parametrize(
    ("kind", "content", "crc"),
    [
        (b"eXIf", b"Exif\0\0\0\0\x11\0\0\x01\x04\0", None),  # no TIFF header
        (b"eXIf", b"", None),
        (b"eXIf", b"II*\0\xff\xff\xff\xff", None),
        (b"tEXt", b"a\0b", 1),  # a wrong checksum
        (b"iCCP", b"x\0\0no zlib", None),
        (b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)), None),  # larger than Pillow takes
    ],
)
def test_damaged_metadata_of_a_png_do_not_cost_its_pixels(kind, content, crc):
    photo = read_photo(with_chunk(saved(RGB, "PNG"), kind, content, crc))
    assert np.array_equal(photo.image, PHOTO)
    assert all("damaged" in note for note in photo.notes)


def test_exif_that_cannot_be_parsed_is_noted_for_every_format():
    exif = b"Exif\0\0\0\0\x11\0\0\x01\x04\0"
    for data in (saved(RGB, "JPEG", exif=exif), with_chunk(saved(RGB, "PNG"), b"eXIf", exif)):
        photo = read_photo(data)
        assert photo.image.shape == PHOTO.shape
        assert read_header(data)[:2] == (HEIGHT, WIDTH)


def test_a_header_holds_the_exif_data_that_follow_the_pixels_of_a_png(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(RGB, "PNG", exif=exif)
    start, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    data = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    assert read_header(data).exif[0x0112] == 6


@pytest.mark.parametrize("change", ["convert", "copy", "rotate", "exif_transpose", "opened"])
def test_a_pil_image_is_turned_only_while_it_is_the_opened_file(change):
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = Image.open(io.BytesIO(saved(RGB, "PNG", exif=exif)))
    changed = {
        "convert": lambda: opened.convert("RGBA"),
        "copy": opened.copy,
        "rotate": lambda: opened.rotate(-90, expand=True),
        "exif_transpose": lambda: ImageOps.exif_transpose(opened),
        "opened": lambda: opened,
    }[change]()
    photo = read_photo(changed)
    upright = np.asarray(RGB.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(photo.image, PHOTO if change in ("convert", "copy") else upright)
    carries_it = change in ("convert", "copy", "rotate")
    assert ["carries EXIF orientation 6" in note for note in photo.notes] == [True] * carries_it


def test_open_files_and_buffers(tmp_path):
    RGB.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    at_its_end = io.BytesIO(data)
    at_its_end.seek(0, io.SEEK_END)
    for source in (data, bytearray(data), memoryview(data), at_its_end):
        assert np.array_equal(read_photo(source).image, PHOTO)
    with (tmp_path / "a.png").open("rb") as file:
        assert np.array_equal(read_photo(file).image, PHOTO)
    with (tmp_path / "a.png").open() as file, pytest.raises(Dav2Error, match=r"a\.png: .* open as text .* mode 'rb'"):
        read_photo(file)
    with pytest.raises(Dav2Error, match="reads as str is no image: open it with mode 'rb'"):
        read_photo(io.StringIO("text"))


@pytest.fixture
def address(tmp_path):
    """http://127.0.0.1:PORT, which serves tmp_path; /endless never ends, and /short ends too early."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path not in ("/endless", "/short"):
                return super().do_GET()
            self.send_response(200)
            if self.path == "/short":
                self.send_header("Content-Length", "1000")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(bytes(100))
                while self.path == "/endless":
                    self.wfile.write(bytes(65536))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses(address, tmp_path, monkeypatch):
    RGB.save(tmp_path / "ä b.png")
    for name in ("ä b.png", "%C3%A4%20b.png?size=large"):
        assert np.array_equal(read_photo(f"{address}/{name}").image, PHOTO)
    monkeypatch.setattr(fetch, "MAX_BYTES", 100_000)
    monkeypatch.setattr(fetch.download, "__kwdefaults__", {"max_bytes": 1000, "timeout": 20})
    (tmp_path / "large.png").write_bytes(bytes(1001))
    errors = {
        f"{address}/gone.jpg": "the server answers 404 ",
        f"{address}/large.png": "more than 0 MiB: download it and give the file",
        f"{address}/endless": "more than 0 MiB",
        f"{address}/short": "the download ended ",
        f"{address}/": "is a web page, not a photo",
        "http://127.0.0.1:1/a.jpg": "cannot be downloaded (Connection refused): check the address",
        "https://": "an address without a host",
        "http://[": "an address without a host",
    }
    for url, message in errors.items():
        with pytest.raises(Dav2Error) as caught:
            read_photo(url)
        assert str(caught.value).startswith(f"{url}: {message}"), caught.value
        assert "\n" not in str(caught.value)
