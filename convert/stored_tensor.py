"""A tensor that still lies in its file, and the dtypes that PyTorch and safetensors have names for.

Files are read with seek, never mapped, because mapped pages count as resident: reading 2048 MiB in 64 MiB tensors
raised the peak by 64 MiB so and by 2112 MiB with the safetensors library (ru_maxrss, fresh process).
"""

import io
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from dav2_jax.errors import Dav2Error

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# What each storage class of torch, and each dtype name of safetensors, holds. The writer reads these tables backwards.
TORCH_STORAGES = {
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": BFLOAT16,
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
    "torch.storage.UntypedStorage": np.dtype(np.uint8),
}
SAFETENSORS_DTYPES = {  # in the order in which the safetensors library lays tensors out
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "BF16": BFLOAT16,
    "F16": np.dtype(np.float16),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}

# What weights may be stored in.
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
FLOATS = {np.dtype(dtype) for dtype in DTYPES.values()}

HEADER_LIMIT = 16 << 20  # bytes of a zip directory or of JSON: 100,000 tensors
DOWNLOAD_AGAIN = "download it again"  # the advice at the end of a message
_DIMS_LIMIT = 64  # NumPy's own
_CHUNK = 16 << 20  # bytes a read and its checksum take at once
_EXPANDED_LIMIT = 64 << 20  # bytes of a tensor larger than its storage (expand()); the giant's largest has 50 MB


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that still lies in its file. `read()` gives a fresh, owned, C-contiguous array of `shape` and `dtype`.

    `read` may be called from several threads, and any number of times. It raises Dav2Error when the bytes are damaged.
    """

    shape: tuple[int, ...]
    dtype: np.dtype  # bfloat16 is ml_dtypes.bfloat16
    read: Callable[[], np.ndarray]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """`np.asarray(tensor)` reads it."""
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    @classmethod
    def of(cls, array: np.ndarray) -> "StoredTensor":
        """The same face for an array that is in memory, for the writers."""
        return cls(array.shape, array.dtype, lambda: np.array(array, order="C"))


class Storage:
    """A run of `count` elements in a file, which one safetensors tensor is and several torch tensors may view."""

    def __init__(self, path: Path, start: int, count: int, dtype: np.dtype, crc: int = 0):
        self.path, self.start, self.count, self.dtype = path, start, count, dtype
        self.crc = crc  # 0: none recorded, as in safetensors or with torch.serialization.set_crc32_options(False)
        self.checked = crc == 0

    def tensor(self, shape: tuple, strides: tuple | None = None, offset: int = 0) -> StoredTensor:
        """The tensor at `offset`; strides in elements, None for C order. ValueError if it leaves the storage."""
        if len(shape) > _DIMS_LIMIT or any(type(size) is not int or size < 0 for size in shape):
            raise ValueError("a tensor has an impossible shape")
        # NumPy multiplies the non-zero sizes of an empty array too.
        if math.prod(size or 1 for size in shape) >= 1 << 48:
            raise ValueError(f"a tensor of shape {shown(shape)} is larger than its file")
        row_major = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        strides = row_major if strides is None else strides
        if len(strides) != len(shape) or any(type(step) is not int or step < 0 for step in (*strides, offset)):
            raise ValueError(f"a tensor of shape {shown(shape)} has impossible strides or offset")
        size = math.prod(shape)
        span = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if size else 0
        expanded = size > self.count and size * self.dtype.itemsize > _EXPANDED_LIMIT  # memory beyond the file's size
        if expanded or (size and offset + span > self.count):
            raise ValueError(f"a tensor of shape {shown(shape)} does not fit its storage of {self.count} elements")
        if all(n == 1 or a == b for n, a, b in zip(shape, strides, row_major, strict=True)) or not size:
            strides = None
        return StoredTensor(shape, self.dtype, lambda: self._read(shape, strides, offset if size else 0, span))

    def viewed_as(self, dtype: np.dtype) -> "Storage":
        """The same bytes as elements of another dtype."""
        size = self.count * self.dtype.itemsize
        if size % dtype.itemsize:
            raise ValueError(f"a storage of {size} bytes does not divide into {dtype}")
        return Storage(self.path, self.start, size // dtype.itemsize, dtype, self.crc)

    def _read(self, shape: tuple, strides: tuple | None, offset: int, span: int) -> np.ndarray:
        array = np.empty(shape if strides is None else span, self.dtype)
        whole = span == self.count
        try:
            with self.path.open("rb") as file:  # opened for each read: that is what makes threads safe
                if not self.checked and not whole:  # the checksum is the storage's, so all of it passes by once
                    file.seek(self.start)
                    self._check(_scan(file, self.count * self.dtype.itemsize))
                file.seek(self.start + offset * self.dtype.itemsize)
                crc = _fill(file, array.reshape(-1).view(np.uint8))
                if self.crc and whole:
                    self._check(crc)
        except (OSError, EOFError) as error:
            raise Dav2Error(f"{self.path}: cannot be read to its end ({error}); was it changed or moved?") from error
        if strides is None:
            return array
        steps = tuple(step * self.dtype.itemsize for step in strides)
        view = np.lib.stride_tricks.as_strided(array, shape, steps, writeable=False)
        return np.array(view, order="C")

    def _check(self, crc: int) -> None:
        if crc != self.crc:
            raise Dav2Error(f"{self.path}: its content is damaged (checksum of a tensor differs); {DOWNLOAD_AGAIN}")
        self.checked = True


def _fill(file: io.BufferedIOBase, content: np.ndarray) -> int:
    """Fills uint8 `content` from the file and returns its CRC-32. EOFError if the file ends before."""
    crc = 0
    for start in range(0, content.size, _CHUNK):
        piece = memoryview(content[start : start + _CHUNK])
        if file.readinto(piece) != len(piece):
            raise EOFError("the file ends early")
        crc = zlib.crc32(piece, crc)
    return crc


def _scan(file: io.BufferedIOBase, size: int) -> int:
    """The CRC-32 of the next `size` bytes, which are not kept."""
    crc = 0
    while size:
        piece = file.read(min(size, 1 << 20))
        if not piece:
            raise EOFError("the file ends early")
        crc, size = zlib.crc32(piece, crc), size - len(piece)
    return crc


def shown(value: object) -> str:
    """Text, a number or a checked shape of the file for a one-line message: printable and short."""
    text = ascii(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def refuse_nonfinite(where: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises a Dav2Error that names the tensors with NaN or infinity and counts them; one pass over each tensor.

    where:  the file, for the message
    arrays: name -> floats of any dtype; JAX arrays too, which on a CPU are not copied
    """
    wrong = []
    for name, array in arrays.items():
        array = np.asarray(array)
        # A sum in double precision is finite exactly where all of it is, up to float32; it needs no array of its own.
        if array.dtype.itemsize <= 4 and np.isfinite(np.sum(array, dtype=np.float64)):
            continue
        nans, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        counts = [f"{count} {what}" for count, what in ((nans, "NaN"), (infinite, "infinite")) if count]
        if counts:
            wrong.append(f"{name} ({' and '.join(counts)} of {array.size})")
    if wrong:
        raise Dav2Error(
            f"{where}: the weights hold NaN or infinity in {len(wrong)} of {len(arrays)} tensors: {listed(wrong)}; "
            "its training diverged or the file is damaged: take an earlier checkpoint"
        )


def listed(names: Iterable[str], *, most: int = 4, quote: bool = False) -> str:
    """The first few names, printable and short, and how many more there are: a file may hold thousands."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    texts = [shown(name) for name in names[:most]]
    return ", ".join(text if quote else text[1:].removesuffix(text[0]) for text in texts) + more
