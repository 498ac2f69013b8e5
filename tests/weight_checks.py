"""What every test of a weights file asserts: the same tensors bit for bit, or one Dav2Error line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dav2_jax.convert.torch_file import open_weights
from dav2_jax.errors import Dav2Error


def bits(array: np.ndarray | torch.Tensor) -> bytes:
    if isinstance(array, torch.Tensor):
        array = array.detach().contiguous()
        return bytes(array.reshape(-1).view(torch.uint8).numpy().tobytes()) if array.numel() else b""
    return array.tobytes()


def read_all(path) -> dict[str, np.ndarray]:
    return {name: tensor.read() for name, tensor in open_weights(path).items()}


def assert_same(path, expected: dict[str, torch.Tensor]) -> None:
    """The file holds exactly these tensors in this order, and reads as fresh arrays of the same bits."""
    stored = open_weights(path)
    assert list(stored) == list(expected)
    for name, tensor in expected.items():
        array = stored[name].read()
        assert array.shape == stored[name].shape == tuple(tensor.shape), name
        assert array.dtype == stored[name].dtype, name
        assert str(array.dtype) == str(tensor.dtype).removeprefix("torch."), name
        assert array.flags.owndata, name
        assert array.flags.c_contiguous, name
        assert array.flags.writeable, name
        assert bits(array) == bits(tensor), name


def assert_refused(path, *words: str, where: Path | None = None) -> None:
    """Reading all of `path` ends in one Dav2Error line about `where`, by default the path, with all `words` in it."""
    with pytest.raises(Dav2Error) as caught:
        read_all(path)
    message = str(caught.value)
    assert message.startswith(f"{where or path}: "), message
    assert "\n" not in message, message
    assert len(message) < 500, message
    for word in words:
        assert word in message, message


def outcome(path: Path) -> dict[str, np.ndarray] | None:
    """What a file damaged by chance may end in: arrays, or None after one line."""
    try:
        return read_all(path)
    except Dav2Error as error:
        message = str(error)
    assert "\n" not in message, message
    return None
