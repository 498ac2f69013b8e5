"""Datasets of TFDS, written by TFDS's own features and serializer, read by name and without TensorFlow."""

import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import toy_source
from array_record.python.array_record_module import ArrayRecordWriter
from google.protobuf import json_format
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.proto import dataset_info_pb2

from dav2_jax.data import prepare, records, tfds_folder
from dav2_jax.errors import Dav2Error

NYU = {"image": tfds.features.Image(shape=(48, 64, 3)), "depth": tfds.features.Tensor(shape=(48, 64), dtype=np.float16)}


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _write(data_dir, features: dict, examples: list[dict], name="nyu_depth_v2", file_format="array_record"):
    """A folder as TFDS makes it; pictures are given encoded, which is how TFDS takes files."""
    folder = data_dir / name / "0.0.1"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(features)
    features.save_config(str(folder))
    serializer = ExampleSerializer(features.get_serialized_info())
    for number, part in enumerate((examples[:2], examples[2:])):
        writer = ArrayRecordWriter(str(folder / f"{name}-train.{file_format}-{number:05}-of-00002"), "group_size:1")
        for example in part:
            writer.write(serializer.serialize_example(features.encode_example(example)))
        writer.close()
    info = dataset_info_pb2.DatasetInfo(name=name, version="0.0.1", file_format=file_format)
    split = info.splits.add(name="train", filepath_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
    split.shard_lengths.extend([2, len(examples) - 2])
    (folder / "dataset_info.json").write_text(json_format.MessageToJson(info))
    return folder


def _nyu(index: int) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(index)
    depth = noise.uniform(0.5, 10, (48, 64)).astype(np.float16)
    depth[:2] = 0
    return noise.integers(0, 256, (48, 64, 3), np.uint8), depth


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    _write(data_dir, NYU, [{"image": _png(image), "depth": depth} for image, depth in map(_nyu, range(5))])
    return data_dir


def test_nyu_depth_v2_by_name_by_folder_and_by_part(data_dir):
    source = pickle.loads(pickle.dumps(tfds_folder.source("nyu_depth_v2", data_dir=data_dir)))
    assert (source.name, source.unit, len(source)) == ("nyu_depth_v2", "metres", 5)
    for index, example in enumerate(source):
        image, depth = _nyu(index)
        assert example["id"] == f"train-{index:07d}"
        np.testing.assert_array_equal(example["image"], image)
        np.testing.assert_array_equal(example["depth"], depth.astype(np.float32))
        np.testing.assert_array_equal(example["valid"], depth > 0)
    folder = data_dir / "nyu_depth_v2" / "0.0.1"
    assert len(tfds_folder.source(folder, split="train[:40%]")) == 2
    assert tfds_folder.source(folder, depth=None)[0].keys() == {"id", "image"}
    assert tfds_folder.source(folder, depth=None).unit == "none"


def test_reading_by_name_imports_no_tensorflow(data_dir):
    code = (
        "import sys; from dav2_jax.data import tfds_folder;"
        f"print(tfds_folder.source('nyu_depth_v2', data_dir={str(data_dir)!r})[4]['depth'].shape);"
        "print({'tensorflow', 'jax'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=toy_source.environment())
    assert (done.stdout, done.returncode) == ("(48, 64)\nset()\n", 0), done.stderr


def test_depth_as_a_picture_and_features_within_features(tmp_path):
    noise = np.random.default_rng(0)
    gray = noise.integers(0, 256, (6, 8), np.uint8)
    steps = noise.integers(0, 9000, (6, 8), np.uint16)
    metres = noise.random((6, 8), np.float32)
    features = {
        "left": {
            "gray": tfds.features.Image(shape=(None, None, 1)),
            "steps": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
            "metres": tfds.features.Image(shape=(None, None, 1), dtype=np.float32),
            "packed": tfds.features.Tensor(shape=(None, None), dtype=np.float64, encoding="zlib"),
        },
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    one = {"gray": _png(gray), "steps": _png(steps), "metres": b"", "packed": metres.astype(np.float64)}
    # TFDS takes a float picture as an array alone, and needs TensorFlow to encode it: ours is already in its encoding.
    tfds_encode = tfds.features.Image.encode_example
    tfds.features.Image.encode_example = lambda self, value: value or _png(metres.view(np.uint8).reshape(6, 8, 4))
    try:
        folder = _write(tmp_path, features, [{"left": one, "label": 1}] * 3, "own")
    finally:
        tfds.features.Image.encode_example = tfds_encode
    example = tfds_folder.source(folder, image="left/gray", depth="left/steps", scale=0.001)[0]
    np.testing.assert_array_equal(example["image"], gray[..., None].repeat(3, 2))
    np.testing.assert_array_equal(example["depth"], steps.astype(np.float32) * np.float32(0.001))
    for depth in ("left/metres", "left/packed"):
        example = tfds_folder.source(folder, image="left/gray", depth=depth, unit="any scale")[2]
        np.testing.assert_array_equal(example["depth"], metres)
    with pytest.raises(Dav2Error, match=r"own: has no feature 'depth': it has .*left/metres"):
        tfds_folder.source(folder, image="left/gray")
    with pytest.raises(Dav2Error, match=r"feature 'label' is int64 \[\], not numbers \[H, W\]"):
        tfds_folder.source(folder, image="left/gray", depth="label")[0]
    with pytest.raises(Dav2Error, match=r"feature 'left/packed' is float64 \[6, 8\], not a uint8 RGB image"):
        tfds_folder.source(folder, image="left/packed", depth=None)[0]


def test_what_is_not_ready_says_what_to_do(data_dir, tmp_path):
    build = f"tfds build other_set --file_format=array_record --data_dir={data_dir}"
    with pytest.raises(Dav2Error, match=f"is not prepared in {data_dir}. Prepare it once, with TensorFlow: {build}"):
        tfds_folder.source("other_set", data_dir=data_dir)
    with pytest.raises(Dav2Error, match=r"nyu_depth_v2: has no split 'test': it has train \("):
        tfds_folder.source("nyu_depth_v2", split="test", data_dir=data_dir)
    with pytest.raises(Dav2Error, match=r"is no folder of TFDS: it has no dataset_info.json"):
        tfds_folder.source(tmp_path)
    folder = _write(tmp_path, NYU, [], "old", "tfrecord")
    convert = f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record"
    with pytest.raises(
        Dav2Error,
        match=f"{folder}: has no ArrayRecord files. Convert it once, with TensorFlow and apache_beam: {convert}",
    ):
        tfds_folder.source("old", data_dir=tmp_path)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(Dav2Error, match=r"TFDS cannot open it \(") as error:
        tfds_folder.source(folder)
    assert "\n" not in str(error.value)


def test_a_damaged_record_and_an_image_bomb_are_named(tmp_path, monkeypatch):
    folder = _write(tmp_path, NYU, [{"image": _png(image), "depth": depth} for image, depth in map(_nyu, range(5))])
    monkeypatch.setattr("dav2_jax.data.record_codec.MAX_PIXELS", 1000)
    with pytest.raises(Dav2Error, match="train: record 1 claims 64 x 48 pixels: at most 1,000"):
        tfds_folder.source(folder)[1]
    shard = folder / "nyu_depth_v2-train.array_record-00001-of-00002"
    data = bytearray(shard.read_bytes())
    data[9000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(Dav2Error, match="train: record 2 is damaged") as error:
        tfds_folder.source(folder)[2]
    assert "\n" not in str(error.value)


def test_our_own_folders_are_folders_of_tfds(tmp_path):
    prepare.prepare(toy_source.source(4), tmp_path)
    ours, theirs = records.source(tmp_path)[1], tfds_folder.source(tmp_path, unit="any scale")[1]
    np.testing.assert_array_equal(theirs["image"], ours["image"])
    np.testing.assert_array_equal(theirs["depth"], ours["depth"])
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert (info["name"], info["fileFormat"], info["splits"][0]["shardLengths"]) == ("toy_set", "array_record", ["4"])
