"""Writing PyTorch and safetensors weights without torch, one tensor in memory at a time.

Both writers take names to StoredTensor, since a header says every shape before the first byte of data: what
`torch_file.open_weights` gives goes straight in, and `StoredTensor.of(array)` wraps what is in memory. The same tensors
give the same bytes. A file appears under its name only when it is complete.
"""

import json
import math
import os
import secrets
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dav2_jax.convert.export_record import ZIP_RECORD
from dav2_jax.convert.stored_tensor import SAFETENSORS_DTYPES, TORCH_STORAGES, StoredTensor
from dav2_jax.errors import Dav2Error

_STORAGE_OF = {dtype: name for name, dtype in TORCH_STORAGES.items() if name != "torch.storage.UntypedStorage"}
_NAME_OF = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
_ALIGNMENT = 64  # where torch starts each storage, so that a mapped file can be used in place
_CHUNK = 16 << 20


def write_torch_file(path: str | os.PathLike, tensors: Mapping[str, StoredTensor], record: str | None = None) -> None:
    """Writes a state dict in mapping order that `torch.load(path)` reads, also with weights_only and mmap.

    record: a text for our own reader (`export_record`), in an entry of the zip that torch never opens
    dtypes: float16/32/64, bfloat16, int8/16/32/64, uint8, bool. Raises Dav2Error for another dtype, a tensor whose
    read() gives something else than it announced, or a place that cannot be written; then no file is left.
    """
    path = Path(path)
    _check(path, tensors, _STORAGE_OF, "a torch file")
    with _replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        pickle = _state_dict_pickle(tensors)
        with _entry(file, archive, "data.pkl", len(pickle)) as out:
            out.write(pickle)
        # No .format_version: it promises storage offsets that follow from how torch's own zip writer pads.
        with _entry(file, archive, "byteorder", 6) as out:
            out.write(b"little")
        for number, (name, tensor) in enumerate(tensors.items()):
            with _entry(file, archive, f"data/{number}", _size(tensor)) as out:
                _copy(path, name, tensor, out)
        with _entry(file, archive, "version", 2) as out:
            out.write(b"3\n")
        if record is not None:
            content = record.encode("utf-8")
            with _entry(file, archive, ZIP_RECORD, len(content)) as out:
                out.write(content)


def write_safetensors(
    path: str | os.PathLike, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file; transformers wants metadata={"format": "pt"}.

    dtypes: those of write_torch_file and uint16/32/64. Tensors lie in the order of the safetensors library (widest
    dtype first, then by name), which keeps each aligned to its dtype. Raises Dav2Error as write_torch_file does.
    """
    path = Path(path)
    _check(path, tensors, _NAME_OF, "a safetensors file")
    order = list(_NAME_OF)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor, begin = tensors[name], end
        end = begin + _size(tensor)
        header[name] = {"dtype": _NAME_OF[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with _replacing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            _copy(path, name, tensors[name], file)


def _check(path: Path, tensors: Mapping[str, StoredTensor], known: Mapping[np.dtype, str], what: str) -> None:
    if not tensors:
        raise Dav2Error(f"{path}: no tensors to write")
    for name, tensor in tensors.items():
        if tensor.dtype not in known:
            raise Dav2Error(f"{path}: {name} is {tensor.dtype}, which {what} cannot hold; convert it first")
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Dav2Error(f"{path}: the tensor name {name!a} is not valid text") from error
        if name == "__metadata__" and known is _NAME_OF:
            raise Dav2Error(f"{path}: a safetensors file reserves the name __metadata__; rename the tensor")


def _size(tensor: StoredTensor) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file in the same folder that takes the place of `path` at the end, or is removed on failure."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with part.open("xb") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Dav2Error(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _entry(file: BinaryIO, archive: zipfile.ZipFile, name: str, size: int) -> Iterator[BinaryIO]:
    """A stream into a new zip entry whose content starts at a multiple of 64 bytes.

    An extra field does the padding, tagged FB as torch's own. Its 4 bytes of tag and length come on top of the local
    header (30), the name, and the 20 bytes of a zip64 header where the size asks for one.
    """
    info = zipfile.ZipInfo(f"archive/{name}")
    large = size > zipfile.ZIP64_LIMIT
    start = file.tell() + 30 + len(info.filename) + 4 + (20 if large else 0)
    padding = -start % _ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(info, "w", force_zip64=large) as out:
        yield out


def _copy(path: Path, name: str, tensor: StoredTensor, out: BinaryIO) -> None:
    array = tensor.read()
    if array.shape != tensor.shape or array.dtype != tensor.dtype:
        announced = f"{tensor.dtype} {tensor.shape}"
        raise Dav2Error(f"{path}: {name} was announced as {announced} but is {array.dtype} {array.shape}")
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, content.size, _CHUNK):
        out.write(memoryview(content[start : start + _CHUNK]))


# ---- the pickle: OrderedDict of _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)

_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _state_dict_pickle(tensors: Mapping[str, StoredTensor]) -> bytes:
    """Pickle protocol 2 of an OrderedDict of tensors, storage i being the i-th; opcodes as torch.save emits them."""
    parts = [b"\x80\x02", _ORDERED_DICT, b"("]
    for number, (name, tensor) in enumerate(tensors.items()):
        module, _, storage = _STORAGE_OF[tensor.dtype].rpartition(".")
        steps = [math.prod(tensor.shape[i + 1 :]) for i in range(len(tensor.shape))]
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n("]
        parts += [b"(", _text("storage"), f"c{module}\n{storage}\n".encode(), _text(str(number)), _text("cpu")]
        parts += [_number(math.prod(tensor.shape)), b"tQ"]
        parts += [_number(0), _numbers(tensor.shape), _numbers(steps), b"\x89", _ORDERED_DICT, b"tR"]
    return b"".join([*parts, b"u."])


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _numbers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
