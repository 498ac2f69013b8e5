"""The wrappings in which people's checkpoints come: the same weights out of each, and what to pass where it is open."""

import argparse
import collections
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import seeded
import torch

from dav2_jax.convert.recognize import Overrides
from dav2_jax.convert.torch_file import open_weights
from dav2_jax.errors import Dav2Error
from dav2_jax.weights.load import load_weights

RELATIVE = Overrides("relative", None, "v2")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """The official state dict of a small network, in half precision; what is large is one zero, expanded."""
    arrays = seeded.state_dict("nano")
    small = {name: torch.from_numpy(array).half() for name, array in arrays.items() if array.size < 5000}
    return {n: small[n] if n in small else torch.zeros(1).half().expand(a.shape) for n, a in arrays.items()}


def plus_one(state: dict) -> dict:
    """Weights that differ in all that is small."""
    return {name: tensor + 1 if tensor.numel() < 5000 else tensor for name, tensor in state.items()}


def save(content: dict, path) -> None:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)


def named(state: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def chunked(state: dict, encoder: str = "pretrained.") -> dict:
    """With DINOv2's block_chunks=2, as Distill-Any-Depth's large model has it."""

    def name(official: str) -> str:
        part, _, rest = official.partition("blocks.")
        index = rest.partition(".")[0]
        return (f"{part}blocks.{int(index) // 3}.{rest}" if index else official).replace("pretrained.", encoder)

    return {name(official): tensor for official, tensor in state.items()}


def assert_same(path, state: dict, told=RELATIVE, **options):
    """The file opens as exactly these official tensors; gives the provenance."""
    tensors = open_weights(path, **options)
    assert set(tensors) == set(state)
    for name, tensor in state.items():
        assert tensors[name].shape == tuple(tensor.shape), name
        if tensor.numel() < 5000:
            assert tensors[name].read().tobytes() == tensor.contiguous().numpy().tobytes(), name
    return load_weights(path, told._replace(**options)).provenance


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module._orig_mod.", "model.", "net.", "module.", "model._orig_mod.", "module.model.depth_net."],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes(tmp_path, state, prefix, suffix):
    path = tmp_path / f"a{suffix}"
    save(named(state, prefix), path)
    provenance = assert_same(path, state)
    shown = prefix.replace("model._orig_mod.", "model.")
    notes = f"dropped the prefix '{shown}'" if "model" in prefix or "net" in prefix else None
    assert provenance.get("notes") == notes
    assert_same(path, state, prefix=prefix)
    assert_same(path, state, prefix=prefix.rstrip("."))
    with pytest.raises(Dav2Error, match=r"no network under the prefix 'teacher' \(its tensors: \S+(pretrained|head)"):
        open_weights(path, prefix="teacher")


def test_wrappers_inside_names(tmp_path, state):
    """torch.compile of the encoder alone, activation checkpoints of FSDP around each block."""

    def name(official: str) -> str:
        return official.replace("pretrained.", "pretrained._orig_mod.").replace(
            ".attn.", "._checkpoint_wrapped_module.attn."
        )

    torch.save({name(official): tensor for official, tensor in state.items()}, tmp_path / "a.pth")
    assert_same(tmp_path / "a.pth", state)


@pytest.mark.parametrize(
    ("path", "note"),
    [
        ("model", None),
        ("state_dict", None),
        *(
            (path, f"took the weights under '{path}'")
            for path in ("model_state_dict", "model_ema", "params_ema", "ema", "net", "teacher", "checkpoint.model.0")
        ),
    ],
)
def test_entries(tmp_path, state, path, note):
    """Each beside an optimizer, whose moments are tensors too."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    content = named(state, "module.")
    for key in reversed(path.split(".")):
        content = [content] if key == "0" else {key: content}
    torch.save(content | {"optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    provenance = assert_same(tmp_path / "a.pth", state)
    assert provenance.get("notes") == note
    assert provenance["entry"] == path
    assert_same(tmp_path / "a.pth", state, entry=path)
    assert_same(tmp_path / "a.pth", state, entry=path.partition(".")[0])
    with pytest.raises(Dav2Error, match=rf"no tensors under entry 'none'; entries with tensors: '{path}', 'optimizer"):
        open_weights(tmp_path / "a.pth", entry="none")


def test_several_entries_are_a_choice(tmp_path, state):
    ema = plus_one(state)
    torch.save({"model": state, "model_ema": {"n": 5, "module": ema}, "epoch": 2}, tmp_path / "a.pth")
    with pytest.raises(
        Dav2Error, match=r"2 sets of weights: 'model', 'model_ema\.module'; choose .* entry='model_ema\.module'"
    ):
        load_weights(tmp_path / "a.pth", RELATIVE)
    assert_same(tmp_path / "a.pth", state, entry="model")
    provenance = assert_same(tmp_path / "a.pth", ema, entry="model_ema")
    assert provenance["notes"] == "took the weights under 'model_ema.module'"
    torch.save({"model": state, "state_dict": state}, tmp_path / "a.pth")  # one dict under two names is one
    assert_same(tmp_path / "a.pth", state)


def test_several_prefixes_are_a_choice(tmp_path, state):
    """What a training module holds that is saved whole: student, teacher, a frozen encoder, a loss."""
    teacher = plus_one(state)
    frozen = {name: tensor for name, tensor in state.items() if name.startswith("pretrained.")}
    rest = named(frozen, "features.") | {"loss.weight": torch.ones(2)}
    torch.save({"state_dict": named(state, "student.") | named(teacher, "teacher.") | rest}, tmp_path / "a.ckpt")
    with pytest.raises(
        Dav2Error, match=r"2 networks, under the prefixes 'student\.', 'teacher\.'; .*prefix='teacher\.'"
    ):
        open_weights(tmp_path / "a.ckpt")
    notes = assert_same(tmp_path / "a.ckpt", teacher, prefix="teacher")["notes"]
    left = len(state) + len(frozen) + 1
    assert notes.startswith(f"dropped the prefix 'teacher.'; left out {left} tensors beside the network: student.")
    torch.save({"state_dict": named(state, "student.") | rest}, tmp_path / "a.ckpt")
    assert_same(tmp_path / "a.ckpt", state)
    encoder = {name.removeprefix("pretrained."): tensor for name, tensor in frozen.items()}
    told = assert_same(tmp_path / "a.ckpt", encoder, Overrides(), prefix="features.pretrained")
    assert told["names"] == "dinov2"


class Config(dict):
    """A class of someone's own, which a file may name and nobody imports."""

    def __setstate__(self, state):
        raise AssertionError("ran")

    def __reduce_ex__(self, protocol):
        return Config, ({"lr": 1e-3},), {"secret": 1}, iter([1]), iter([("a", 1)])


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_objects_beside_the_tensors_are_skipped(tmp_path, state, protocol):
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.note = "attributes"
    extra = {
        "counter": collections.Counter("aab"),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "device": torch.device("cuda:0"),
        "dtype": torch.float16,
        "set": {1, 2},
        "frozenset": frozenset("ab"),
        "bytes": b"ab\xff",
        "bytearray": bytearray(b"x"),
        "namespace": argparse.Namespace(lr=1e-3, nested=argparse.Namespace()),
        "scalar": np.float64(2.0),
        "array": np.arange(5),
        "random": np.random.get_state(),  # noqa: NPY002 (what training scripts save)
        "generator": torch.Generator().get_state(),
        "complex": 1j,
        "range": slice(1, 2),
        "large": 1 << 5000,
        "config": Config(),
        "keys": {1.5: 1, (1, 2): 3, None: 2, b"x": 1, torch.float16: 3, frozenset(): 4, True: 5},
        "dtypes": [torch.ones(2, dtype=torch.uint16), torch.ones(2, dtype=torch.complex64).conj(), parameter],
        "others": [torch.ones(2, device="meta"), torch.eye(2).to_sparse(), torch.nn.Buffer(torch.ones(2))],
    }
    torch.save({"model": state, **extra}, tmp_path / "a.pth", pickle_protocol=protocol)
    assert "notes" not in assert_same(tmp_path / "a.pth", state)
    del extra["dtypes"], extra["others"], extra["generator"]
    torch.save(state | extra, tmp_path / "a.pth", pickle_protocol=protocol)
    notes = assert_same(tmp_path / "a.pth", state)["notes"]
    start = f"skipped {len(extra)} entries that are no tensors: counter (a collections.Counter), defaultdict (a dict), "
    assert notes.startswith(start + "device (a torch.device), dtype (the name torch.float16) and ")


def test_parameters_and_buffers(tmp_path, state):
    """What state_dict(keep_vars=True) saves, and tensors whose values are one number, repeated by expand()."""
    kept = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
    kept["pretrained.mask_token"] = torch.nn.Buffer(torch.tensor(0.25).half().expand(1, 192))
    kept["pretrained.blocks.0.ls1.gamma"] = torch.tensor(1e-5).half().expand(192)
    kept["pretrained.norm.weight"].note = "an attribute"
    torch.save(kept, tmp_path / "a.pth")
    assert_same(tmp_path / "a.pth", {name: tensor.detach() for name, tensor in kept.items()})


@pytest.mark.parametrize("encoder", ["pretrained.", "backbone."])
def test_chunked_blocks(tmp_path, state, encoder):
    save(chunked(state, encoder), tmp_path / "model.safetensors")
    assert "notes" not in assert_same(tmp_path / "model.safetensors", state)
    folder = tmp_path / "Distill-Any-Depth" / "large"
    folder.mkdir(parents=True)
    shutil.move(tmp_path / "model.safetensors", folder)
    weights = load_weights(folder / "model.safetensors")  # its repository's name says what it is
    assert (weights.config.kind, weights.config.taps) == ("relative", (1, 2, 4, 5))
    assert weights.license == "not stated by the source"


def test_self_supervised_teacher(tmp_path, state):
    """Of DINOv2's own training: chunked, with its heads beside."""
    encoder = {n.removeprefix("pretrained."): t for n, t in state.items() if n.startswith("pretrained.")}
    content = named(chunked(encoder), "backbone.") | {"dino_head.mlp.0.weight": torch.ones(2, 2)}
    torch.save({"teacher": content}, tmp_path / "teacher_checkpoint.pth")
    provenance = assert_same(tmp_path / "teacher_checkpoint.pth", encoder, Overrides())
    assert provenance["notes"] == (
        "took the weights under 'teacher'; dropped the prefix 'backbone.'; "
        "left out 1 tensors beside the network: dino_head.mlp.0.weight"
    )
    assert provenance["names"] == "dinov2"


def test_mask_token_is_filled_in(tmp_path, state, capsys):
    """Some code deletes it, as inference never reads it."""
    without = {name: tensor for name, tensor in state.items() if name != "pretrained.mask_token"}
    torch.save(named(without, "module."), tmp_path / "a.pth")
    zeros = torch.zeros(1, 192).half()
    notes = assert_same(tmp_path / "a.pth", without | {"pretrained.mask_token": zeros})["notes"]
    assert notes == "pretrained.mask_token is missing; filled with zeros, as inference never reads it"
    assert capsys.readouterr().err == f"{tmp_path / 'a.pth'}: note: {notes}\n"


@pytest.mark.parametrize(
    ("prefix", "extra", "network"),
    [
        ("", "head.motion_modules.0.temporal_transformer.norm.weight", "Video Depth Anything"),
        ("", "depth_head.scratch.refinenet4.resConfUnit_depth.0.weight", "Prompt Depth Anything"),
        ("core.core.", "seed_bin_regressor._net.0.weight", "metric model of Depth Anything V1"),
        ("", "depth_head.readout_projects.0.0.weight", "use_clstoken"),
        ("", "depth_head.scratch.refinenet1.resConfUnit1.bn1.weight", "use_bn"),
        ("", "pretrained.blocks.0.attn.qkv.lora_A.weight", "LoRA"),
        ("", "pretrained.register_tokens", "registers"),
        (None, "encoder.patch_encoder.cls_token", "Depth Pro"),
        (None, "pretrained.layer1.0.weight", "MiDaS"),
        (None, "neck.fusion_stage.layers.0.prompt_depth_layer.convolution1.weight", "Prompt Depth Anything"),
    ],
)
def test_other_networks_are_named(tmp_path, state, prefix, extra, network):
    content = {} if prefix is None else named(state, prefix)
    torch.save({"model": content | {extra: torch.ones(2)}}, tmp_path / "a.pth")
    with pytest.raises(Dav2Error) as error:
        load_weights(tmp_path / "a.pth", RELATIVE)
    message = str(error.value).removeprefix(f"{tmp_path / 'a.pth'}: ")
    assert network in message
    assert f"(by its tensor '{extra}'), which is not read here" in message
    assert len(message) < 250
    if prefix:
        assert_same(tmp_path / "a.pth", state, prefix=prefix)  # its part of our kind, for those who ask for it


def test_a_name_twice(tmp_path, state):
    torch.save(state | {"pretrained._orig_mod.cls_token": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(
        Dav2Error, match=r"two of its tensors are 'pretrained\.cls_token' once torch's wrappers are off"
    ):
        open_weights(tmp_path / "a.pth")
    torch.save(chunked(state) | {"pretrained.blocks.0.norm1.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(Dav2Error, match=r"are 'pretrained\.blocks\.0\.norm1\.weight' once the prefixes are off"):
        open_weights(tmp_path / "a.pth")


def test_hugging_face_folders(tiny_hf, tmp_path):
    """A prefix in front of its names; sizes as pairs; no mask_token; one file of another name; a clone, a cache."""
    source = tiny_hf("metric")
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    del tensors["backbone.embeddings.mask_token"]
    folder = tmp_path / "clone"
    folder.mkdir()
    safetensors.torch.save_file(named(tensors, "model."), folder / "weights.fp16.safetensors")
    config = json.loads((source / "config.json").read_text())
    config["backbone_config"] |= {"image_size": [518, 518], "patch_size": [14, 14]}
    config["max_depth"] = None
    (folder / "config.json").write_text(json.dumps(config | {"patch_size": [14, 14]}))
    with pytest.raises(
        Dav2Error, match=r"config\.json: a metric model that does not say its depth range: pass max_depth=METRES"
    ):
        load_weights(folder)
    weights = load_weights(folder, Overrides(max_depth=20.0))
    original = load_weights(source)
    assert weights.config == original.config
    assert "mask_token is missing" in weights.provenance["notes"]
    found, expected = weights.flat, original.flat
    mask = found.pop("pretrained.mask_token")
    assert not np.asarray(mask).any()
    assert mask.shape == expected.pop("pretrained.mask_token").shape
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)

    cache = tmp_path / "models--depth-anything--Depth-Anything-V2-Small-hf"
    shutil.copytree(folder, cache / "snapshots" / "abc")
    assert load_weights(cache, Overrides(max_depth=20.0)).config == original.config
    (cache / "snapshots" / "def").mkdir()
    with pytest.raises(Dav2Error, match="holds 2 snapshots"):
        load_weights(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc\n")
    assert load_weights(cache, Overrides(max_depth=20.0)).config == original.config


def test_clones_of_official_repositories(tmp_path, state):
    """One weights file under its released name, beside a model card; the folder has any name."""
    torch.save(state, tmp_path / "depth_anything_v2_vits.pth")
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    weights = load_weights(tmp_path)
    assert (weights.config.kind, weights.license) == ("relative", "Apache-2.0")
    assert len(weights.provenance["sha256"]) == 64
    folder = tmp_path / "Depth-Anything-V2-Small"
    folder.mkdir()
    shutil.copy(tmp_path / "depth_anything_v2_vits.pth", folder / "model.pt")
    assert load_weights(folder).config.kind == "relative"
    (folder / "model.pt").rename(folder / "latest.pt")  # someone's training in the same folder: metric, for all we know
    with pytest.raises(Dav2Error, match="neither its tensors nor its name say whether it is relative or metric"):
        load_weights(folder)
    shutil.copy(tmp_path / "depth_anything_v2_vits.pth", tmp_path / "other.pt")
    with pytest.raises(Dav2Error, match=r"2 files that could be meant \('depth_anything_v2_vits\.pth', 'other\.pt'\)"):
        load_weights(tmp_path)
