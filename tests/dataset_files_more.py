"""Files of datasets in their true formats, written byte by byte, and values with no symmetry to compare with."""

import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 6, 8
DEPTH = np.linspace(0.5, 40, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)


def picture(seed=0, height=HEIGHT, width=WIDTH) -> np.ndarray:
    """uint8 [height, width, 3]"""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_image(path, pixels):
    """Any picture; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_bytes(path, *parts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts))


def write_png16(path, steps):
    """16-bit gray, one IDAT, filter 0: not by the library that reads it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = steps.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in steps)
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    write_bytes(
        path, b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    )


def write_npy(path, values):
    """Version 1.0, with the order of bytes that `values` has."""
    header = f"{{'descr': '{values.dtype.str}', 'fortran_order': False, 'shape': {values.shape}, }}".encode()
    header = header.ljust(117) + b"\n"
    write_bytes(path, b"\x93NUMPY\1\0", struct.pack("<H", len(header)), header, values)


def write_npz_header(path, arrays):
    """An .npz of arrays that are headers only, which claim a type and a shape: name -> (descr, shape)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (descr, shape) in arrays.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue())


def write_dpt(path, values):
    height, width = values.shape
    write_bytes(path, struct.pack("<fii", 202021.25, width, height), values.astype("<f4"))


def write_tar(path, members):
    """members: name -> bytes"""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
