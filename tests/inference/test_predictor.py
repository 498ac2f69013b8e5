"""`Model`: photos of any kind in, `Depth` out, alone or in batches, and the pure function beside it."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
from PIL import Image

import dav2_jax as dav2
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error
from dav2_jax.image.preprocess import postprocess, preprocess
from dav2_jax.image.resize import network_size
from dav2_jax.inference.predictor import Model


@pytest.fixture(scope="module")
def model(tiny):
    return tiny


def test_predict_is_preprocess_fn_postprocess(model, photo):
    depth = model.predict(photo, input_size=70)
    net = jax.jit(model.fn)(model.params, preprocess(photo, 70)[None])
    np.testing.assert_array_equal(np.asarray(depth), postprocess(net[0], 200, 300))
    assert (depth.unit, depth.shape) == ("disparity", (200, 300))
    np.testing.assert_array_equal(depth.image, photo)


def test_paths_images_arrays_and_lists(model, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    alone = np.asarray(model.predict(photo, input_size=28))
    depths = model.predict([tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(photo)], input_size=28)
    for depth in depths:
        np.testing.assert_array_equal(depth, alone)
    with pytest.raises(Dav2Error, match=r"nothing\.png: no such file"):
        model.predict(tmp_path / "nothing.png")
    for wrong, size in ((tmp_path / "nothing.png", 28), (tmp_path / "photo.png", 14 * 300)):
        with pytest.raises(Dav2Error) as caught:
            model.predict(wrong, input_size=size)
        assert str(caught.value).startswith(f"{wrong}: ")
        assert str(caught.value).count(wrong.name) == 1
    with pytest.raises(Dav2Error, match=r"photo\.png: 300 x 200 = 60,000 pixels are over"):
        model.predict(tmp_path / "photo.png", max_pixels=59_999)


def test_metric_gives_metres(small_pth, photo):
    model = dav2.load(small_pth, max_depth=20.0)
    depth = model.predict(photo, input_size=28)
    assert (depth.unit, depth.max_depth) == ("metres", 20.0)
    assert 0 < np.asarray(depth).min() < np.asarray(depth).max() < 20


def test_features(model, photo):
    taps = model.features(photo, input_size=28)
    assert [tap.shape for tap in taps] == [(2, 3, 48)] * 4


def test_gradient_through_the_photo(model, photo):
    """Depth is differentiable in the image: test-time optimization needs no more than this."""
    x = preprocess(photo, 28)
    gradient = jax.jit(jax.grad(lambda x: model.fn(model.params, x[None]).sum()))(x)
    assert gradient.shape == x.shape
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_bfloat16(model, photo):
    fast = Model(Weights(model.config, model.params), dtype="bfloat16")
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(fast.params))
    exact, near = (np.asarray(m.predict(photo, input_size=70)) for m in (model, fast))
    assert 1e-5 < np.linalg.norm(exact - near) / np.linalg.norm(exact) < 0.02


def test_focal_length_comes_from_exif(model, photo, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28  # FocalLengthIn35mmFilm
    Image.fromarray(photo).save(tmp_path / "photo.jpg", exif=exif)
    depth = model.predict(tmp_path / "photo.jpg", input_size=28)
    assert depth.focal_length == pytest.approx(28 / 43.27 * np.hypot(200, 300), rel=1e-3)
    assert model.predict(photo, input_size=28).focal_length is None


SIZES = [(40, 60), (60, 40), (80, 120), (41, 60), (40, 60), (80, 120), (200, 300), (60, 40), (42, 63)]


@pytest.fixture(scope="module")
def photos():
    return [seeded.photo(*size, seed=number) for number, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def one_by_one(tiny, photos):
    depths = [np.asarray(tiny.predict(photo, input_size=42)) for photo in photos]
    assert all(depth.std() > 1e-4 for depth in depths)
    return depths


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 3), (4, 3), (8, 8)])
def test_mixed_sizes_in_batches_on_many_devices(devices, batch_size, tiny, photos, one_by_one):
    model = Model(Weights(tiny.config, tiny.params), devices=jax.devices()[:devices])
    depths = list(model.predict(iter(photos), input_size=42, batch_size=batch_size))
    for depth, expected, photo in zip(depths, one_by_one, photos, strict=True):
        assert np.linalg.norm(depth - expected) <= 1e-6 * np.linalg.norm(expected)
        np.testing.assert_array_equal(depth.image, photo)
    buckets = {network_size(*size, 42) for size in SIZES}
    assert {shape[1:3] for _, shape, _ in model.programs.compiled} == buckets
    assert len(model.programs.compiled) == len(buckets) == 2  # a batch in part runs the program of a full one
    assert {shape[0] for _, shape, _ in model.programs.compiled} == {-(-batch_size // devices) * devices}
    assert model.programs.seconds > 0


def test_an_iterable_is_taken_as_it_goes(tiny, photos):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield photos[number % 2]

    depths = tiny.predict(endless(), input_size=14)
    assert next(depths).shape == SIZES[0]
    assert next(depths).shape == SIZES[1]
    assert len(taken) < 20
    depths.close()


def test_a_bad_photo_in_a_stream_costs_itself_only(tiny, photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    outcomes = list(tiny.stream([photos[0], tmp_path / "bad.png", photos[1]], input_size=14, batch_size=2))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert str(outcomes[1].error) == f"{tmp_path / 'bad.png'}: not an image that Pillow can read (8 bytes)"
    with pytest.raises(Dav2Error, match=r"bad\.png: not an image"):
        tiny.predict([photos[0], tmp_path / "bad.png"], input_size=14)
    for wrong in (0, -1):
        with pytest.raises(Dav2Error, match="give at least 1"):
            next(tiny.stream(photos, batch_size=wrong))


def test_the_size_of_the_network(model, photo):
    whole, small = (model.predict(photo, input_size=70, resize=resize) for resize in ("photo", "network"))
    assert (whole.shape, small.shape) == ((200, 300), (70, 112))
    assert small.image.shape == (70, 112, 3)
    np.testing.assert_array_equal(postprocess(small.values, 200, 300), whole.values)
    np.testing.assert_array_equal(small.values, jax.jit(model.fn)(model.params, preprocess(photo, 70)[None])[0])


@pytest.mark.parametrize("devices", [1, 8])
def test_a_batch_that_is_an_array(devices, tiny):
    model = Model(Weights(tiny.config, tiny.params), devices=jax.devices()[:devices])
    images = np.stack([seeded.photo(50, 75, seed=n) for n in range(8)])
    expected = np.stack(model.predict(list(images), input_size=42))
    for batch in (images, jax.device_put(images, jax.devices()[0])):
        depth = model.predict_batch(batch, input_size=42)
        assert isinstance(depth, jax.Array)
        assert len(depth.sharding.device_set) == devices
        assert np.linalg.norm(depth - expected) <= 1e-6 * np.linalg.norm(expected)
    assert model.predict_batch(images[:3], input_size=42, resize="network").shape == (3, 42, 56)
    for wrong in (images[0], images.astype(np.float32), images[..., :1], images[:0]):
        with pytest.raises(Dav2Error, match=r"a batch must be uint8 RGB \[B, H, W, 3\], not "):
            model.predict_batch(wrong)


def test_parameters_of_bfloat16_programs_are_cast_once(tiny, photos):
    model = Model(Weights(tiny.config, tiny.params), dtype="bfloat16")
    depth = model.predict(photos[0], input_size=42)
    net = jax.jit(model.fn)(model.params, preprocess(photos[0], 42)[None])
    np.testing.assert_array_equal(depth, postprocess(net[0], *SIZES[0]))


def test_bytes_and_open_files(model, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    data = (tmp_path / "photo.png").read_bytes()
    alone = np.asarray(model.predict(photo, input_size=28))
    with (tmp_path / "photo.png").open("rb") as file:
        for one in (data, bytearray(data), io.BytesIO(data), file):
            np.testing.assert_array_equal(model.predict(one, input_size=28), alone)
    np.testing.assert_array_equal(model.predict([data, io.BytesIO(data)], input_size=28), [alone, alone])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "phto"}, r"resize is 'phto': use 'photo' or 'network' \(did you mean photo\?\)"),
        ({"resize": None}, "resize is None: use 'photo' or 'network'"),
        ({"input_size": "518"}, "is '518': give a whole number"),
        ({"input_size": 13}, "give at least 14"),
        ({"batch_size": 1.5}, "is 1.5: give a whole number"),
        ({"max_pixels": "many"}, "is 'many': give a number of pixels"),
        ({"tiles": "some"}, "tiles=some: give 'auto' or a number"),
        ({"tiles": 2, "resize": "network"}, "leave out resize='network'"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_a_photo_is_read(options, message, model, photo):
    for photos in ("nothing.jpg", ["nothing.jpg"], iter(["nothing.jpg"])):
        with pytest.raises(Dav2Error, match=message):
            model.predict(photos, **options)
    if set(options) <= {"input_size", "resize"}:
        with pytest.raises(Dav2Error, match=message):
            model.predict_batch(photo[None], **options)


def test_what_is_odd_about_a_photo_is_a_warning_and_a_note(model, photo, tmp_path):
    data = io.BytesIO()
    Image.fromarray(photo).save(data, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(data.getvalue()[:-8])
    with pytest.warns(UserWarning, match=rf"^{tmp_path / 'cut.jpg'}: the file is cut short") as caught:
        depth = model.predict(tmp_path / "cut.jpg", input_size=28)
    assert caught[0].filename == __file__
    assert [note.split(":")[0] for note in depth.notes] == ["the file is cut short"]
    (outcome,) = model.stream([tmp_path / "cut.jpg"], input_size=28)  # which has no caller to warn
    assert outcome.value.notes == depth.notes


def test_tiles_of_one_photo_of_a_list_and_of_an_iterable(model, photo):
    alone = model.predict(photo, input_size=42, tiles=2)
    assert alone.shape == photo.shape[:2]
    assert np.abs(alone.values - model.predict(photo, input_size=42).values).max() > 1e-4
    for depth in (
        *model.predict([photo], input_size=42, tiles=2),
        *model.predict(iter([photo]), input_size=42, tiles=2),
    ):
        np.testing.assert_array_equal(depth.values, alone.values)


def test_depth_in_jax(model, photo):
    """As an argument of jit, beside arrays, and differentiated."""
    depth = model.predict(photo, input_size=28)
    expected = depth.values.mean(dtype=np.float64)
    assert float(jnp.mean(depth)) == pytest.approx(expected, rel=1e-5)
    assert float(jax.jit(lambda d: (2 * d).mean())(depth)) == pytest.approx(2 * expected, rel=1e-5)
    for result in (jnp.ones(depth.shape) + depth, depth + jnp.ones(depth.shape)):
        assert isinstance(result, jax.Array)
        np.testing.assert_array_equal(result, depth.values + 1)
    doubled = jax.tree.map(lambda values: 2 * values, depth)
    assert (type(doubled), doubled.unit) == (type(depth), "disparity")
    np.testing.assert_array_equal(jax.grad(lambda d: jnp.sum(d * d))(depth).values, 2 * depth.values)
