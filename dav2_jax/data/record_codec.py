"""One Example as one record: a tf.train.Example in the encodings of TFDS, made and read without TensorFlow.

| key         | stored as                                              | feature of TFDS                 |
|-------------|--------------------------------------------------------|---------------------------------|
| image       | PNG, or JPEG where asked                               | Image uint8 [H, W, 3]           |
| FLOAT_MAPS  | PNG of four channels, which are the bytes of a float32 | Image float32 [H, W, 1]         |
| SMALL_MAPS  | zlib, with the shape beside it                         | Tensor bool, uint8 [H, W], zlib |
| intrinsics  | floats                                                 | Tensor float32 [4]              |
| id          | bytes                                                  | Text                            |
| has         | the names of the fields that the example has           | none: TFDS ignores it           |

All keys are in every record, because TFDS wants all features of a dataset in each of its examples; what an example does
not have is a map of one pixel (NaN where it can be) and not in `has`. `pairs`, `points` and `scene`, with which
benchmarks are evaluated, are not kept.

The four bytes of a float as PNG channels are TFDS's own way. The filters of PNG see each byte beside that of the next
pixel, so smooth depth takes 23% of its raw size, where zlib alone takes 79%, in the same time (640 x 480, level 1).
"""

from __future__ import annotations

import functools
import io
import zlib

import numpy as np

from dav2_jax.data.example import TAGS, Example
from dav2_jax.errors import Dav2Error, first_line
from dav2_jax.image.read import MAX_PIXELS

FLOAT_MAPS = ("depth", "disparity", "sensor_depth")
SMALL_MAPS = {"valid": np.bool_, "tag": np.uint8}
FIELDS = ("image", *FLOAT_MAPS, *SMALL_MAPS, "intrinsics", "id")  # of an Example, all of which round-trip


def encode(example: Example, jpeg: int | None = None) -> bytes:
    """The record of an example; the same bytes every time.

    jpeg  quality of the image as JPEG, 1 to 100; None keeps it bit-exact, as PNG. Everything else is always bit-exact

    Raises Dav2Error for an example that is not in the form of `Example`.
    """
    _check(example)
    record = _message_class()()
    entries = record.features.feature

    def add(key: str):
        return entries.add(key=key).value

    add("has").bytes_list.value.extend(name.encode() for name in FIELDS if name in example)
    add("id").bytes_list.value.append(example["id"].encode())
    add("image").bytes_list.value.append(_encode_picture(example["image"], jpeg))
    for name in FLOAT_MAPS:
        values = example.get(name, np.full((1, 1), np.nan, np.float32))
        four_bytes = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(*values.shape, 4)
        add(name).bytes_list.value.append(_encode_picture(four_bytes))
    for name, dtype in SMALL_MAPS.items():
        values = example.get(name, np.zeros((1, 1), dtype))
        add(f"{name}/shape").int64_list.value.extend(values.shape)
        add(f"{name}/value").bytes_list.value.append(zlib.compress(values.tobytes(), 1))
    add("intrinsics").float_list.value.extend(example.get("intrinsics", np.full(4, np.nan)).tolist())
    return record.SerializeToString()


def decode(record: bytes) -> Example:
    """The example of a record. Raises Dav2Error for anything else, before more than its pixels is allocated."""
    from google.protobuf.message import DecodeError

    try:
        features = _message_class().FromString(record).features.feature
    except DecodeError as error:
        raise Dav2Error("is no tf.train.Example") from error
    stored = {one.key: one.value for one in features}
    if "has" not in stored:
        raise Dav2Error('is a tf.train.Example of something else: it has no "has"')
    has = {name.decode("ascii", "replace") for name in stored["has"].bytes_list.value}
    if not {"id", "image"} <= has <= set(FIELDS):
        raise Dav2Error(f"has the fields {', '.join(sorted(has))}: written by another version?")

    def single(key: str) -> bytes:
        values = stored[key].bytes_list.value if key in stored else ()
        if len(values) != 1:
            raise Dav2Error(f'"{key}" is missing')
        return values[0]

    image = decode_picture(single("image"), "RGB")
    example = Example(id=single("id").decode("utf-8", "replace"), image=image)
    for name in FLOAT_MAPS:
        if name in has:
            example[name] = decode_picture(single(name), "RGBA", image.shape[:2]).view("<f4")[..., 0]
    for name, dtype in SMALL_MAPS.items():
        if name in has:
            raw = _decompress(single(f"{name}/value"), image.shape[0] * image.shape[1])
            if name == "valid" and raw.strip(b"\0\1"):
                raise Dav2Error('"valid" has other bytes than 0 and 1')
            example[name] = np.frombuffer(raw, dtype).reshape(image.shape[:2])
    if "intrinsics" in has:
        numbers = stored["intrinsics"].float_list.value if "intrinsics" in stored else ()
        if len(numbers) != 4:
            raise Dav2Error(f'"intrinsics" are {len(numbers)} numbers, not 4')
        example["intrinsics"] = np.array(numbers, np.float32)
    return example


def _check(example: Example) -> None:
    image = example["image"]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not 0 < image[..., 0].size <= MAX_PIXELS:
        raise Dav2Error(f"{example['id']}: the image is {image.dtype} {list(image.shape)}, not uint8 [H, W, 3]")
    for name, dtype in {**dict.fromkeys(FLOAT_MAPS, np.float32), **SMALL_MAPS}.items():
        values = example.get(name)
        if values is not None and (values.dtype != dtype or values.shape != image.shape[:2]):
            wanted = f"{np.dtype(dtype)} {list(image.shape[:2])}"
            raise Dav2Error(f"{example['id']}: {name} is {values.dtype} {list(values.shape)}, not {wanted}")
    if "tag" in example and example["tag"].max() >= len(TAGS):
        raise Dav2Error(f"{example['id']}: tag {example['tag'].max()} is not one of the {len(TAGS)} that there are")
    if "intrinsics" in example and (example["intrinsics"].dtype, example["intrinsics"].shape) != (np.float32, (4,)):
        raise Dav2Error(f"{example['id']}: intrinsics are not float32 [4]")
    if unknown := example.keys() - set(FIELDS):
        raise Dav2Error(f"{example['id']}: records have no place for {', '.join(sorted(unknown))}")


def _encode_picture(pixels: np.ndarray, jpeg: int | None = None) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    if jpeg is None:
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)  # level 6: 0.10 s for 0.03 s, 13% smaller
    else:
        Image.fromarray(pixels).save(file, "JPEG", quality=jpeg, subsampling=0)
    return file.getvalue()


def decode_picture(
    data: bytes, mode: str, shape: tuple[int, int] | None = None, *, convert: bool = False
) -> np.ndarray:
    """The pixels of an encoded picture, which must have this mode of Pillow's and, where given, this [H, W].

    convert  makes this mode out of any other. Raises Dav2Error before a picture of too many pixels is decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Dav2Error(f"claims {image.width} x {image.height} pixels: at most {MAX_PIXELS:,} can be read")
            if shape not in (None, image.size[::-1]) or (image.mode != mode and not convert):
                raise Dav2Error(f"holds a {image.mode} picture of {image.width} x {image.height} in the wrong place")
            return np.asarray(image.convert(mode) if convert else image)
    except (Dav2Error, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Dav2Error("holds neither PNG nor JPEG where a picture should be") from error
    except Exception as error:  # which types Pillow gives for damaged data differs by format
        reason = first_line(error)
        raise Dav2Error(f"holds a damaged picture ({reason})") from error


def _decompress(data: bytes, size: int) -> bytes:
    """Exactly this many bytes out of zlib, and not one more in memory, whatever `data` would grow to."""
    try:
        inflater = zlib.decompressobj()
        values = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise Dav2Error(f"holds damaged values ({error})") from error
    if len(values) != size or not inflater.eof:
        raise Dav2Error(f"holds other than {size:,} values in a map of {size:,} pixels")
    return values


@functools.cache
def _message_class():
    """The class of tf.train.Example, from its definition: github.com/tensorflow/tensorflow,
    tensorflow/core/example/{example,feature}.proto.

    The same class in tensorflow_datasets costs each worker process 0.35 s and 59 MB for the import of TFDS. The map of
    features is written here as what it is in the file, a list of pairs: the order of a list is ours to fix.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="dav2_jax/example.proto", package="dav2_jax", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, str | int], many: bool) -> None:
        label = kind.LABEL_REPEATED if many else kind.LABEL_OPTIONAL
        fields = [
            kind(name=field, number=number, label=label, type=kind.TYPE_MESSAGE, type_name=f".dav2_jax.{of}")
            if isinstance(of, str)
            else kind(name=field, number=number, label=label, type=of)
            for field, number, of in fields
        ]
        file.message_type.append(descriptor_pb2.DescriptorProto(name=name, field=fields))

    message("BytesList", ("value", 1, kind.TYPE_BYTES), many=True)
    message("FloatList", ("value", 1, kind.TYPE_FLOAT), many=True)
    message("Int64List", ("value", 1, kind.TYPE_INT64), many=True)
    lists = (("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List"))
    message("Feature", *lists, many=False)
    message("Pair", ("key", 1, kind.TYPE_STRING), ("value", 2, "Feature"), many=False)
    message("Features", ("feature", 1, "Pair"), many=True)
    message("Example", ("features", 1, "Features"), many=False)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dav2_jax.Example"))
