"""safetensors files: 8 bytes of header length, a JSON header, the tensors end to end.

A parser of our own, because the safetensors library maps the file (stored_tensor says what that costs). The header is
a stranger's: every number in it is checked before a byte of memory is reserved for it.
"""

import json
import math
from pathlib import Path

from dav2_jax.convert.stored_tensor import (
    DOWNLOAD_AGAIN,
    HEADER_LIMIT,
    SAFETENSORS_DTYPES,
    Storage,
    StoredTensor,
    shown,
)
from dav2_jax.errors import Dav2Error


def open_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of the file in the order of its header, and its `__metadata__`.

    Raises Dav2Error, one line, for a header that does not fit.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT:
            raise Dav2Error(f"{path}: its safetensors header claims {length} bytes; damaged, {DOWNLOAD_AGAIN}")
        text = file.read(length)
    start = 8 + length
    if start > size:
        raise Dav2Error(f"{path}: is cut off inside its header ({size} bytes of at least {start}); {DOWNLOAD_AGAIN}")
    tensors, spans = {}, []
    header = json_object(path, text)
    metadata = header.pop("__metadata__", None)
    for name, entry in header.items():
        try:
            dtype, shape, (begin, end) = (entry[key] for key in ("dtype", "shape", "data_offsets"))
            if dtype not in SAFETENSORS_DTYPES:
                raise Dav2Error(f"{path}: {shown(name)} has dtype {shown(dtype)}, which is not supported here")
            if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
                raise ValueError("its data_offsets are impossible")
            dtype = SAFETENSORS_DTYPES[dtype]
            tensors[name] = Storage(path, start + begin, (end - begin) // dtype.itemsize, dtype).tensor(tuple(shape))
            if math.prod(shape) * dtype.itemsize != end - begin:
                raise ValueError(f"its shape does not fill its {end - begin} bytes")
        except (KeyError, TypeError, ValueError) as error:
            reason = shown(str(error))
            raise Dav2Error(f"{path}: header entry {shown(name)} is wrong ({reason}); {DOWNLOAD_AGAIN}") from error
        spans.append((begin, end, name))
    expected = 0
    for begin, end, name in sorted(spans):
        if begin != expected:
            raise Dav2Error(f"{path}: {shown(name)} overlaps or leaves a gap to the tensor before; {DOWNLOAD_AGAIN}")
        expected = end
    if start + expected > size:
        raise Dav2Error(f"{path}: is cut off ({size} of {start + expected} bytes); {DOWNLOAD_AGAIN}")
    if start + expected < size:
        raise Dav2Error(f"{path}: has {size - start - expected} bytes after its last tensor; {DOWNLOAD_AGAIN}")
    if not tensors:
        raise Dav2Error(f"{path}: holds no tensors")
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return tensors, {key: value for key, value in texts if isinstance(value, str)}


def json_object(path: Path, text: bytes) -> dict:
    """`text`, the JSON of `path`, which must be an object without a name twice; Dav2Error otherwise."""

    def unique(pairs: list) -> dict:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Dav2Error(f"{path}: its JSON is broken ({shown(str(error))}); {DOWNLOAD_AGAIN}") from error
    if not isinstance(content, dict):
        raise Dav2Error(f"{path}: its JSON is not an object; {DOWNLOAD_AGAIN}")
    return content
