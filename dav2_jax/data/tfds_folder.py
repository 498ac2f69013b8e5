"""Folders of TFDS: the description that makes ours one, and any of them, by name, as a source."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from dav2_jax.data import record_codec
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source, Unit
from dav2_jax.errors import Dav2Error, first_line

VERSION = "1.0.0"  # TFDS wants one of every dataset; what changes is in the manifest


def source(
    name: str | Path,
    *,
    split: str = "train",
    data_dir: Path | None = None,
    image: str = "image",
    depth: str | None = "depth",
    scale: float = 1.0,
    unit: Unit = "metres",
) -> Source:
    """Any dataset of TFDS with an image and a depth feature that is on this machine, read without TensorFlow.

    name      as TFDS knows it: nyu_depth_v2, or with configuration and version, my_set/indoor:1.0.0; or its folder
    split     also a part of one, as TFDS writes it: train[:10%]
    data_dir  where TFDS keeps its datasets; None is TFDS's own default (~/tensorflow_datasets or $TFDS_DATA_DIR)
    depth     feature [H, W] or [H, W, 1] of any number type; a/b for b within a; None for images without depth
    scale     of depth: its values times this are in `unit`. 0.001 for millimetres

    nyu_depth_v2 needs no option: uint8 480 x 640 images and float16 metres. Raises Dav2Error, saying what to do, where
    the dataset is not prepared here, is not in the ArrayRecord format (TFDS's default format has no random access),
    or has no such split or feature. Prepare it once with TensorFlow; reading it needs none.
    """
    builder = _builder(name, data_dir)
    folder = Path(os.fspath(builder.data_dir))
    for feature in (image, depth):
        if feature is not None and feature not in _features(builder.info.features):
            known = ", ".join(_features(builder.info.features))
            raise Dav2Error(f"{builder.name}: has no feature {feature!r}: it has {known}")
    try:
        count = len(_opened(folder, split, os.getpid())[0])
    except NotImplementedError as error:
        convert = f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record"
        raise Dav2Error(
            f"{folder}: has no ArrayRecord files. Convert it once, with TensorFlow and apache_beam: {convert}"
        ) from error
    except (ValueError, KeyError) as error:
        known = ", ".join(builder.info.splits)
        raise Dav2Error(
            f"{builder.name}: has no split {split!r}: it has {known} (and train[:10%] and the like)"
        ) from error
    read = functools.partial(_read, folder, split, image, depth, scale)
    return Source(builder.name, range(count), read, unit if depth else "none")


def metadata(manifest: dict[str, Any]) -> dict[str, str]:
    """{file name: text} of what TFDS needs to read a folder of ours: its features, and the lengths of its shards."""
    import tensorflow_datasets as tfds
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import dataset_info_pb2

    has = {field for about in manifest["splits"].values() for shard in about["shards"] for field in shard["fields"]}
    features: dict[str, Any] = {"id": tfds.features.Text(), "image": tfds.features.Image(shape=(None, None, 3))}
    for name in record_codec.FLOAT_MAPS:
        features[name] = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)
    for name, dtype in record_codec.SMALL_MAPS.items():
        features[name] = tfds.features.Tensor(shape=(None, None), dtype=dtype, encoding="zlib")
    features["intrinsics"] = tfds.features.Tensor(shape=(4,), dtype=np.float32)
    known = tfds.features.FeaturesDict({name: feature for name, feature in features.items() if name in has})
    info = dataset_info_pb2.DatasetInfo(name=manifest["name"], version=VERSION, file_format="array_record")
    info.description = f"{next(iter(manifest['splits'].values()))['source']}, prepared by dav2_jax"
    for split, about in manifest["splits"].items():
        one = info.splits.add(name=split, filepath_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
        one.shard_lengths.extend(shard["examples"] for shard in about["shards"])
        one.num_bytes = sum(shard["bytes"] for shard in about["shards"])
    return {
        "features.json": json.dumps(json_format.MessageToDict(known.to_proto()), indent=4, sort_keys=True),
        "dataset_info.json": json_format.MessageToJson(info, sort_keys=True),
    }


def _builder(name: str | Path, data_dir: Path | None):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files  # needs no code of the dataset

    try:
        if (Path(name) / "dataset_info.json").is_file():
            return tfds.builder_from_directory(name)
        if isinstance(name, Path) or name.startswith((".", "~", os.sep)):
            raise Dav2Error(f"{name}: is no folder of TFDS: it has no dataset_info.json")
        return builder_from_files(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        where = data_dir or tfds.core.constants.DATA_DIR
        build = f"tfds build {name} --file_format=array_record --data_dir={where}"
        raise Dav2Error(f"{name}: is not prepared in {where}. Prepare it once, with TensorFlow: {build}") from error
    except Dav2Error:
        raise
    except Exception as error:  # damaged files make TFDS and protobuf raise about anything
        reason = first_line(error)
        raise Dav2Error(f"{name}: TFDS cannot open it ({reason})") from error


def _features(features, prefix: str = "") -> dict[str, Any]:
    """{a/b: feature} of all that a dataset has, however nested."""
    flat = {}
    for name, feature in features.items():
        inner = _features(feature, f"{prefix}{name}/") if hasattr(feature, "items") else {prefix + name: feature}
        flat.update(inner)
    return flat


@functools.lru_cache(maxsize=8)
def _opened(folder: Path, split: str, process: int):
    """(records, features) of a split; of this process, because a reader does not survive a fork.

    Pictures are left encoded: those that are not wanted cost nothing, and the others are decoded by Pillow within
    limits. TFDS takes OpenCV where it is installed, and knows no 16-bit picture without it.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    features = _features(builder.info.features)
    encoded: dict[str, Any] = {}
    for name, feature in features.items():
        if isinstance(feature, tfds.features.Image):
            *outer, last = name.split("/")
            functools.reduce(lambda inner, key: inner.setdefault(key, {}), outer, encoded)[last] = (
                tfds.decode.SkipDecoding()
            )
    return builder.as_data_source(split=split, decoders=encoded), features


def _read(folder: Path, split: str, image: str, depth: str | None, scale: float, index: int) -> Example:
    examples, features = _opened(folder, split, os.getpid())
    id = f"{split}-{index:07d}"
    try:
        example = examples[index]
        pixels = _values(example, image, features, "RGB")
        values = None if depth is None else _values(example, depth, features)
    except Dav2Error as error:
        raise Dav2Error(f"{folder}, {split}: record {index} {error}") from error
    except Exception as error:  # ArrayRecord, protobuf, zlib and TFDS all have types of their own
        reason = first_line(error)
        raise Dav2Error(f"{folder}, {split}: record {index} is damaged ({reason})") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise Dav2Error(f"{folder}: feature {image!r} is {pixels.dtype} {list(pixels.shape)}, not a uint8 RGB image")
    if values is None:
        return Example(id=id, image=pixels)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise Dav2Error(f"{folder}: feature {depth!r} is {values.dtype} {list(values.shape)}, not numbers [H, W]")
    return labeled(id, pixels, values.astype(np.float32) * np.float32(scale))


def _values(example: dict[str, Any], name: str, features: dict[str, Any], mode: str | None = None) -> np.ndarray:
    value = functools.reduce(lambda inner, key: inner[key], name.split("/"), example)
    if not isinstance(value, bytes):
        return np.asarray(value)
    if mode:
        return record_codec.decode_picture(value, mode, convert=True)
    dtype = np.dtype(features[name].np_dtype)
    pixels = record_codec.decode_picture(value, {"uint8": "L", "uint16": "I;16", "float32": "RGBA"}[dtype.name])
    return pixels.view("<f4") if dtype == np.float32 else pixels
