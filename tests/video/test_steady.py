"""The steady range: jitter of the network and stray pixels do not show, scenes are followed, cuts start anew."""

import numpy as np
import pytest

from dav2_jax.video.steady import CutDetector, Flicker, SteadyRange, fit, grid

FPS = 24


def scene(frames, *, seed=0, noise=0.01, pan=1):
    """Frames (image, true disparity): a floor under a wall, a ball that comes closer, and a camera that pans."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:90, 0:160].astype(np.float32)
    texture = rng.integers(0, 256, (6, 30, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    for t in range(frames):
        image = texture[:90, pan * t : pan * t + 160].copy()
        disparity = 0.2 + 0.6 * (y / 90) ** 1.5 + 0.1 * np.sin((x + pan * t) / 20)
        ball = (x - 20 - t) ** 2 + (y - 50) ** 2 < (14 + 0.2 * t) ** 2
        image[ball], disparity[ball] = (200, 60, 40), 1.1
        coarse = rng.standard_normal((12, 20), dtype=np.float32).repeat(8, axis=0)[:90].repeat(8, axis=1)
        yield image, (disparity + noise * coarse).astype(np.float32)


def jittered(clip, *, seed=1, jitter=0.1, stray=0):
    """What a relative model makes of it: each frame with a scale and a shift of its own, and a few stray pixels."""
    rng = np.random.default_rng(seed)
    for image, disparity in clip:
        values = np.exp(jitter * rng.standard_normal()) * disparity + jitter * rng.standard_normal()
        values.flat[rng.integers(0, values.size, stray)] += rng.random() * 2
        yield image, values.astype(np.float32)


def flicker(clip, limits):
    figure = Flicker()
    for number, (image, values) in enumerate(clip):
        figure.add(image, values, limits(values, number / FPS))
    return figure.percent


def by_frame(values, time):
    return values.min(), values.max()


def drawn(values, limits):
    return (values - limits[0]) / (limits[1] - limits[0])


def test_scale_and_shift_of_single_frames_do_not_show():
    steady = flicker(scene(40), SteadyRange().limits)
    assert flicker(jittered(scene(40)), SteadyRange().limits) == pytest.approx(steady, rel=1e-3)


def test_stray_pixels_do_not_show():
    """Six times steadier here than frame by frame; what is left is the noise of the network."""
    clip = list(jittered(scene(40), stray=20))
    steady = flicker(clip, SteadyRange().limits)
    assert steady < 1.15 * flicker(scene(40), SteadyRange().limits)
    assert flicker(clip, by_frame) > 6 * steady


def test_an_averaged_range_would_not_do():
    """Why frames are fitted to each other first: a range that lags shows the jitter in full."""

    class Averaged:
        ends = None

        def limits(self, values, time):
            own = np.percentile(values, (0.5, 99.5))
            self.ends = own if self.ends is None else self.ends + 0.04 * (own - self.ends)
            return self.ends

    clip = list(jittered(scene(40)))
    assert flicker(clip, Averaged().limits) > 4 * flicker(clip, SteadyRange().limits)


def test_the_first_frame_gets_its_robust_range():
    values = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    values[0, 0], values[-1, -1], values[0, 1] = -50, 90, np.nan
    np.testing.assert_allclose(SteadyRange().limits(values, 0.0), (0.005, 0.995), atol=1e-3)


def test_the_range_widens_at_once_and_narrows_slowly():
    ramp = np.linspace(0, 1, 14_400, dtype=np.float32).reshape(90, 160)
    near = ramp.copy()
    near[:20] = 3.0
    steady = SteadyRange()
    clip = [ramp] * 12 + [near] * 24 + [ramp] * 60
    highs = [steady.limits(values, number / FPS)[1] for number, values in enumerate(clip)]
    assert highs[11] == pytest.approx(0.995, abs=1e-3)
    assert highs[12 + 6] > 2.7  # a quarter of a second later
    assert highs[35] == pytest.approx(3, abs=0.01)
    assert 2.4 < highs[36 + 6] < 2.7
    assert highs[-1] < 1.4


def test_an_object_that_comes_near_does_not_darken_the_rest():
    """The range grows with it; but the picture of all else moves smoothly: a new percentile is no jump."""
    clip = list(jittered(scene(40, noise=0), jitter=0.05))
    steady = SteadyRange()
    corner = [drawn(v, steady.limits(v, n / FPS))[80:, 150:].mean() for n, (_, v) in enumerate(clip)]
    assert np.abs(np.diff(corner)).max() < 0.02


def test_a_new_scene_starts_anew():
    steady = SteadyRange()
    ramp = np.linspace(0, 1, 14_400, dtype=np.float32).reshape(90, 160)
    for number in range(5):
        steady.limits(ramp, number / FPS)
    np.testing.assert_allclose(steady.limits(700 - 100 * ramp, 5 / FPS, new_scene=True), (600.5, 699.5), atol=0.1)


def test_frames_without_a_range_change_nothing():
    ramp = np.linspace(0, 1, 14_400, dtype=np.float32).reshape(90, 160)
    for empty in (np.full_like(ramp, 7), np.full_like(ramp, np.nan)):
        steady = SteadyRange()
        assert steady.limits(empty, 0.0) == (0.0, 0.0)
        first = steady.limits(ramp, 0.1)
        assert steady.limits(empty, 0.2) == first
        np.testing.assert_allclose(steady.limits(2 * ramp + 5, 0.3), (5.01, 6.99), atol=1e-3)
        assert steady.limits(empty, 0.4, new_scene=True) == (0.0, 0.0)


def test_a_frame_that_fits_nothing_is_drawn_in_the_range_before():
    rng = np.random.default_rng(0)
    steady = SteadyRange()
    before = steady.limits(rng.random((90, 160), dtype=np.float32), 0.0)
    after = steady.limits(rng.random((90, 160), dtype=np.float32), 0.001)
    np.testing.assert_allclose(after, before, atol=0.01)


def test_fit_recovers_scale_and_shift_under_noise_and_motion():
    rng = np.random.default_rng(0)
    target = rng.random((90, 160))
    values = (target - 0.3) / 2.5
    values[:25] = (rng.random((25, 160)) - 0.3) / 2.5  # 28 % have moved
    values[-5:] = 1  # and 6 % are far off
    values[0, 0], target[1, 1] = np.nan, np.inf
    np.testing.assert_allclose(fit(values, target), (2.5, 0.3), atol=1e-6)
    scale, _ = fit(target + 0.1 * rng.standard_normal((90, 160)), target + 0.1 * rng.standard_normal((90, 160)))
    assert scale == pytest.approx(1, abs=0.02)  # least squares would give 0.89
    assert fit(rng.random((90, 160)), target) is None
    assert fit(-target, target) is None
    assert fit(np.ones((90, 160)), target) is None
    assert fit(np.full((90, 160), np.nan), target) is None


def test_many_frames_do_not_wear_the_picture_down():
    """Noise in each frame must not make the scale shrink little by little."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 2_000, dtype=np.float32).reshape(40, 50)
    steady = SteadyRange()
    for number in range(300):
        low, high = steady.limits(ramp + 0.05 * rng.standard_normal(ramp.shape, dtype=np.float32), number / FPS)
    assert low == pytest.approx(-0.05, abs=0.04)
    assert high == pytest.approx(1.05, abs=0.04)


def cuts(images):
    detector = CutDetector()
    return [number for number, image in enumerate(images) if detector.is_cut(image)]


def test_cuts_are_found_and_motion_is_none():
    rng = np.random.default_rng(3)
    first, second = ([image for image, _ in scene(20, seed=seed, pan=3)] for seed in (0, 1))
    dark = [image // 4 for image in second]
    noisy = [np.clip(f + rng.normal(0, 20, f.shape), 0, 255).astype(np.uint8) for f in first]
    assert cuts(first) == []
    assert cuts(noisy) == []
    assert cuts(first + dark + first) == [20, 40]
    assert cuts([*first, dark[0], *first]) == [20, 21]  # a flash
    fade = [(image * (1 - n / 20)).astype(np.uint8) for n, image in enumerate(first)]
    assert cuts(fade) == []
    assert cuts([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)]) == [1]


def test_flicker_counts_still_pixels_only():
    image = np.full((8, 8, 3), 100, np.uint8)
    moved = image.copy()
    moved[:4] += 10
    values = np.zeros((8, 8), np.float32)
    after = values.copy()
    after[:4], after[4:] = 5, 0.25  # 5 is out of the range, and moved
    after[7, 7] = np.nan
    figure = Flicker()
    assert figure.percent is None
    figure.add(image, values, (0, 2))
    assert figure.percent is None
    figure.add(moved, after, (0, 2))
    assert figure.percent == pytest.approx(12.5)
    figure.add(image, values, (0, 2), new_scene=True)
    assert figure.percent == pytest.approx(12.5)
    figure.add(image, after, (0, 2))  # the upper half goes from 0 to 1 and beyond, which is clipped
    total = 31 * 0.125 + (32 * 1 + 31 * 0.125)
    assert figure.percent == pytest.approx(100 * total / (31 + 63))


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (1080, 1920), (2160, 4096)])
def test_the_grid_is_small_and_reaches_everywhere(shape):
    rows, cols = grid(np.arange(shape[0])[:, None] + np.zeros((1, shape[1]))), grid(np.zeros(shape)).shape
    assert cols[0] * cols[1] <= 1.3 * 16_384 + 500 * 3
    assert rows.min() < shape[0] / 50 + 1
    assert rows.max() > shape[0] * 0.98 - 2
