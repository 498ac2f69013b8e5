"""Every way in, every way out, and back: bit-identical, and the same depth in PyTorch."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import seeded
import torch
import transformers

import dav2_jax as dav2
from dav2_jax.convert.keymap import entries
from dav2_jax.convert.recognize import Overrides
from dav2_jax.convert.stored_tensor import StoredTensor
from dav2_jax.convert.torch_file import open_weights
from dav2_jax.convert.torch_writer import write_safetensors, write_torch_file
from dav2_jax.convert.verify import verify
from dav2_jax.errors import Dav2Error
from dav2_jax.image.preprocess import preprocess
from dav2_jax.model.config import PRESETS
from dav2_jax.weights import checkpoint
from dav2_jax.weights.convert import convert
from dav2_jax.weights.load import load_weights


def tensors(path) -> dict[str, np.ndarray]:
    return {name: tensor.read() for name, tensor in open_weights(path).items()}


def shapes(config) -> dict[str, tuple[int, ...]]:
    return {entry.official: entry.torch_shape for entry in entries(config)}


def assert_identical(one: dict, other: dict):
    assert set(one) == set(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        assert array.tobytes() == other[name].tobytes(), name


def stored(arrays: dict) -> dict[str, StoredTensor]:
    return {name: StoredTensor.of(array) for name, array in arrays.items()}


def test_official_there_and_back(small_pth, tmp_path):
    convert(small_pth, tmp_path / "small.ckpt")
    convert(tmp_path / "small.ckpt", tmp_path / "back.pth", to="official")
    assert_identical(tensors(small_pth), tensors(tmp_path / "back.pth"))
    state = torch.load(tmp_path / "back.pth")
    original = torch.load(small_pth)
    assert list(state) == list(original)
    assert all(torch.equal(state[name], original[name]) for name in original)


def test_official_to_hugging_face_and_back(small_pth, tmp_path, photo):
    convert(small_pth, tmp_path / "hf", to="hf")
    convert(tmp_path / "hf", tmp_path / "small.ckpt")
    convert(tmp_path / "small.ckpt", tmp_path / "back.pth", to="official")
    assert_identical(tensors(small_pth), tensors(tmp_path / "back.pth"))

    model, report = transformers.AutoModelForDepthEstimation.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert type(processor).__name__.startswith("DPTImageProcessor")
    ours = dav2.load(tmp_path / "small.ckpt")
    x = processor(photo, return_tensors="pt")["pixel_values"][:, :, :518, :518]
    x = torch.nn.functional.pad(x, (0, 518 - x.shape[3], 0, 518 - x.shape[2]))  # the one size without the offset
    with torch.inference_mode():
        reference = model(x).predicted_depth.numpy()
    depth = jax.jit(ours.fn)(ours.params, x.numpy().transpose(0, 2, 3, 1))
    assert np.linalg.norm(depth - reference) / np.linalg.norm(reference) < 1e-5


@pytest.mark.parametrize(("kind", "swiglu"), [("relative", False), ("metric", True), ("encoder", True)])
def test_hugging_face_there_and_back(tiny_hf, tmp_path, kind, swiglu):
    folder = tiny_hf(kind, swiglu=swiglu)
    convert(folder, tmp_path / "ours.ckpt")
    convert(tmp_path / "ours.ckpt", tmp_path / "hf", to="hf")
    assert_identical(tensors(folder), tensors(tmp_path / "hf"))
    weights = checkpoint.load(tmp_path / "ours.ckpt")
    assert weights.config.kind == kind
    assert weights.config.max_depth == (20.0 if kind == "metric" else None)
    assert weights.config.taps == ((7, 8, 9, 10) if kind == "encoder" else (1, 4, 9, 10))
    cls = transformers.Dinov2Model if kind == "encoder" else transformers.DepthAnythingForDepthEstimation
    _, report = cls.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_a_folder_of_ours_is_not_called_as_a_file_of_pytorch(small_pth, tmp_path):
    with pytest.raises(Dav2Error, match=r"x\.pth: .*give to=official, or call it x\.ckpt"):
        convert(small_pth, tmp_path / "x.pth")


@pytest.mark.parametrize(("to", "file"), [("official", ""), ("hf", "model.safetensors")])
def test_our_own_exports_say_what_they_are(tmp_path, to, file):
    """Kind, metres, taps and license come back under any name and without flags, and PyTorch loads the file as ever."""
    seeded_state = {n: np.zeros(e, np.float16) for n, e in shapes(PRESETS["nano"]).items()}
    write_torch_file(tmp_path / "latest.pth", stored(seeded_state))
    mine = tmp_path / "mine.pt"
    convert(tmp_path / "latest.pth", mine, to=to, max_depth=35.0, taps="v1", license="MIT")
    weights = load_weights(mine / file)
    assert (weights.config.kind, weights.config.max_depth, weights.config.taps) == ("metric", 35.0, (2, 3, 4, 5))
    assert (weights.config.encoder, weights.config.input_size, weights.license) == ("nano", 210, "MIT")
    with pytest.raises(Dav2Error, match=r"max_depth=80 contradicts its own record, which says 35"):
        load_weights(shutil.copy(mine / file, tmp_path / "moved.pth"), Overrides(max_depth=80.0))
    if to == "official":
        for options in ({"weights_only": True}, {"mmap": True}, {"weights_only": False}):
            state = torch.load(mine, **options)
            assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes(PRESETS["nano"])
            holder = torch.nn.Module()
            for name, tensor in state.items():  # of the official modules only the names count for a strict load
                owner = holder
                *path, leaf = name.split(".")
                for part in path:
                    if part not in owner._modules:
                        owner.add_module(part, torch.nn.Module())
                    owner = owner._modules[part]
                owner.register_buffer(leaf, torch.ones_like(tensor))
            assert not any(holder.load_state_dict(state, strict=True))
    else:
        _, report = transformers.AutoModelForDepthEstimation.from_pretrained(mine, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]


@pytest.mark.parametrize("record", ["", "{", "[]", '{"format": 2}', '{"format": 1, "license": "x", "model": {"a": 1}}'])
def test_records_that_cannot_be_read(tmp_path, record):
    arrays = {n: np.zeros(e, np.float16) for n, e in shapes(PRESETS["nano"]).items()}
    write_torch_file(tmp_path / "a.pth", stored(arrays), record)
    with pytest.raises(Dav2Error, match=r"a\.pth: its record of kind, metres and license cannot be read"):
        load_weights(tmp_path / "a.pth")


def test_training_checkpoint(small_pth, tmp_path):
    """What the official training script writes: `model` beside the optimizer, `module.` before every name."""
    state = torch.load(small_pth)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], lr=5e-6)
    nested = {
        "model": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer": optimizer.state_dict(),
    }
    nested |= {"epoch": 3, "previous_best": {"d1": 0.9, "abs_rel": 0.1}}
    torch.save(nested, tmp_path / "latest.pth")
    with pytest.raises(Dav2Error, match=r"latest\.pth: .*max_depth=METRES.*taps=v2"):
        convert(tmp_path / "latest.pth", tmp_path / "out.ckpt")
    convert(tmp_path / "latest.pth", tmp_path / "out.ckpt", max_depth=20.0, taps="v2")
    assert checkpoint.load(tmp_path / "out.ckpt").config.max_depth == 20.0
    convert(tmp_path / "out.ckpt", tmp_path / "back.pth", to="official")
    assert_identical(tensors(small_pth), tensors(tmp_path / "back.pth"))


def test_safetensors_with_official_names(small_pth, tmp_path):
    """The layout of Distill-Any-Depth and of the safetensors that ComfyUI users have, in half precision too."""
    arrays = tensors(small_pth)
    write_safetensors(tmp_path / "model.safetensors", stored(arrays), {"format": "pt"})
    convert(tmp_path / "model.safetensors", tmp_path / "out.ckpt", kind="relative", taps="v2")
    convert(tmp_path / "out.ckpt", tmp_path / "back.pth", to="official")
    assert_identical(arrays, tensors(tmp_path / "back.pth"))
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    write_safetensors(tmp_path / "half.safetensors", stored(half))
    convert(tmp_path / "half.safetensors", tmp_path / "half.ckpt", kind="relative", taps="v2")
    convert(tmp_path / "half.ckpt", tmp_path / "half.pth", to="official")
    assert_identical(half, tensors(tmp_path / "half.pth"))


def test_sharded_hugging_face_folder(tiny_hf, tmp_path):
    folder = tiny_hf("relative")
    model = transformers.DepthAnythingForDepthEstimation.from_pretrained(folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    convert(tmp_path / "sharded", tmp_path / "out.ckpt")
    convert(tmp_path / "out.ckpt", tmp_path / "hf", to="hf")
    assert_identical(tensors(folder), tensors(tmp_path / "hf"))


def test_dinov2_backbone(tmp_path):
    """Facebook's own file: an encoder for training to start from, which cannot predict."""
    arrays = {n.removeprefix("pretrained."): a for n, a in seeded.state_dict("small").items() if "pretrained" in n}
    write_torch_file(tmp_path / "dinov2_vits14_pretrain.pth", stored(arrays))
    convert(tmp_path / "dinov2_vits14_pretrain.pth", tmp_path / "encoder.ckpt")
    weights = checkpoint.load(tmp_path / "encoder.ckpt")
    assert (weights.config.kind, weights.license) == ("encoder", "Apache-2.0")
    convert(tmp_path / "encoder.ckpt", tmp_path / "back.pth", to="official")
    assert_identical(arrays, tensors(tmp_path / "back.pth"))
    convert(tmp_path / "encoder.ckpt", tmp_path / "hf", to="hf")
    convert(tmp_path / "hf", tmp_path / "again.pth", to="official")
    assert_identical(arrays, tensors(tmp_path / "again.pth"))
    model = dav2.load(tmp_path / "encoder.ckpt")
    photo = seeded.photo(28, 42)
    assert [tap.shape for tap in model.features(photo, input_size=28)] == [(2, 3, 384)] * 4
    for predict in (model.predict, model.stream, lambda photos: model.predict_batch(np.stack(photos))):
        with pytest.raises(Dav2Error, match="encoder alone has no head to predict depth: use features"):
            list(predict([photo]))


def test_bfloat16_halves_the_folder(small_pth, tmp_path):
    def size(folder):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    convert(small_pth, tmp_path / "full.ckpt")
    convert(small_pth, tmp_path / "half.ckpt", dtype="bfloat16")
    assert size(tmp_path / "half.ckpt") == pytest.approx(size(tmp_path / "full.ckpt") / 2, rel=0.01)
    convert(tmp_path / "half.ckpt", tmp_path / "half.pth", to="official")
    expected = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors(small_pth).items()}
    assert_identical(expected, tensors(tmp_path / "half.pth"))
    assert torch.load(tmp_path / "half.pth")["pretrained.cls_token"].dtype == torch.bfloat16
    model = dav2.load(tmp_path / "half.ckpt")
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(model.params))


def test_float16_is_refused_where_a_number_would_be_infinite(small_pth, tmp_path):
    convert(small_pth, tmp_path / "half.ckpt", dtype="float16")
    expected = {name: array.astype(np.float16) for name, array in tensors(small_pth).items()}
    convert(tmp_path / "half.ckpt", tmp_path / "half.pth", to="official")
    assert_identical(expected, tensors(tmp_path / "half.pth"))
    state = torch.load(small_pth)
    state["pretrained.norm.weight"][3] = -70_000
    torch.save(state, tmp_path / "depth_anything_v2_vits.pth")
    with pytest.raises(
        Dav2Error, match=r"vits\.pth: pretrained\.norm\.scale has values up to 7e\+04, too large for float16"
    ):
        convert(tmp_path / "depth_anything_v2_vits.pth", tmp_path / "large.ckpt", dtype="float16")
    assert not (tmp_path / "large.ckpt").exists()


def test_double_precision_comes_back_too(small_pth, tmp_path, photo):
    arrays = tensors(small_pth)
    doubled = {name: array.astype(np.float64) for name, array in arrays.items()}
    path = tmp_path / "depth_anything_v2_vits.pth"
    write_torch_file(path, stored(doubled))
    convert(path, tmp_path / "small.ckpt")
    convert(tmp_path / "small.ckpt", tmp_path / "back.pth", to="official")
    assert_identical(doubled, tensors(tmp_path / "back.pth"))
    convert(tmp_path / "small.ckpt", tmp_path / "single.pth", to="official", dtype="float32")
    assert_identical(arrays, tensors(tmp_path / "single.pth"))
    depths = [
        np.asarray(dav2.load(p).predict(photo, input_size=28)) for p in (small_pth, path, tmp_path / "small.ckpt")
    ]
    np.testing.assert_array_equal(depths[0], depths[1])
    np.testing.assert_array_equal(depths[0], depths[2])


def test_all_key_problems_at_once(small_pth, tmp_path):
    arrays = tensors(small_pth)
    arrays["pretrained.extra.weight"] = np.zeros(3, np.float32)
    arrays["head.other"] = np.zeros(3, np.float32)
    del arrays["pretrained.blocks.3.attn.qkv.bias"]
    del arrays["depth_head.scratch.output_conv1.bias"]
    arrays["pretrained.norm.weight"] = np.zeros(385, np.float32)
    arrays["pretrained.norm.bias"] = np.zeros(384, np.int32)
    path = tmp_path / "depth_anything_v2_vits.pth"
    write_torch_file(path, stored(arrays))
    with pytest.raises(Dav2Error) as error:
        convert(path, tmp_path / "out.ckpt")
    text = str(error.value)
    assert "\n" not in text
    assert "2 missing: pretrained.blocks.3.attn.qkv.bias, depth_head.scratch.output_conv1.bias" in text
    assert "2 unknown: pretrained.extra.weight, head.other" in text
    assert "pretrained.norm.weight is [385], not [384]" in text
    assert "pretrained.norm.bias is int32, not a float" in text
    write_torch_file(path, stored(arrays | {f"other.{i}": np.zeros(1, np.float32) for i in range(500)}))
    with pytest.raises(
        Dav2Error, match=r"502 unknown: pretrained\.extra\.weight, head\.other, other\.0, other\.1 and 498"
    ):
        convert(path, tmp_path / "out.ckpt")
    assert not (tmp_path / "out.ckpt").exists()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # nothing half-written


def test_existing_targets_are_kept(small_pth, tmp_path):
    target = tmp_path / "small.ckpt"
    target.mkdir()
    (target / "precious").write_text("data")
    with pytest.raises(Dav2Error, match="overwrite=True"):
        convert(small_pth, target)
    with pytest.raises(Dav2Error, match="is a folder of something else"):
        convert(small_pth, target, overwrite=True)
    (target / "precious").unlink()
    convert(small_pth, target, overwrite=True)
    assert checkpoint.is_checkpoint(target)
    assert sorted(file.name for file in target.iterdir()) == ["config.json", "params"]


def test_a_source_may_be_its_own_target(small_pth, tmp_path):
    shutil.copy(small_pth, tmp_path / "depth_anything_v2_vits.pth")
    convert(tmp_path / "depth_anything_v2_vits.pth", tmp_path / "a.ckpt")
    convert(tmp_path / "a.ckpt", tmp_path / "a.ckpt", dtype="bfloat16", overwrite=True)
    assert load_weights(tmp_path / "a.ckpt").flat["pretrained.norm.scale"].dtype == ml_dtypes.bfloat16


def test_flags_may_not_contradict_a_config(tiny_hf, tmp_path):
    folder = tiny_hf("metric")
    for told in (Overrides(max_depth=80.0), Overrides(kind="relative"), Overrides(taps="v1")):
        with pytest.raises(Dav2Error, match=r"contradicts its config\.json, which says"):
            load_weights(folder, told)
    load_weights(folder, Overrides("metric", 20.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_hidden_size": 64}, "head_hidden_size = 64"),
        ({"model_type": "dpt"}, "model_type = 'dpt'"),
        ({"reassemble_factors": [4, 2, 1, 1]}, "reassemble_factors"),
        ({"depth_estimation_type": "stereo"}, "depth_estimation_type 'stereo'"),
        ({"backbone_config": {"model_type": "swin"}}, "model_type = 'swin'"),
        ({"backbone_config": None}, "model_type = None"),
        ({"neck_hidden_sizes": [1, 2]}, "four taps"),
        ({"fusion_hidden_size": -3}, "sizes must be whole numbers"),
    ],
)
def test_other_hugging_face_models_are_refused(tiny_hf, tmp_path, change, message):
    shutil.copytree(tiny_hf("relative"), tmp_path / "hf")
    config = tmp_path / "hf" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(Dav2Error, match=message):
        load_weights(tmp_path / "hf")
    config.write_text("{")
    with pytest.raises(Dav2Error, match="cannot be read as the config"):
        load_weights(tmp_path / "hf")


@pytest.mark.parametrize("indices", [[0, 6, 9, 11], [3, 6, 9, 99]])
def test_impossible_taps_are_refused(tiny_hf, tmp_path, indices):
    shutil.copytree(tiny_hf("relative"), tmp_path / "hf")
    config = tmp_path / "hf" / "config.json"
    values = json.loads(config.read_text())
    values["backbone_config"] |= {"out_indices": indices, "out_features": None}
    config.write_text(json.dumps(values))
    with pytest.raises(Dav2Error, match=r"taps .* are not all among the blocks 0 to 10"):
        load_weights(tmp_path / "hf")


def test_values_from_python_are_checked(small_pth, tmp_path):
    for options in ({"taps": "v3"}, {"kind": "foo"}, {"max_depth": "20"}, {"max_depth": 0}):
        with pytest.raises(Dav2Error, match=rf"{next(iter(options))}="):
            dav2.load(small_pth, **options)
    for options in ({"to": "onnx"}, {"dtype": "int8"}):
        with pytest.raises(Dav2Error, match=rf"{next(iter(options))}="):
            convert(small_pth, tmp_path / "x", **options)


def test_license_comes_from_the_model_card(tiny_hf, tmp_path):
    shutil.copytree(tiny_hf("relative"), tmp_path / "hf")
    assert load_weights(tmp_path / "hf").license == "not stated by the source"
    (tmp_path / "hf" / "README.md").write_text("---\ntags:\n- depth\nlicense: cc-by-nc-4.0\n---\n# Model\n")
    assert load_weights(tmp_path / "hf").license == "CC-BY-NC-4.0"
    convert(tmp_path / "hf", tmp_path / "out", to="hf")
    assert load_weights(tmp_path / "out").license == "CC-BY-NC-4.0"
    convert(tmp_path / "hf", tmp_path / "mine", to="hf", license="yours: trained from random numbers")
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "license:" not in card  # an identifier belongs there, not a sentence
    assert "License of the weights: yours" in card
    convert(tmp_path / "hf", tmp_path / "mine.ckpt", license="MIT")
    assert load_weights(tmp_path / "mine.ckpt").license == "MIT"


@pytest.mark.parametrize(
    ("kind", "swiglu"), [("relative", False), ("relative", True), ("metric", False), ("encoder", False)]
)
def test_verify_against_transformers(tiny_hf, tmp_path, photo, kind, swiglu):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    folder = tiny_hf(kind, swiglu=swiglu)
    options = {"image": tmp_path / "photo.png", "input_size": 84}
    table, passed = verify(load_weights(folder), save=tmp_path / "reference.npz", **options)
    assert passed, table
    assert "block10" in table
    assert ("depth " in table) == (kind != "encoder")
    if kind == "encoder":
        assert verify(load_weights(folder), against=tmp_path / "reference.npz", **options)[1]
        return

    convert(folder, tmp_path / "ours.ckpt")
    table, passed = verify(load_weights(tmp_path / "ours.ckpt"), against=tmp_path / "reference.npz", **options)
    assert passed, table

    # One changed weight, late in the network: the table says where it begins.
    weights = checkpoint.load(tmp_path / "ours.ckpt")
    params = weights.params
    params["depth_head"]["scratch"]["refinenet2"]["out_conv"]["bias"][7] += 0.01  # stored stages keep every 7th channel
    checkpoint.save(tmp_path / "changed.ckpt", weights)
    table, passed = verify(load_weights(tmp_path / "changed.ckpt"), against=tmp_path / "reference.npz", **options)
    assert not passed
    over = [line.split()[0] for line in table.splitlines() if "over the tolerance" in line]
    assert over[0] == "refinenet2"
    assert "refinenet3" not in over


def test_verify_says_what_does_not_fit(tiny_hf, tmp_path, photo):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(photo[:100]).save(tmp_path / "other.png")
    verify(load_weights(tiny_hf()), image=tmp_path / "photo.png", input_size=28, save=tmp_path / "reference.npz")
    with pytest.raises(Dav2Error, match="300 x 200, and this one is 300 x 100: pass image=PHOTO"):
        verify(load_weights(tiny_hf()), image=tmp_path / "other.png", against=tmp_path / "reference.npz")
    with pytest.raises(Dav2Error, match="leave input_size out"):
        verify(load_weights(tiny_hf()), image=tmp_path / "photo.png", against=tmp_path / "reference.npz", input_size=56)
    with pytest.raises(Dav2Error, match="not a stored reference"):
        verify(load_weights(tiny_hf()), image=tmp_path / "photo.png", against=tmp_path / "photo.png")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(Dav2Error, match="no input_shape, raw_shape, stride"):
        verify(load_weights(tiny_hf()), image=tmp_path / "photo.png", against=tmp_path / "empty.npz")
    with np.load(tmp_path / "reference.npz") as file:
        reference = dict(file)
    np.savez(tmp_path / "zero.npz", **reference | {"stride": 0})
    with pytest.raises(Dav2Error, match="impossible shapes"):
        verify(load_weights(tiny_hf()), image=tmp_path / "photo.png", against=tmp_path / "zero.npz")
    np.savez(tmp_path / "nan.npz", **reference | {"net": np.full_like(reference["net"], np.nan)})
    table, passed = verify(load_weights(tiny_hf()), image=tmp_path / "photo.png", against=tmp_path / "nan.npz")
    assert not passed
    assert "FAILED: the worst stage is net, inf" in table
    with pytest.raises(Dav2Error, match="the folder does not exist"):
        verify(load_weights(tiny_hf()), save=tmp_path / "nowhere" / "x.npz")
    with pytest.raises(Dav2Error, match="give one of them"):
        verify(load_weights(tiny_hf()), against=tmp_path / "a", save=tmp_path / "b")


def test_loading_needs_no_conversion_first(small_pth, tmp_path, photo):
    convert(small_pth, tmp_path / "small.ckpt")
    direct, converted = dav2.load(small_pth), dav2.load(tmp_path / "small.ckpt")
    a, b = (np.asarray(model.predict(photo, input_size=140)) for model in (direct, converted))
    np.testing.assert_array_equal(a, b)
    x = preprocess(photo, 140)
    assert x.shape == (140, 210, 3)
