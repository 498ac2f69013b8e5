"""Weights files and folders as the world has them open right; wrong files end in one line that says what they are."""

import collections
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from weight_checks import assert_refused, assert_same, bits, read_all

from dav2_jax.convert.torch_file import open_weights, read_content
from dav2_jax.errors import Dav2Error


def training_checkpoint() -> dict:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW([{"params": model[0].parameters(), "lr": 5e-6}, {"params": model[1].parameters()}])
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    wrapped = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in model.state_dict().items())
    best = {"d1": 0.5, "none": None, "flag": True, "big": 1 << 40, "list": [1, (2, 3), torch.Size((4, 5))]}
    return {"model": wrapped, "optimizer": optimizer.state_dict(), "epoch": 3, "previous_best": best}


def test_training_checkpoint(tmp_path):
    checkpoint = training_checkpoint()
    torch.save(checkpoint, tmp_path / "latest.pth")
    plain = {name.removeprefix("module."): tensor for name, tensor in checkpoint["model"].items()}
    assert_same(tmp_path / "latest.pth", plain)

    stored = read_content(tmp_path / "latest.pth").content
    assert stored["epoch"] == 3
    assert stored["previous_best"] == checkpoint["previous_best"]
    assert stored["optimizer"]["param_groups"] == checkpoint["optimizer"]["param_groups"]
    assert stored["optimizer"]["state"].keys() == {0, 1, 2, 3}
    moment = checkpoint["optimizer"]["state"][0]["exp_avg"]
    assert bits(stored["optimizer"]["state"][0]["exp_avg"].read()) == bits(moment)
    assert "module.0.weight" in stored["model"]


@pytest.mark.parametrize("entry", ["model", "state_dict"])
def test_weights_under_an_entry(tmp_path, entry):
    torch.save({entry: {"module.a": torch.ones(2), "b": torch.ones(3)}, "epoch": 1}, tmp_path / "a.ckpt")
    assert list(open_weights(tmp_path / "a.ckpt")) == ["module.a", "b"]  # not all names carry the prefix: none loses it


def test_kind_is_told_by_content(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "a.pth")
    assert read_all(tmp_path / "a.pth")["a"].tolist() == [1, 1]
    torch.save({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_all(str(tmp_path / "a.safetensors"))["a"].tolist() == [1, 1]


# ---- folders


def write_shards(folder: Path, kind: str) -> dict:
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2), "c": torch.zeros(1)}
    single = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[kind]
    stem, suffix = single.rsplit(".", 1)
    weight_map = {}
    for number, names in enumerate([["b"], ["a", "c"]], start=1):
        shard = f"{stem}-{number:05}-of-00002.{suffix}"
        part = {name: tensors[name] for name in names}
        (safetensors.torch.save_file if kind == "safetensors" else torch.save)(part, folder / shard)
        weight_map |= dict.fromkeys(names, shard)
    (folder / f"{single}.index.json").write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": weight_map}))
    return tensors


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_sharded_folder(tmp_path, kind):
    tensors = write_shards(tmp_path, kind)
    assert_same(tmp_path, tensors)


def test_single_file_folder(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    assert read_all(tmp_path)["a"].tolist() == [0, 0]
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert read_all(tmp_path)["a"].tolist() == [1, 1]


def test_folder_without_weights(tmp_path):
    assert_refused(tmp_path, "holds no weights", "model.safetensors")


def test_shards_that_do_not_fit_their_index(tmp_path):
    write_shards(tmp_path, "safetensors")
    index = tmp_path / "model.safetensors.index.json"
    good = json.loads(index.read_text())

    def refused_with(weight_map: object, *words: str) -> None:
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert_refused(tmp_path, *words, where=index)

    weight_map = good["weight_map"]
    refused_with(weight_map | {"x": weight_map["a"]}, "disagree about 1 tensors ('x')")
    refused_with({name: shard for name, shard in weight_map.items() if name != "c"}, "disagree about 1", "'c'")
    refused_with(weight_map | {"a": weight_map["b"]}, "disagree about 1", "'a'")
    refused_with(weight_map | {"x": "model-00003-of-00003.safetensors"}, "model-00003-of-00003", "1 of 3 shards")
    for outside in ["../secret", "/etc/passwd", "sub/x", "c:x", "..", "", "a\0b"]:
        refused_with(weight_map | {"x": outside}, "not a plain file name")
    for wrong in [None, {}, [], {"a": 1}, "x"]:
        refused_with(wrong, "weight_map")
    for text in ["{", "[]", "", '{"weight_map": {"a": "x", "a": "y"}}', "[" * 100_000, '{"a": 1' + "0" * 9999 + "}"]:
        index.write_text(text)
        assert_refused(tmp_path, "JSON", where=index)
    index.write_bytes(b"\xff")
    assert_refused(tmp_path, "JSON", where=index)


# ---- wrong files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty", "download it again"]),
        (b"\n <!DOCTYPE html><html>...", ["web page", "resolve/main"]),
        (b"\xef\xbb\xbf<HTML lang=en>", ["web page"]),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n",
            ["git-lfs pointer", "git lfs pull"],
        ),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", ["neither", "NUMPY"]),
        (pickle.dumps({"a": 1}), ["bare Python pickle", "refused"]),
        (b"PK", ["neither"]),
        (b"PK\x03\x04" + bytes(100), ["cut off or damaged", "104 bytes"]),
        (b"PK\x05\x06" + bytes(18), ["is a zip file but not of torch.save"]),
    ],
)
def test_files_that_are_something_else(tmp_path, content, words):
    (tmp_path / "a.pth").write_bytes(content)
    assert_refused(tmp_path / "a.pth", *words)


def test_paths_that_are_no_file(tmp_path):
    assert_refused(tmp_path / "none.pth", "no such file")
    os.mkfifo(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "not a regular file")


def test_format_before_torch_1_6(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_refused(tmp_path / "a.pth", "before 1.6", "re-save it")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], ["holds a list"]),
        (torch.ones(2), ["holds a tensor"]),
        ({}, ["holds nothing"]),
        ({"epoch": 3, "lr": 0.1}, ["holds epoch (an int), lr (a float); expected named tensors"]),
        ({"model": {}}, ["holds model (a dict)"]),
        ({5: torch.ones(2)}, ["holds 5 (a tensor)"]),
        ({"a": torch.ones(2).untyped_storage()}, ["holds a (a Storage)"]),
        (
            {"a": torch.ones(2), "b": torch.ones(2, dtype=torch.complex64)},
            ["'b' is a tensor in a torch.ComplexFloatStorage, which is not read"],
        ),
        ({"a": torch.ones(2), "b": torch.ones(2, dtype=torch.complex64).conj().imag}, ["sign or conjugation pending"]),
        ({"a": torch.ones(2), "b": torch.eye(2).to_sparse()}, ["'b' is a torch._utils._rebuild_sparse_tensor"]),
        ({"a": np.float64(1)}, ["holds a (a numpy._core.multiarray.scalar)"]),
        ({"model": torch.nn.Linear(2, 2)}, ["model (a torch.nn.modules.linear.Linear)", "save model.state_dict()"]),
        (torch.nn.Linear(2, 2), ["holds a torch.nn.modules.linear.Linear", "save model.state_dict()"]),
    ],
)
def test_torch_files_without_a_state_dict(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pth")
    assert_refused(tmp_path / "a.pth", *words)


class _Evil:
    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_is_refused_by_name(tmp_path, protocol, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"weights": _Evil()}, protocol=protocol))
    with pytest.raises(Dav2Error, match=r"is a bare Python pickle that asks to run .*exec"):
        open_weights(path)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(Dav2Error, match="is a bare Python pickle; loading one can run any code"):
        open_weights(path)
