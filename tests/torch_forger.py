"""Torch zips with any pickle and any storages inside, as a forger would write them."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch


class Payload:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Reference:
    """A persistent id of torch's pickles, as a forger would choose it."""

    def __init__(self, *parts):
        self.parts = parts


class Forger(pickle.Pickler):
    """Writes a Reference as its parts."""

    def persistent_id(self, value):
        return value.parts if isinstance(value, Reference) else None


def tensor(shape, strides, offset=0, count=6, key="0", kind=torch.FloatStorage, extra=(False, None)):
    """A tensor of torch's pickles; by default one of the storage that `forge` adds."""
    reference = Reference("storage", kind, key, "cpu", count)
    return Payload(torch._utils._rebuild_tensor_v2, reference, offset, shape, strides, *extra)


def pickled(content: object) -> bytes:
    """The data.pkl that the forger makes of `content`."""
    stream = io.BytesIO()
    Forger(stream, protocol=2).dump(content)
    return stream.getvalue()


def forge(path: Path, content: object, storages: dict[str, bytes] | None = None, **entries: bytes) -> Path:
    """A torch zip around `content`, which is pickled, or raw when it is bytes. Storage '0' is 6 float32: 0 to 5."""
    if not isinstance(content, bytes):
        content = pickled(content)
    if storages is None:
        storages = {"0": np.arange(6, dtype=np.float32).tobytes()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        for key, raw in storages.items():
            archive.writestr(f"a/data/{key}", raw)
        for name, raw in entries.items():
            archive.writestr(f"a/{name}", raw)
    return path


def opcode_text(text: str) -> bytes:
    """BINUNICODE of an ASCII text."""
    return b"X" + struct.pack("<I", len(text)) + text.encode()
