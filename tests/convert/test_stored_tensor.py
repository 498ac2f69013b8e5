"""A stored tensor reads as torch and safetensors wrote it: any dtype, any view, from any thread, one at a time."""

import random
import struct
import threading
import tracemalloc

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from weight_checks import assert_same

from dav2_jax.convert.stored_tensor import StoredTensor, refuse_nonfinite
from dav2_jax.convert.torch_file import open_weights
from dav2_jax.errors import Dav2Error

DTYPES = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]


def random_tensor(dtype: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    if dtype == "bool":
        return torch.rand(shape, generator=generator) > 0.5
    width = torch.empty((), dtype=getattr(torch, dtype)).element_size()
    content = torch.randint(0, 256, (*shape, width), generator=generator, dtype=torch.uint8)
    return content.view(getattr(torch, dtype))[..., 0]  # all bit patterns, NaNs among them


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_bit_identical(tmp_path, dtype):
    tensors = {"a": random_tensor(dtype, 3, 5), "scalar": random_tensor(dtype), "empty": random_tensor(dtype, 0, 4)}
    torch.save(tensors, tmp_path / "a.pth")
    assert_same(tmp_path / "a.pth", tensors)
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    by_name = {name: tensors[name] for name in open_weights(tmp_path / "a.safetensors")}  # the library sorts
    assert_same(tmp_path / "a.safetensors", by_name)
    assert len(by_name) == 3


def test_views_of_one_storage(tmp_path):
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tensors = {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "slice": base[1:, ::2, 1:4:2],
        "tail": base.reshape(-1)[40:],
        "again": base,
        "expanded": base[0, 0, :1].expand(7),  # seven elements of a storage of sixty
        "diagonal": base[0, :, :4].diagonal(),
        "empty": base[:, 4:],
        "channels_last": base[None].contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(base.mT),
        "size_one": base[:1, 1:2],
    }
    torch.save(tensors, tmp_path / "a.pth")
    assert_same(tmp_path / "a.pth", tensors)


def test_reads_are_fresh(tmp_path):
    torch.save({"a": torch.ones(4)}, tmp_path / "a.pth")
    tensor = open_weights(tmp_path / "a.pth")["a"]
    tensor.read()[:] = 5
    assert tensor.read().tolist() == [1, 1, 1, 1]


def test_wrapped_array():
    array = np.asfortranarray(np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16))
    tensor = StoredTensor.of(array)
    assert (tensor.shape, tensor.dtype) == ((2, 3), ml_dtypes.bfloat16)
    assert tensor.read().flags.c_contiguous
    assert (tensor.read() == array).all()
    assert not np.shares_memory(tensor.read(), array)


def test_only_headers_are_read_before_read(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.full((1000,), 7.0), "b": torch.arange(1000.0)[:10]}, path)
    stored = open_weights(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<2f", 7, 7), bytes(8), 1).replace(struct.pack("<f", 999), bytes(4)))
    for tensor in stored.values():
        with pytest.raises(Dav2Error, match="damaged"):
            tensor.read()
    path.write_bytes(content[:500])
    with pytest.raises(Dav2Error, match="changed or moved"):
        stored["a"].read()
    path.write_bytes(content)
    assert stored["a"].read()[0] == 7
    path.unlink()
    with pytest.raises(Dav2Error, match="changed or moved"):
        stored["b"].read()


def test_relative_path_survives_a_change_of_folder(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    monkeypatch.chdir(tmp_path)
    stored = open_weights("a.pth")
    monkeypatch.chdir("/")
    assert stored["a"].read().tolist() == [1, 1]


def test_threads_may_read_at_once(tmp_path):
    base = torch.arange(100_000.0)
    torch.save({str(i): base[i * 1000 : (i + 1) * 1000] for i in range(100)}, tmp_path / "a.pth")
    stored, wrong = open_weights(tmp_path / "a.pth"), []

    def work(seed: int) -> None:
        for name in random.Random(seed).sample(sorted(stored), 50):
            if stored[name].read()[0] != 1000 * int(name):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_peak_memory_is_one_tensor(tmp_path, suffix):
    tensors = {str(i): torch.full((1 << 20,), float(i)) for i in range(8)}
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(tensors, tmp_path / f"a{suffix}")
    tracemalloc.start()
    try:
        for name, tensor in open_weights(tmp_path / f"a{suffix}").items():
            assert tensor.read()[-1] == int(name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * (4 << 20)


def test_weights_that_are_no_numbers():
    good = {name: np.full((3, 4), np.finfo(name).max, name) for name in ("float16", "float32", "float64")}
    good |= {"bfloat16": np.full(4, 1e38, ml_dtypes.bfloat16), "jax": jnp.ones(2), "empty": np.zeros((0, 3))}
    refuse_nonfinite("a.pth", good)
    bad = {name: array.copy() for name, array in good.items() if name not in ("jax", "empty")}
    for array in bad.values():
        array.reshape(-1)[1] = np.inf
    bad["float32"][2] = np.nan
    with pytest.raises(Dav2Error) as error:
        refuse_nonfinite("a.pth", bad | {"jax": jnp.full(2, -jnp.inf), "good": np.ones(2)})
    assert str(error.value).startswith(
        "a.pth: the weights hold NaN or infinity in 5 of 6 tensors: float16 (1 infinite of 12), float32 (4 NaN and "
        "1 infinite of 12), float64 (1 infinite of 12), bfloat16 (1 infinite of 4) and 1 more; "
    )
