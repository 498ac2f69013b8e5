"""What the writers write, torch.load and the safetensors library read, bit for bit; and no half file is ever left."""

import json
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from dav2_jax.convert.stored_tensor import StoredTensor
from dav2_jax.convert.torch_file import open_weights
from dav2_jax.convert.torch_writer import write_safetensors, write_torch_file
from dav2_jax.errors import Dav2Error

TORCH_DTYPES = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]
WRITERS = [write_torch_file, write_safetensors]


def random_array(dtype: str, *shape: int) -> np.ndarray:
    dtype = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    generator = np.random.default_rng(len(shape))
    if dtype == np.bool_:
        return generator.random(shape) > 0.5
    return np.frombuffer(generator.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


def samples() -> dict[str, np.ndarray]:
    """Every dtype of a torch file in several shapes, one of them not contiguous."""
    arrays = {}
    for dtype in TORCH_DTYPES:
        arrays |= {
            f"{dtype}.{shape}": random_array(dtype, *shape) for shape in [(3, 5), (), (0, 4), (1, 2, 3, 4), (7,)]
        }
        arrays[f"{dtype}.transposed"] = random_array(dtype, 3, 5).T
    return arrays


def stored(arrays: dict[str, np.ndarray]) -> dict[str, StoredTensor]:
    return {name: StoredTensor.of(array) for name, array in arrays.items()}


def assert_equal(tensor: torch.Tensor, array: np.ndarray) -> None:
    assert tuple(tensor.shape) == array.shape
    assert str(tensor.dtype).removeprefix("torch.") == str(array.dtype)
    assert tensor.is_contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    assert raw == array.tobytes()


@pytest.mark.parametrize("options", [{}, {"weights_only": True}, {"mmap": True}, {"weights_only": False}])
def test_torch_load_reads_it(tmp_path, options):
    arrays = samples()
    write_torch_file(tmp_path / "a.pth", stored(arrays))
    loaded = torch.load(tmp_path / "a.pth", **options)
    assert type(loaded).__name__ == "OrderedDict"
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert_equal(loaded[name], array)


def test_torch_finds_the_storages_without_reading(tmp_path):
    arrays = samples()
    write_torch_file(tmp_path / "a.pth", stored(arrays))
    for tensor in torch.load(tmp_path / "a.pth", map_location="meta").values():
        assert tensor.untyped_storage()._checkpoint_offset % 64 == 0


def test_module_takes_the_file(tmp_path):
    source = torch.nn.Conv2d(3, 4, 2)
    arrays = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
    write_torch_file(tmp_path / "a.pth", stored(arrays))
    target = torch.nn.Conv2d(3, 4, 2)
    assert str(target.load_state_dict(torch.load(tmp_path / "a.pth"))) == "<All keys matched successfully>"
    assert torch.equal(target.weight, source.weight)


def test_torch_layout(tmp_path):
    write_torch_file(tmp_path / "a.pth", stored(samples()))
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        assert archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/version") == b"3\n"
        assert max(map(len, [archive.read(name) for name in names if "/data/" in name])) == 8 * 24
    assert names[0] == "archive/data.pkl"
    assert len(names) == 3 + len(samples())


def test_zip64(tmp_path, monkeypatch):
    """The structures of files beyond 4 GiB, by a limit of 30 bytes instead: sizes and offsets both go there."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 30)
    arrays = {"small": np.arange(7, dtype=np.int8), "large": np.arange(99.0), "end": np.arange(3, dtype=np.float16)}
    write_torch_file(tmp_path / "a.pth", stored(arrays))
    assert (tmp_path / "a.pth").read_bytes().count(b"PK\x06\x06") == 1  # the zip64 end of the directory
    for options in [{}, {"mmap": True}]:
        loaded = torch.load(tmp_path / "a.pth", **options)
        for name, array in arrays.items():
            assert_equal(loaded[name], array)
    offsets = [
        t.untyped_storage()._checkpoint_offset for t in torch.load(tmp_path / "a.pth", map_location="meta").values()
    ]
    assert [offset % 64 for offset in offsets] == [0, 0, 0]
    read = open_weights(tmp_path / "a.pth")
    assert all((read[name].read() == array).all() for name, array in arrays.items())


def test_safetensors_file_is_the_library_s(tmp_path):
    arrays = {name: np.ascontiguousarray(array) for name, array in samples().items()}
    arrays |= {f"uint{bits}": random_array(f"uint{bits}", 3) for bits in (16, 32, 64)}
    arrays['é"\\\n'] = np.ones(3, np.float32)
    write_safetensors(tmp_path / "ours", stored(arrays), metadata={"format": "pt"})
    safetensors.numpy.save_file(arrays, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    loaded = safetensors.torch.load_file(tmp_path / "ours")
    for name, array in arrays.items():
        assert_equal(loaded[name], array)
    with safetensors.safe_open(tmp_path / "ours", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_safetensors_without_metadata(tmp_path):
    write_safetensors(tmp_path / "a", stored({"a": np.ones(3, np.int8)}))
    raw = (tmp_path / "a").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert (8 + length) % 8 == 0
    assert json.loads(raw[8 : 8 + length]) == {"a": {"dtype": "I8", "shape": [3], "data_offsets": [0, 3]}}


@pytest.mark.parametrize("write", WRITERS)
def test_round_trip_and_same_bytes(tmp_path, write):
    arrays = samples()
    write(tmp_path / "a", stored(arrays))
    write(tmp_path / "b", open_weights(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = open_weights(tmp_path / "b")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].read().tobytes() == array.tobytes()


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_can_be_rewritten_in_place(tmp_path, write):
    write(tmp_path / "a", stored({"a": np.arange(5.0), "b": np.arange(3.0)}))
    weights = open_weights(tmp_path / "a")
    write(tmp_path / "a", {"b": weights["b"], "c": weights["a"]})
    assert open_weights(tmp_path / "a")["c"].read().tolist() == [0, 1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_torch_file_large_numbers_in_the_pickle(tmp_path):
    """Shapes beyond 31 bits, of a tensor without elements so that the file stays small."""
    write_torch_file(tmp_path / "a.pth", stored({"a": np.empty((0, 1 << 33, 5), np.int8)}))
    assert tuple(torch.load(tmp_path / "a.pth")["a"].shape) == (0, 1 << 33, 5)
    assert open_weights(tmp_path / "a.pth")["a"].shape == (0, 1 << 33, 5)


# ---- failure leaves what was there


def failing(error: BaseException) -> dict[str, StoredTensor]:
    def read():
        raise error

    first = {f"{i}": StoredTensor.of(np.ones(100_000)) for i in range(3)}
    return first | {"last": StoredTensor((2,), np.dtype(np.float32), read)}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("error", [Dav2Error("damaged"), KeyboardInterrupt(), RuntimeError("bug")])
def test_a_failed_read_leaves_the_old_file(tmp_path, write, error):
    (tmp_path / "a").write_text("old")
    with pytest.raises(type(error)):
        write(tmp_path / "a", failing(error))
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk(tmp_path, write):
    with pytest.raises(Dav2Error, match=r"a: cannot be written \(No space left"):
        write(tmp_path / "a", failing(OSError(28, "No space left on device")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_places_that_cannot_be_written(tmp_path, write):
    with pytest.raises(Dav2Error, match="cannot be written"):
        write(tmp_path / "none" / "a", stored({"a": np.ones(2)}))
    (tmp_path / "folder").mkdir()
    with pytest.raises(Dav2Error, match="cannot be written"):
        write(tmp_path / "folder", stored({"a": np.ones(2)}))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "no tensors"),
        ({"a": StoredTensor.of(np.ones(2, np.complex64))}, "a is complex64"),
        ({"a": StoredTensor.of(np.ones(2, ">f4"))}, "a is >f4"),
        (
            {"a": StoredTensor((3,), np.dtype(np.float32), lambda: np.ones(2, np.float32))},
            r"announced as float32 \(3,\)",
        ),
        ({"a": StoredTensor((2,), np.dtype(np.float32), lambda: np.ones(2))}, "but is float64"),
        ({"\ud800": StoredTensor.of(np.ones(2))}, "not valid text"),
    ],
)
def test_refused_tensors(tmp_path, write, tensors, words):
    with pytest.raises(Dav2Error, match=words) as caught:
        write(tmp_path / "a", tensors)
    assert str(caught.value).startswith(f"{tmp_path / 'a'}: ")
    assert not list(tmp_path.iterdir())


def test_names_and_dtypes_of_one_format_only(tmp_path):
    with pytest.raises(Dav2Error, match="uint16, which a torch file cannot hold"):
        write_torch_file(tmp_path / "a", stored({"a": np.ones(2, np.uint16)}))
    with pytest.raises(Dav2Error, match="__metadata__"):
        write_safetensors(tmp_path / "a", stored({"__metadata__": np.ones(2)}))


@pytest.mark.parametrize("write", WRITERS)
def test_peak_memory_is_one_tensor(tmp_path, write):
    tensors = {
        str(i): StoredTensor((1 << 20,), np.dtype(np.float32), lambda: np.ones(1 << 20, np.float32)) for i in range(8)
    }
    tracemalloc.start()
    try:
        write(tmp_path / "a", tensors)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * (4 << 20)
