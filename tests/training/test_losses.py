"""The losses by hand and against PyTorch; what they must not depend on; and that nothing makes them NaN by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from dav2_jax.sharding import batch_sharding, make_mesh
from dav2_jax.training import losses

RELATIVE = {
    "ssi": losses.ssi,
    "ssi trimmed": lambda *maps, **more: losses.ssi(*maps, trim=0.1, **more),
    "gm": losses.gradient_matching,
    "both": lambda *maps, **more: losses.relative_loss(*maps, **more)[0],
}
relative = pytest.mark.parametrize("loss", RELATIVE.values(), ids=RELATIVE)


def scene(batch=3, height=17, width=25, seed=0):
    """(prediction, target, valid) with masks of different sizes; float64, positive."""
    rng = np.random.default_rng(seed)
    target = rng.gamma(2.0, 1.0, (batch, height, width))
    prediction = 3 * target + rng.gamma(2.0, 1.0, target.shape) + 5
    valid = rng.random(target.shape) < np.linspace(0.3, 1, batch)[:, None, None]
    return prediction, target, valid


def f32(*maps):
    return [jnp.asarray(a, bool if a.dtype == bool else jnp.float32) for a in maps]


@functools.cache
def compiled(loss):
    return jax.jit(jax.value_and_grad(loss))


def value_and_grad(loss, *maps):
    return compiled(loss)(*maps)


def value(loss, *maps) -> float:
    return float(compiled(loss)(*maps)[0])


# ---------------------------------------------------------------- by hand

LINE = np.arange(1.0, 11.0).reshape(1, 1, 10)


def bent():
    """Target 1..10: median 5, deviations 4 3 2 1 0 1 2 3 4 5, mean 2.5. The prediction ends with 20 in place of 10:
    median 5, mean deviation (20 + 15) / 10 = 3.5. So with 1 / 3.5 - 1 / 2.5 = -4 / 35 the difference of the normalized
    maps is -4 / 35 * (1..9 - 5) and, at the end, 15 / 3.5 - 5 / 2.5 = 80 / 35.
    """
    prediction = LINE.copy()
    prediction[..., -1] = 20
    return f32(prediction, LINE, np.ones(LINE.shape, bool))


def test_normalization_by_hand():
    prediction, _, valid = bent()
    values, shift, scale = losses.affine_normalize(prediction, valid)
    assert (shift.tolist(), scale.tolist()) == ([5], [3.5])
    np.testing.assert_allclose(values[0, 0] * 3.5, [-4, -3, -2, -1, 0, 1, 2, 3, 4, 15], rtol=1e-6)


def test_ssi_by_hand():
    """(20 * 4 + 80) / 35 / 10; without the largest one of ten, 20 * 4 / 35 / 10."""
    assert losses.ssi(*bent()) == pytest.approx(16 / 35, rel=1e-6)
    assert losses.ssi(*bent(), trim=0.1) == pytest.approx(8 / 35, rel=1e-6)


def test_gradient_matching_by_hand():
    """In 35ths. All pixels: eight steps of 4 and one from -16 to 80, of 10 pixels. Every 2nd: 1 3 5 7 9, four steps of
    8, of 5. Every 4th: 1 5 9, two of 16, of 3. Every 8th: 1 9, one of 32, of 2."""
    expected = np.cumsum([(8 * 4 + 96) / 10, 4 * 8 / 5, 2 * 16 / 3, 32 / 2]) / 35
    for scales in (1, 2, 3, 4):
        assert losses.gradient_matching(*bent(), scales=scales) == pytest.approx(expected[scales - 1], rel=1e-6)
    upright = [a.transpose(0, 2, 1) for a in bent()]
    assert losses.gradient_matching(*upright) == pytest.approx(expected[3], rel=1e-6)


def test_relative_loss_is_one_to_two_and_says_its_parts():
    loss, parts = losses.relative_loss(*bent())
    assert parts["ssi"] == pytest.approx(8 / 35, rel=1e-6)  # trimmed by 10 %
    assert loss == parts["ssi"] + 2 * parts["gm"]
    loss, parts = losses.relative_loss(*bent(), gm_weight=0.5, trim=0.0, scales=1)
    assert loss == pytest.approx(16 / 35 + 0.5 * 12.8 / 35, rel=1e-6)


def test_fixed_scale_by_hand():
    """The target 1, 5, 9, ... 37 has a median of 17 and a mean deviation of 10, so it is to be 0.4, 0.8, ... 4.0."""
    _, _, valid = bent()
    target = 1 + 4 * np.arange(10.0)[None, None]
    aim = 2 + (target - 17) / 10
    loss, parts = losses.fixed_scale_loss(*f32(aim, target, valid))
    assert loss == pytest.approx(0, abs=1e-6)
    off = aim.copy()
    off[..., -1] += 3
    loss, parts = losses.fixed_scale_loss(*f32(off, target, valid), gm_weight=0.5, scales=1)
    assert (parts["ssi"], parts["gm"]) == (pytest.approx(0.3, rel=1e-5), pytest.approx(0.3, rel=1e-5))
    assert loss == pytest.approx(0.45, rel=1e-5)
    assert losses.fixed_scale_loss(*f32(2 * aim, target, valid))[1]["ssi"] == pytest.approx(aim.mean(), rel=1e-5)
    assert losses.fixed_scale_loss(*f32(aim, 7 * target, valid))[0] == pytest.approx(0, abs=1e-5)


def test_fixed_scale_cuts_what_is_far_and_what_is_very_near():
    target = np.array([[[0.0] * 4 + [10.0] * 20 + [1000.0]]])
    _, parts = losses.fixed_scale_loss(*f32(np.zeros_like(target), target, np.ones(target.shape, bool)))
    deviation = (4 * 10 + 990) / 25
    assert parts["ssi"] == pytest.approx((4 * (2 - 10 / deviation) + 20 * 2 + losses.FIXED_MOST) / 25, rel=1e-5)


def test_aligned_by_hand():
    """Disparities 1 and 3, predicted as 0 and 2, with two pixels of sky: the fit is exact. Where half of the ones is
    predicted as 2 too, the line goes through the means, 1 at 0 and 2 at 2: a quarter of the pixels is twice too near,
    half of them by 2 / 3 too far. Sky takes no part."""
    target = np.array([[[1.0] * 8 + [3.0] * 4 + [0.0] * 2]])
    right, wrong = target - 1, np.where(np.arange(14) < 4, 2, target - 1)
    every = np.ones(target.shape, bool)
    assert losses.aligned_loss(*f32(right, target, every))[1]["miss"] == pytest.approx(0, abs=1e-6)
    wrong = np.where(np.arange(14) < 12, wrong, 50)
    limit = np.log(1.25)
    expected = (4 * np.log(2) / (np.log(2) + limit) + 4 * np.log(1.5) / (np.log(1.5) + limit)) / 12
    loss, parts = losses.aligned_loss(*f32(wrong, target, every))
    assert parts["miss"] == pytest.approx(expected, rel=1e-5)
    rest, more = losses.fixed_scale_loss(*f32(wrong, target, every))
    assert loss == pytest.approx(float(parts["miss"] + 0.3 * rest), rel=1e-6)
    assert more == {name: parts[name] for name in ("ssi", "gm")}
    few = every & (np.arange(14) > 2)  # 9 with a depth
    assert losses.aligned_loss(*f32(wrong, target, few))[1]["miss"] == 0
    both = f32(*(np.concatenate(pair) for pair in ((wrong, wrong), (target, target), (every, few))))
    assert losses.aligned_loss(*both)[1]["miss"] == pytest.approx(expected, rel=1e-5)  # the mean over one image


@pytest.mark.parametrize(("scale", "shift"), [(7.0, 0.0), (1.0, -30.0), (-0.1, 3.0)])
def test_what_is_aligned_has_no_scale_and_shift(scale, shift):
    prediction, target, valid = scene()
    clean = losses.aligned_loss(*f32(prediction, target, valid))[1]["miss"]
    changed = losses.aligned_loss(*f32(scale * prediction + shift, target, valid))[1]["miss"]
    assert changed == pytest.approx(float(clean), rel=1e-4)


def test_a_difference_needs_two_valid_pixels():
    """Without the ninth pixel: 1..8 and 10 or 20. Medians 5, deviations 4 3 2 1 0 1 2 3 5 (15): 21 / 9 and 31 / 9.
    The step to the last pixel is not counted, and there are nine. With one more valid pixel: ten, see MIN_VALID."""
    prediction, target, valid = bent()
    prediction, target = (jnp.concatenate([a, a[..., :1]], -1) for a in (prediction, target))  # a 1 at the end
    valid = jnp.ones(target.shape, bool).at[..., 8].set(False)
    # 1 1 2 3 4 5 6 7 8 and the end: the median is 4, deviations 3 3 2 1 0 1 2 3 4 and 6 (16): 25 / 10 and 35 / 10
    factor = 1 / 3.5 - 1 / 2.5
    end = 16 / 3.5 - 6 / 2.5
    steps = 7 * abs(factor) + abs(end - -3 * factor)
    assert losses.gradient_matching(prediction, target, valid, scales=1) == pytest.approx(steps / 10, rel=1e-6)


def test_silog_by_hand():
    """log ratios log 2 and 0: mean square log(2)^2 / 2, mean log(2) / 2."""
    prediction, target = jnp.array([[[1.0, 3.0, 9.0]]]), jnp.array([[[2.0, 3.0, 1.0]]])
    valid = jnp.array([[[True, True, False]]])
    assert losses.silog(prediction, target, valid) == pytest.approx(np.log(2) * np.sqrt(1 / 2 - 0.5 / 4), rel=1e-6)
    assert losses.silog(prediction, target, valid, lambd=1) == pytest.approx(np.log(2) / 2, rel=1e-6)  # blind to scale


def test_feature_alignment_by_hand():
    """Cosines 1, 0.8, 0 and 0.86, of which the first and the last are above the margin: (0.2 + 1) / 4."""
    frozen = jnp.array([[[1.0, 0], [1, 0], [1, 0], [1, 0]]])
    features = jnp.array([[[3.0, 0], [8, 6], [0, 5], [0.86, np.sqrt(1 - 0.86**2)]]])
    assert losses.feature_alignment(features, frozen) == pytest.approx(0.3, rel=1e-6)
    assert losses.feature_alignment(features, 7 * frozen, margin=1.0) == pytest.approx(1.34 / 4, rel=1e-6)
    some = jnp.array([[False, True, False, True]])
    assert losses.feature_alignment(features, frozen, some) == pytest.approx(0.1, rel=1e-6)


# ---------------------------------------------------------------- PyTorch


def torch_normalized(values):
    centered = values - values.median()
    return centered / centered.abs().mean()


def torch_residuals(prediction, target, valid):
    """One [H, W] an image, with NaN where not valid."""
    maps = []
    for p, t, m in zip(prediction, target, valid, strict=True):
        full = torch.full_like(p, torch.nan)
        full[m] = torch_normalized(p[m]) - torch_normalized(t[m])
        maps.append(full)
    return maps


def torch_ssi(prediction, target, valid, trim=0):
    total, count = 0, 0
    for residual in torch_residuals(prediction, target, valid):
        sizes = residual[~residual.isnan()].abs().sort().values
        total, count = total + sizes[: len(sizes) * (100 - trim) // 100].sum(), count + len(sizes)
    return total / count


def torch_gm(prediction, target, valid, residuals=torch_residuals):
    loss = 0
    for step in (1, 2, 4, 8):
        total, count = 0, 0
        for residual in residuals(prediction, target, valid):
            coarse = residual[::step, ::step]
            for differences in (coarse[1:] - coarse[:-1], coarse[:, 1:] - coarse[:, :-1]):
                total = total + differences[~differences.isnan()].abs().sum()
            count = count + (~coarse.isnan()).sum()
        loss = loss + total / count
    return loss


def torch_silog(prediction, target, valid):
    ratio = torch.log(target[valid]) - torch.log(prediction[valid])
    return torch.sqrt((ratio**2).mean() - 0.5 * ratio.mean() ** 2)


def torch_at_fixed_scale(prediction, target, valid):
    """Residuals: one [H, W] an image, with NaN where not valid."""
    for p, t, m in zip(prediction, target, valid, strict=True):
        full = torch.full_like(p, torch.nan)
        full[m] = p[m] - (torch_normalized(t[m]) + 2).clip(0, 12)
        yield full


def torch_aligned(prediction, target, valid):
    misses, sizes = [], torch.cat([r.abs().flatten() for r in torch_at_fixed_scale(prediction, target, valid)])
    for p, t, m in zip(prediction, target, valid, strict=True):
        p, t = p[m], t[m]
        slope = ((p - p.mean()) * (t - t.mean())).mean() / p.var(correction=0)
        fitted = (slope * (p - p.mean()) + t.mean()).clip(min=t.min())
        error = (fitted.log() - t.log()).abs()
        misses.append((error / (error + np.log(1.25))).mean())
    gm = torch_gm(prediction, target, valid, torch_at_fixed_scale)
    return sum(misses) / len(misses) + 0.3 * (sizes.nanmean() + 0.2 * gm)


def aligned(*maps, **more):
    return losses.aligned_loss(*maps, **more)[0]


PAIRS = {
    "aligned": (aligned, torch_aligned),
    "ssi": (losses.ssi, torch_ssi),
    "ssi trimmed": (RELATIVE["ssi trimmed"], lambda *maps: torch_ssi(*maps, trim=10)),
    "gm": (losses.gradient_matching, torch_gm),
    "both": (RELATIVE["both"], lambda *maps: torch_ssi(*maps, trim=10) + 2 * torch_gm(*maps)),
    "silog": (losses.silog, torch_silog),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)
def test_value_and_gradient_are_those_of_pytorch(ours, theirs, seed):
    maps = scene(seed=seed)
    prediction, target, valid = map(torch.from_numpy, maps)
    prediction.requires_grad_()
    expected = theirs(prediction, target, valid)
    expected.backward()
    loss, gradient = value_and_grad(ours, *f32(*maps))
    assert loss.dtype == gradient.dtype == jnp.float32
    assert loss == pytest.approx(expected.item(), rel=2e-6)
    wanted = prediction.grad.numpy()
    assert np.linalg.norm(gradient - wanted) < 1e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize("ours", [pair[0] for pair in PAIRS.values()], ids=PAIRS)
def test_gradient_is_that_of_finite_differences(ours):
    with jax.enable_x64(True):
        prediction, target, valid = map(jnp.asarray, scene())
        _, gradient = value_and_grad(ours, prediction, target, valid)
        assert gradient.dtype == jnp.float64
        for seed in range(4):
            way = jax.random.normal(jax.random.key(seed), prediction.shape, jnp.float64)
            up, down = (value(ours, prediction + step * way, target, valid) for step in (1e-7, -1e-7))
            assert (gradient * way).sum() == pytest.approx((up - down) / 2e-7, rel=1e-5, abs=1e-7)


def test_feature_alignment_and_its_gradient_are_those_of_pytorch():
    rng = np.random.default_rng(0)
    frozen = rng.normal(size=(2, 30, 16))
    start = frozen + rng.normal(size=frozen.shape) * rng.uniform(0, 2, (2, 30, 1))
    features = torch.tensor(start, requires_grad=True)
    cosine = torch.nn.functional.cosine_similarity(features, torch.tensor(frozen), dim=-1)
    assert 10 < (cosine > 0.85).sum() < 50
    expected = (1 - cosine[cosine <= 0.85]).sum() / cosine.numel()
    expected.backward()
    loss, gradient = value_and_grad(losses.feature_alignment, *f32(start, frozen))
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, features.grad, rtol=1e-4, atol=1e-7)
    assert (gradient[np.asarray(cosine.detach() > 0.85)] == 0).all()


def cut(seed=0):
    """(prediction, target_inside, target_outside, inside, valid); the last image is not mixed."""
    prediction, first, valid = scene(seed=seed)
    _, second, _ = scene(seed=seed + 100)
    inside = np.zeros(valid.shape, bool)
    inside[0, 2:9, 3:20] = inside[1, :, 10:] = True
    return prediction, first, second, inside, valid


@pytest.mark.parametrize("trim", [0.0, 0.1])
def test_cutmix_weighs_its_two_regions_by_area(trim):
    """sum(M) / n * L inside + sum(1 - M) / n * L outside, each region on its own in PyTorch."""
    maps = cut()
    prediction, first, second, inside, valid = map(torch.from_numpy, maps)
    regions = [(first, valid & inside, 2), (second, valid & ~inside, 3)]
    expected = sum(
        region.sum() / valid.sum() * torch_ssi(prediction[:n], target[:n], region[:n], trim=round(100 * trim))
        for target, region, n in regions
    )
    loss, parts = losses.cutmix_loss(*f32(*maps), trim=trim, scales=2)
    assert parts["ssi"] == pytest.approx(expected.item(), rel=2e-6)
    assert loss == parts["ssi"] + 2 * parts["gm"]


def test_cutmix_regions_have_their_own_shift_and_scale():
    _, first, second, inside, valid = cut()
    prediction = np.where(inside, 3 * first + 1, 0.2 * second + 40)
    loss = losses.cutmix_loss(*f32(prediction, first, second, inside, valid))[0]
    assert loss < 1e-3  # a shift of 40 costs float32 some digits
    poisoned = [np.where(inside, first, np.nan), np.where(inside, np.nan, second)]  # what is behind the other one
    assert losses.cutmix_loss(*f32(prediction, *poisoned, inside, valid))[0] == loss
    assert losses.relative_loss(*f32(prediction, np.where(inside, first, second), valid))[0] > 0.5


def test_cutmix_of_images_that_are_not_mixed_is_the_plain_loss():
    prediction, first, second, inside, valid = f32(*cut())
    loss = losses.cutmix_loss(prediction, first, second, inside & False, valid)[0]
    assert loss == pytest.approx(float(losses.relative_loss(prediction, second, valid)[0]), rel=1e-6)


# ---------------------------------------------------------------- invariances


@relative
@pytest.mark.parametrize(("scale", "shift"), [(7.0, 0.0), (1.0, -30.0), (0.01, 3.0), (1e30, 0.0), (1e-30, 0.0)])
def test_scale_and_shift_of_prediction_and_target(loss, scale, shift):
    prediction, target, valid = scene()
    clean, gradient = value_and_grad(loss, *f32(prediction, target, valid))
    changed, slope = value_and_grad(loss, *f32(scale * prediction + shift, target, valid))
    assert changed == pytest.approx(float(clean), rel=2e-4 if shift else 1e-5)  # float32 rounds what is shifted
    assert np.linalg.norm(slope * np.float64(scale) - gradient) < 2e-3 * np.linalg.norm(gradient)
    changed, slope = value_and_grad(loss, *f32(prediction, scale * target + shift, valid))
    assert changed == pytest.approx(float(clean), rel=2e-4 if shift else 1e-5)
    assert np.linalg.norm(slope - gradient) < 2e-3 * np.linalg.norm(gradient)
    assert abs(value_and_grad(loss, *f32(-prediction, target, valid))[0] - clean) > 0.1  # near and far swapped


@relative
def test_a_perfect_prediction_costs_nothing_and_worse_ones_cost_more(loss):
    _, target, valid = scene()
    noise = np.random.default_rng(1).normal(size=target.shape)
    costs = [value(loss, *f32(4 * target + 2 + size * noise, target, valid)) for size in (0, 0.1, 0.3, 1, 3, 10)]
    assert costs[0] < 1e-5
    assert (np.diff(costs) > 0.01).all()


@pytest.mark.parametrize("loss", [pair[0] for pair in PAIRS.values()], ids=PAIRS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 0.0, -1e38])
def test_content_under_the_mask(loss, poison):
    prediction, target, valid = f32(*scene())
    clean = value_and_grad(loss, prediction, target, valid)
    dirty = value_and_grad(loss, *(jnp.where(valid, a, poison) for a in (prediction, target)), valid)
    assert dirty[0] == clean[0]
    np.testing.assert_array_equal(dirty[1], clean[1])
    assert (np.asarray(clean[1])[~valid] == 0).all()


@pytest.mark.parametrize("loss", [pair[0] for pair in PAIRS.values()], ids=PAIRS)
def test_order_of_the_batch_and_flips(loss):
    """A stride of 8 meets the same pixels from both ends of 17 and 25; of 518 it does not, and there flipping moves
    the pixels that L_gm looks at."""
    maps = f32(*scene())
    clean, slope = value_and_grad(loss, *maps)
    for turn in (lambda a: a[jnp.array([2, 0, 1])], lambda a: a[:, ::-1], lambda a: a[:, :, ::-1]):
        value, gradient = value_and_grad(loss, *map(turn, maps))
        assert value == pytest.approx(float(clean), rel=5e-6)  # the order of the sums changes
        np.testing.assert_allclose(gradient, turn(slope), rtol=1e-4, atol=1e-8)


def test_gradient_does_not_depend_on_the_side_that_equal_values_are_on():
    """Half of the picture is 0, as ReLU leaves it, and the median is one of those zeros."""
    prediction, target, valid = f32(*scene())
    prediction = jnp.where(prediction < jnp.median(prediction), 0, prediction)
    _, gradient = value_and_grad(losses.ssi, prediction, target, valid)
    _, mirrored = value_and_grad(losses.ssi, *(a[:, :, ::-1] for a in (prediction, target, valid)))
    np.testing.assert_allclose(mirrored[:, :, ::-1], gradient, rtol=1e-4, atol=1e-8)


def everything(prediction, target, valid, other, inside):
    """All losses of a batch; features are rows of the maps."""
    return (
        losses.silog(prediction, target, valid)
        + losses.relative_loss(prediction, target, valid)[0]
        + losses.aligned_loss(prediction, target, valid)[0]
        + losses.cutmix_loss(prediction, target, other, inside, valid)[0]
        + losses.feature_alignment(prediction - 8, target, valid.any(-1), margin=0.5)
    )


def shared_batch():
    prediction, target, valid = scene(8)
    valid[1] = False
    target[2] = 3.0
    other, inside = np.roll(target, 1, 0), np.zeros(valid.shape, bool)
    inside[::2, 3:9, 5:20] = True
    return f32(prediction, target, valid, other, inside)


@pytest.fixture(scope="module")
def on_one_device():
    return jax.jit(jax.value_and_grad(everything))(*shared_batch())


def test_any_number_of_devices(on_one_device):
    """Each image's sums are made on one device; only the order of adding up images may differ, in the last bits."""
    maps = shared_batch()
    value, gradient = on_one_device
    split = batch_sharding(make_mesh(jax.devices()[:8]))
    maps = jax.device_put(maps, split)
    shared, slope = jax.jit(jax.value_and_grad(everything), in_shardings=(split,) * 5)(*maps)
    assert slope.sharding.is_equivalent_to(split, 3)
    assert shared == pytest.approx(float(value), rel=1e-6)
    assert np.linalg.norm(slope - gradient) < 1e-6 * np.linalg.norm(gradient)


# ---------------------------------------------------------------- nothing to learn from


@pytest.mark.parametrize("loss", [*RELATIVE.values(), aligned], ids=[*RELATIVE, "aligned"])
@pytest.mark.parametrize(
    "case", ["no valid pixel", "one valid pixel", "too few", "all sky", "constant", "rounding noise"]
)
def test_an_image_that_says_nothing_does_not_count(loss, case):
    prediction, target, valid = scene()
    if case in ("all sky", "constant"):
        target[1] = 0.0 if case == "all sky" else 0.1
    elif case == "rounding noise":
        target[1] = np.float32(0.1) * (1 + 1e-7 * np.random.default_rng(0).integers(-1, 2, target[1].shape))
    else:
        count = {"no valid pixel": 0, "one valid pixel": 1, "too few": losses.MIN_VALID - 1}[case]
        valid[1] = np.arange(valid[1].size).reshape(valid[1].shape) < count
    value, gradient = value_and_grad(loss, *f32(prediction, target, valid))
    others, slope = value_and_grad(loss, *f32(prediction[::2], target[::2], valid[::2]))
    assert value == pytest.approx(float(others), rel=1e-6)
    assert (np.asarray(gradient[1]) == 0).all()
    np.testing.assert_allclose(gradient[::2], slope, rtol=1e-5, atol=1e-9)

    prediction[1] = np.nan  # whatever happens there
    again, gradient = value_and_grad(loss, *f32(prediction, target, valid))
    assert again == pytest.approx(float(others), rel=1e-6)
    assert (np.asarray(gradient[1]) == 0).all()

    nothing, gradient = value_and_grad(loss, *f32(prediction[1:2], target[1:2], valid[1:2]))
    assert nothing == 0
    assert (np.asarray(gradient) == 0).all()


def test_as_many_valid_pixels_as_are_needed():
    prediction, target, valid = scene(1)
    valid[0] = np.arange(valid[0].size).reshape(valid[0].shape) < losses.MIN_VALID
    assert value(losses.ssi, *f32(prediction, target, valid)) > 0.01


@pytest.mark.parametrize("constant", [0.0, 2.5])
def test_a_collapsed_prediction_is_not_a_good_one(constant):
    """Its loss is 1, the mean of |t|, and the gradient leads away from it."""
    _, target, valid = f32(*scene())
    flat = jnp.full(target.shape, constant)
    loss, gradient = value_and_grad(losses.ssi, flat, target, valid)
    assert loss == pytest.approx(1, rel=1e-6)
    assert np.isfinite(gradient).all()
    assert value(losses.ssi, flat - 1e-3 * gradient / abs(gradient).max(), target, valid) < 0.95
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(value_and_grad(RELATIVE["both"], flat, target, valid)))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("loss", [*RELATIVE.values(), aligned], ids=[*RELATIVE, "aligned"])
def test_a_broken_value_at_a_valid_pixel_is_not_hidden(loss, broken):
    prediction, target, _ = f32(*scene())
    valid = jnp.ones(target.shape, bool)
    assert np.isnan(value(loss, prediction.at[1, 4, 8].set(broken), target, valid))
    assert np.isnan(value(loss, prediction, target.at[1, 4, 8].set(broken), valid))
    assert np.isnan(value(losses.silog, prediction.at[1, 4, 8].set(np.nan), target, valid))


def test_silog_of_a_perfect_prediction_and_of_nothing():
    _, target, valid = f32(*scene())
    for mask in (valid, valid & False, valid.at[:].set(False).at[0, 0, 0].set(True)):
        loss, gradient = value_and_grad(losses.silog, target, target, mask)
        assert loss == 0
        assert (np.asarray(gradient) == 0).all()


def test_silog_bears_a_prediction_that_underflowed():
    prediction, target, valid = f32(*scene())
    for small in (0.0, 1e-45, 1e-38, 2e-38):
        loss, gradient = value_and_grad(losses.silog, prediction.at[2, 0, 0].set(small), target, valid)
        assert 1 < loss < 100
        assert np.isfinite(gradient).all()
    assert gradient[2, 0, 0] < 0  # up, away from 0


def test_silog_of_a_constant_factor():
    _, target, valid = f32(*scene())
    for factor in (0.5, 1.01, 100.0):
        loss = value(losses.silog, factor * target, target, valid)
        assert loss == pytest.approx(np.sqrt(0.5) * abs(np.log(factor)), rel=1e-4)


def test_feature_alignment_bears_zeros():
    frozen = jnp.ones((1, 3, 4))
    features = jnp.stack([jnp.zeros(4), jnp.ones(4), jnp.full(4, jnp.nan)])[None]
    valid = jnp.array([[True, True, False]])
    loss, gradient = value_and_grad(losses.feature_alignment, features, frozen, valid)
    assert loss == 0.5
    assert (np.asarray(gradient) == 0).all()
    assert losses.feature_alignment(features, frozen, valid & False) == 0
    with pytest.raises(ValueError, match="do not match"):
        losses.feature_alignment(features, frozen[:, :2])


# ---------------------------------------------------------------- trimming, types, shapes


def test_trimming_keeps_the_floor_of_nine_tenths():
    rng = np.random.default_rng(0)
    counts = np.arange(0, 400)
    residuals = rng.random((400, 20, 20))
    valid = np.argsort(rng.random((400, 400)), -1).reshape(residuals.shape) < counts[:, None, None]
    weights = np.asarray(losses.trim(*f32(residuals, valid)))
    assert set(np.unique(weights)) == {0, 1}
    np.testing.assert_array_equal(weights.sum((1, 2)), counts * 9 // 10)
    assert not weights[~valid].any()
    for w, r, m in zip(weights.astype(bool), residuals, valid, strict=True):
        assert r[w].max(initial=0) < r[m & ~w].min(initial=2)


@pytest.mark.parametrize(("share", "keep"), [(0.2, 80), (0.29, 71), (0.3, 70), (0.5, 50), (0.0, 100), (1.0, 0)])
def test_trimming_counts_in_integers(share, keep):
    residuals = jnp.arange(1024.0).reshape(1, 32, 32)
    assert losses.trim(residuals, residuals < 100, share).sum() == keep


def test_trimming_of_large_images():
    """0.9 N of 2100 x 2100 pixels, where float32 is off by one and N * 10000 no int32."""
    residuals = jax.random.uniform(jax.random.key(0), (1, 2100, 2100))
    weights = losses.trim(residuals, jnp.ones(residuals.shape, bool))
    assert weights.sum(dtype=jnp.int32) == 2100 * 2100 * 9 // 10


def test_trimming_shares_equals():
    """Of 1 2 2 2 2 2 2 2 2 3 nine stay: the eight 2, and the 1. Of ten times 2, nine tenths of each."""
    residuals = jnp.array([[[1.0, 2, 2, 2, 2, 2, 2, 2, 2, 3]], [[2.0] * 10], [[1.0, 1, 1, 1, 1, 1, 1, 2, 2, 2]]])
    weights = losses.trim(residuals, jnp.ones(residuals.shape, bool))
    np.testing.assert_allclose(weights[0, 0], [1] * 9 + [0], rtol=1e-6)
    np.testing.assert_allclose(weights[1, 0], [0.9] * 10, rtol=1e-6)
    np.testing.assert_allclose(weights[2, 0], [1] * 7 + [2 / 3] * 3, rtol=1e-6)


def test_trimming_is_per_image():
    """Wrong pixels of one image do not use up what may be dropped in another."""
    prediction, target, valid = scene(2)
    valid[:] = True
    prediction[0, :1, :20] += 40  # 20 of 425
    prediction[1, :1, :20] += 4
    together = losses.ssi(*f32(prediction, target, valid), trim=0.1)
    alone = [
        losses.ssi(*f32(a[None], b[None], c[None]), trim=0.1) for a, b, c in zip(prediction, target, valid, strict=True)
    ]
    assert together == pytest.approx(float(sum(alone)) / 2, rel=1e-6)


@pytest.mark.parametrize("loss", [pair[0] for pair in PAIRS.values()], ids=PAIRS)
def test_bfloat16_is_computed_in_float32(loss):
    prediction, target, valid = f32(*scene())
    half = prediction.astype(jnp.bfloat16)
    value, gradient = value_and_grad(loss, half, target, valid)
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    full, slope = value_and_grad(loss, half.astype(jnp.float32), target, valid)
    assert value == pytest.approx(float(full), rel=1e-6)
    np.testing.assert_allclose(gradient.astype(jnp.float32), slope, rtol=2**-8, atol=1e-9)
    assert loss(half, target.astype(jnp.bfloat16), valid).dtype == jnp.float32


def test_no_gradient_to_the_target():
    prediction, target, valid = f32(*scene())
    for loss, _ in PAIRS.values():
        assert not np.asarray(jax.grad(loss, argnums=1)(prediction, target, valid)).any()
    assert not np.asarray(jax.grad(losses.feature_alignment, argnums=1)(prediction, target)).any()


def test_shapes_must_be_equal():
    prediction, target, valid = f32(*scene())
    for bad in ((prediction[:1], target, valid), (prediction, target[:, None], valid), (prediction, target, valid[0])):
        with pytest.raises(ValueError, match=r"must be one \[B, H, W\]"):
            losses.relative_loss(*bad)
    with pytest.raises(ValueError, match=r"must be one \[B, H, W\]"):
        losses.cutmix_loss(prediction, target, target[:1], valid, valid)


def test_full_size_sums_keep_their_digits():
    """518 x 518 in float32 against NumPy in float64."""
    prediction, target, valid = f32(*scene(2, 518, 518))
    value = losses.ssi(prediction, target, valid)
    total = 0.0
    for p, t, m in zip(*(np.asarray(a, np.float64) for a in (prediction, target)), np.asarray(valid), strict=True):
        p, t = (a[m] - np.sort(a[m])[(m.sum() - 1) // 2] for a in (p, t))
        total += np.abs(p / np.abs(p).mean() - t / np.abs(t).mean()).sum()
    assert value == pytest.approx(total / np.asarray(valid).sum(), rel=2e-6)
