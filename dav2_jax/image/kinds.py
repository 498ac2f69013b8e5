"""What a file is that cannot be read as a photo, and what to do with it, in one line. Standard library alone."""

from __future__ import annotations

from pathlib import PurePath

HEIC = frozenset({".heic", ".heif", ".hif"})
RAW = frozenset({
    ".3fr", ".ari", ".arw", ".bay", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25",
    ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf",
    ".srw", ".x3f",
})  # fmt: skip
VIDEO = frozenset({
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
})  # fmt: skip

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_SIGNATURES = (  # (offset, bytes, kind)
    (0, b"\x76\x2f\x31\x01", "exr"),
    (0, b"#?RADIANCE", "hdr"),
    (0, b"#?RGBE", "hdr"),
    (0, b"\xff\x0a", "jxl"),
    (0, b"\0\0\0\x0cJXL ", "jxl"),
    (0, b"%PDF", "pdf"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"FUJIFILMCCD-RAW", "raw"),
    (0, b"IIRO", "raw"),
    (0, b"IIRS", "raw"),
    (0, b"MMOR", "raw"),
    (0, b"IIU\0", "raw"),
    (0, b"FOVb", "raw"),
    (6, b"HEAPCCDR", "raw"),
    (8, b"CR\x02", "raw"),
    (4, b"ftypcrx ", "raw"),
    (0, b"\x1aE\xdf\xa3", "video"),  # Matroska, WebM
    (8, b"AVI ", "video"),
    (0, b"FLV\x01", "video"),
    (0, b"\0\0\x01\xba", "video"),  # MPEG program stream
    (0, b"\0\0\x01\xb3", "video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"),  # ASF, WMV
    (0, b"OggS", "video"),
    (0, b"YUV4MPEG2", "video"),
    (4, b"moov", "video"),
    (4, b"mdat", "video"),
    (4, b"wide", "video"),
)
_ADVICE = {
    "heic": "a HEIC photo, which needs pillow-heif: pip install 'dav2-jax[heic]'",
    "raw": "a camera's raw file, and these are not read: develop it to JPEG, PNG or TIFF first "
    "(darktable-cli {name} photo.jpg)",
    "video": "a video, not a photo: dav2 video {name} depth.mp4",
    "exr": "an OpenEXR image, whose values have no range to show: save it as PNG or JPEG first",
    "hdr": "a Radiance HDR image, whose values have no range to show: save it as PNG or JPEG first",
    "jxl": "a JPEG XL image, which Pillow does not read: save it as PNG or JPEG first",
    "pdf": "a PDF, not a photo: save its page as PNG first",
    "svg": "an SVG drawing, not a photo: save it as PNG first",
    "html": "a web page, not a photo: give the address or the file of the photo itself",
    "npy": "a NumPy array: load it and give the array, uint8 RGB [H, W, 3]",
}


def kind_of(name: str, head: bytes) -> str | None:
    """What the first bytes of a file say it is ("heic", "raw", "video", ...), or else its name; None: unknown."""
    for offset, signature, kind in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return kind
    if head[4:8] == b"ftyp":
        if head[8:12] in _HEIC_BRANDS:
            return "heic"
        return None if head[8:12] in (b"avif", b"avis") else "video"
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return "video"  # MPEG transport stream
    text = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "html"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in head[:2048].lower()):
        return "svg"
    return kind_of_extension(PurePath(name).suffix)


def kind_of_extension(extension: str) -> str | None:
    """The kind that an extension, with its dot, stands for."""
    extension = extension.lower()
    families = {"heic": HEIC, "raw": RAW, "video": VIDEO, "exr": {".exr"}, "hdr": {".hdr"}, "jxl": {".jxl"}}
    return next((kind for kind, family in families.items() if extension in family), None)


def advice(kind: str, name: str) -> str:
    """What such a file is and what to do with it, as the rest of a line that starts with the file's name."""
    shown = f"'{name}'" if any(character.isspace() for character in name) else name
    return f"is {_ADVICE[kind]}".format(name=shown or "FILE")
