"""The strong set: its formulas against colorsys and SciPy, its draws against their law, and CutMix's two regions."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from dav2_jax import sharding
from dav2_jax.data import strong
from dav2_jax.data.strong import Strong


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """float32 [8, 20, 30, 3]"""
    return np.random.default_rng(0).random((8, 20, 30, 3)).astype(np.float32)


SEEDS = np.random.default_rng(5).integers(2**32, size=8, dtype=np.uint32)


def torchvision_jitter(x, factors, turn, order):
    """ColorJitter as torchvision documents it, in float64, the hue by the standard library."""
    for kind in order:
        gray = x @ [0.2989, 0.587, 0.114]
        if kind < 3:
            other = [0.0, gray.mean(), gray[..., None]][kind]
            x = np.clip(factors[kind] * x + (1 - factors[kind]) * other, 0, 1)
        else:
            hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in x.reshape(-1, 3)]
            turned = [colorsys.hsv_to_rgb((h + turn) % 1, s, v) for h, s, v in hsv]
            x = np.array(turned).reshape(x.shape)
    return x


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_jitter_is_that_of_torchvision(images, order):
    x = images[0].copy()
    x[0] = 0.5  # gray: no hue
    factors, turn = np.array([1.4, 0.6, 1.3], np.float32), 0.2 if order[0] else -0.25
    ours = jax.jit(strong.color_jitter)(jnp.asarray(x), jnp.asarray(factors), jnp.float32(turn), jnp.asarray(order))
    expected = torchvision_jitter(x.astype(np.float64), factors.astype(np.float64), turn, order)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("sigma", [0.1, 0.9, 2.0])
def test_blur_is_a_gaussian_with_the_border_repeated(images, sigma):
    ours = jax.jit(strong.gaussian_blur, static_argnums=2)(images[0], jnp.float32(sigma), 6)
    expected = ndimage.gaussian_filter(images[0], (sigma, sigma, 0), mode="nearest", radius=(6, 6, 0))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


def test_each_kind_by_itself(images):
    seeds = jnp.arange(2000, dtype=jnp.uint32)
    small = jnp.asarray(np.repeat(images[:1, :4, :4], 2000, axis=0))

    def changed(**settings):
        run = jax.jit(functools.partial(strong.photometric, settings=Strong(**({"jitter": 0, "gray": 0} | settings))))
        out = np.asarray(run(small, seeds))
        return out, (np.abs(out - small) > 1e-6).any((1, 2, 3))

    out, which = changed(blur=0, gray=0.2)
    assert abs(which.mean() - 0.2) < 0.03
    np.testing.assert_allclose(out[which][..., 0], out[which][..., 2], atol=1e-6)
    assert abs(changed(blur=0.5)[1].mean() - 0.47) < 0.04  # at sigma of 0.1 to 0.2 nothing moves
    assert abs(changed(blur=0, jitter=0.8)[1].mean() - 0.8) < 0.03


def test_draws_of_jitter_cover_their_ranges():
    keys = jax.random.split(jax.random.key(0), 4000)
    factors, turn, order = jax.vmap(functools.partial(strong._draw_jitter, settings=Strong()))(keys)
    np.testing.assert_allclose(factors.min(0), 0.5, atol=0.01)
    np.testing.assert_allclose(factors.max(0), 1.5, atol=0.01)
    np.testing.assert_allclose((turn.min(), turn.max()), (-0.25, 0.25), atol=0.01)
    assert len(np.unique(np.asarray(order) @ [64, 16, 4, 1])) == 24  # every order


def test_an_example_gets_the_same_in_any_batch_and_on_any_devices(images):
    run = jax.jit(strong.photometric)
    whole = np.asarray(run(images, SEEDS))
    assert np.abs(whole - images).max() > 0.1
    order = np.array([3, 1, 7])
    np.testing.assert_allclose(run(images[order], SEEDS[order]), whole[order], rtol=0, atol=1e-6)

    split = sharding.batch_sharding(sharding.make_mesh(jax.devices(), fsdp=2))
    together = jax.jit(strong.strong)(*(jax.device_put(x, split) for x in (images, SEEDS)))
    alone = jax.jit(strong.cutmix)(whole, SEEDS)
    np.testing.assert_array_equal(together.mask, alone.mask)
    np.testing.assert_allclose(together.images, alone.images, rtol=0, atol=1e-6)

    outside = np.asarray(run(images * 1.5 - 0.2, SEEDS))  # the overshoot of a cubic, and more
    assert 0 <= outside.min() <= outside.max() <= 1


def test_bytes_become_the_unit_range_and_the_networks_input(images):
    stored = np.rint(images[:1] * 255).astype(np.uint8)
    np.testing.assert_allclose(strong.unit(stored), stored / 255, rtol=0, atol=1e-7)
    expected = (stored / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(strong.network_input(stored), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(strong.network_input(np.float32(stored / 255)), expected, rtol=0, atol=1e-6)


def test_cutmix_takes_the_inside_from_the_partner_and_keeps_the_books(images):
    mixed = jax.jit(strong.cutmix, static_argnums=2)(images, SEEDS, Strong(cutmix=1))
    assert mixed.partner.tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    mask = np.asarray(mixed.mask)
    for row, partner in enumerate(mixed.partner):
        assert mask[row].any()
        assert not mask[row].all()
        np.testing.assert_array_equal(mixed.images[row][mask[row]], images[partner][mask[row]])
        np.testing.assert_array_equal(mixed.images[row][~mask[row]], images[row][~mask[row]])
        rows, columns = np.flatnonzero(mask[row].any(1)), np.flatnonzero(mask[row].any(0))
        assert mask[row].sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # one whole rectangle
    maps = np.arange(8.0)
    np.testing.assert_array_equal(strong.of_partner(jnp.asarray(maps)), maps[np.asarray(mixed.partner)])


def unimatch_box(rng, size, low, high):
    """The loop of UniMatch-V2's `obtain_cutmix_box`, as (top, left, height, width)."""
    area = rng.uniform(low, high) * size * size
    while True:
        ratio = rng.uniform(0.3, 1 / 0.3)
        wide, tall = int(np.sqrt(area / ratio)), int(np.sqrt(area * ratio))
        left, top = rng.integers(0, size, 2)
        if left + wide <= size and top + tall <= size:
            return top, left, tall, wide


def test_rectangles_follow_the_law_of_unimatch():
    size, count = 64, 6000
    rng = np.random.default_rng(0)
    expected = np.array([unimatch_box(rng, size, 0.02, 0.4) for _ in range(count)])
    draw = functools.partial(strong._rectangle, height=size, width=size, settings=Strong(cutmix=1))
    mask = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), count)))
    rows, columns = mask.any(2), mask.any(1)
    ours = np.stack([rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)], -1)
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        np.testing.assert_allclose(np.quantile(ours, quantile, 0), np.quantile(expected, quantile, 0), atol=1.6)
    # the share of rectangles is checked with the probability of 0.5 at its default
    half = functools.partial(strong._rectangle, height=8, width=8, settings=Strong())
    mask = jax.jit(jax.vmap(half))(jax.random.split(jax.random.key(2), 2000))
    assert abs(np.asarray(mask).any((1, 2)).mean() - 0.5) < 0.04
