"""The zip around torch.save: <root>/data.pkl and one uncompressed <root>/data/<key> for each storage."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np

from dav2_jax.convert.stored_tensor import DOWNLOAD_AGAIN, HEADER_LIMIT, Storage, shown
from dav2_jax.errors import Dav2Error

_PICKLE_LIMIT = 64 << 20  # bytes; 750 tensors and their AdamW state take 0.3 MB, but arrays of NumPy lie inside too


class _HeaderFile(io.FileIO):
    """What zipfile sees: a file that does not hand out a directory of gigabytes."""

    def read(self, size: int = -1, /) -> bytes:
        if size > HEADER_LIMIT:
            raise zipfile.BadZipFile(f"a directory of {size} bytes")
        return super().read(size)


class Archive:
    """The entries of a torch zip. Only zip directories are parsed by zipfile; content is read by Storage."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with _HeaderFile(path) as file, zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, IndexError, struct.error) as error:
            raise Dav2Error(
                f"{path}: is cut off or damaged, its zip directory cannot be read ({shown(str(error))}; "
                f"{path.stat().st_size} bytes); {DOWNLOAD_AGAIN}"
            ) from error
        self.entries = {entry.filename: entry for entry in entries}
        if len(self.entries) != len(entries):
            raise Dav2Error(f"{path}: has two zip entries of one name, which torch.save never writes; refused")
        roots = [name.removesuffix("/data.pkl") for name in self.entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise Dav2Error(f"{path}: is a zip file but not of torch.save ({len(roots)} data.pkl in it); unpack it?")
        self.root = roots[0]
        if f"{self.root}/constants.pkl" in self.entries:
            raise Dav2Error(f"{path}: is a TorchScript program; save the model's state_dict() with torch.save instead")
        if f"{self.root}/byteorder" in self.entries and self.small("byteorder") != b"little":
            raise Dav2Error(f"{path}: was not written on a little-endian machine; re-save it on one")

    def small(self, name: str) -> bytes:
        """The content of a header-like entry."""
        storage = self.storage(name, np.dtype(np.uint8))
        if storage.count > _PICKLE_LIMIT:
            raise Dav2Error(f"{self.path}: {name} is {storage.count} bytes, limit {_PICKLE_LIMIT}: no weights; refused")
        return storage.tensor((storage.count,)).read().tobytes()

    def has(self, name: str) -> bool:
        return f"{self.root}/{name}" in self.entries

    def storage(self, name: str, dtype: np.dtype) -> Storage:
        """The entry `<root>/<name>` as elements of dtype."""
        entry = self.entries.get(f"{self.root}/{name}")
        if entry is None:
            raise Dav2Error(f"{self.path}: lacks its zip entry {shown(name)}; damaged, {DOWNLOAD_AGAIN}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise Dav2Error(
                f"{self.path}: the zip entry {shown(name)} is compressed or encrypted, which torch.save never does; "
                "was it packed again? use the original file"
            )
        with self.path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(min(max(entry.header_offset, 0), size))
            header = file.read(30)
        if entry.header_offset >= 0 and len(header) == 30 and header[:4] == b"PK\x03\x04":
            name_length, extra_length = struct.unpack("<HH", header[26:])
            start = entry.header_offset + 30 + name_length + extra_length
            if start + entry.file_size <= size and entry.file_size % dtype.itemsize == 0:
                return Storage(self.path, start, entry.file_size // dtype.itemsize, dtype, entry.CRC)
        raise Dav2Error(f"{self.path}: its zip entry {shown(name)} is damaged; {DOWNLOAD_AGAIN}")
