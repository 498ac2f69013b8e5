"""`Model`: photos of any kind in, `Depth` out, and the pure function beside it."""

import jax
import numpy as np
import pytest
from PIL import Image

import dav2_jax as dav2
from dav2_jax.errors import Dav2Error
from dav2_jax.inference.preprocess import postprocess, preprocess


@pytest.fixture(scope="module")
def model(small_pth):
    return dav2.load(small_pth)


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
    for wrong in (tmp_path / "nothing.png", tmp_path / "photo.png"):
        with pytest.raises(Dav2Error) as caught:
            model.predict(wrong, input_size=5)
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
    assert [tap.shape for tap in taps] == [(2, 3, 384)] * 4


def test_gradient_through_the_photo(model, photo):
    """Depth is differentiable in the image: test-time optimisation needs no more than this."""
    x = preprocess(photo, 28)
    gradient = jax.jit(jax.grad(lambda x: model.fn(model.params, x[None]).sum()))(x)
    assert gradient.shape == x.shape
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_bfloat16(small_pth, model, photo):
    fast = dav2.load(small_pth, dtype="bfloat16")
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
