"""Flying pixels go, surfaces stay: planes at any slant, creases, thin things, and the road up to the horizon."""

import numpy as np
import pytest

from dav2_jax.errors import Dav2Error
from dav2_jax.image.preprocess import postprocess
from dav2_jax.inference import edges, geometry


def two_planes(shape, near, far, factor, space):
    """A near `shape` before a far wall, as the network gives it: small, and enlarged with the official bilinear."""
    rows, columns = np.mgrid[:60, :80]
    inside = {
        "half": columns < 37,
        "box": (abs(rows - 30) < 14) & (abs(columns - 40) < 14),
        "disc": (columns - 40) ** 2 + (rows - 30) ** 2 < 200,
    }[shape]
    small = np.where(inside, near, far).astype(np.float32)
    if space == "depth":
        return postprocess(small, 60 * factor, 80 * factor)
    return 1 / postprocess(1 / small, 60 * factor, 80 * factor)


@pytest.mark.parametrize("shape", ["half", "box", "disc"])
@pytest.mark.parametrize(("near", "far"), [(2, 10), (2, 2.4), (20, 75)])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("space", ["depth", "disparity"])
def test_what_lies_between_two_planes_is_gone(shape, near, far, factor, space):
    depth = two_planes(shape, near, far, factor, space)
    between = (depth > near * 1.03) & (depth < far / 1.03)
    assert between.sum() > 60
    flying = edges.flying_pixels(depth, ramp=factor)
    missed = (between & ~flying).sum() / between.sum()
    assert missed == 0 if shape == "half" else missed < 0.01  # a few at the corners of the box
    on_a_surface = (depth < near * 1.001) | (depth > far / 1.001)
    assert flying[on_a_surface].mean() < 0.001
    if factor == 2:  # the ramp that is looked for by itself in a map this small
        assert len(geometry.point_cloud(depth, 100.0, edge=edges.EDGE)[0]) == (~flying).sum()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_unit_does_not_matter(scale):
    depth = two_planes("disc", 2, 10, 4, "depth")
    np.testing.assert_array_equal(edges.flying_pixels(depth * np.float32(scale)), edges.flying_pixels(depth))


def test_rows_and_columns_mirrored_or_not():
    depth = two_planes("box", 2, 10, 4, "depth")[:, 30:]
    flying = edges.flying_pixels(depth)
    np.testing.assert_array_equal(edges.flying_pixels(depth[::-1]), flying[::-1])
    np.testing.assert_array_equal(edges.flying_pixels(depth[:, ::-1]), flying[:, ::-1])
    np.testing.assert_array_equal(edges.flying_pixels(depth.T), flying.T)


def test_a_road_loses_nothing_up_to_the_horizon():
    """The camera of KITTI: 1.65 m above the road, focal length 721 pixels. Neighbors differ by half at the horizon."""
    below = np.arange(202) + 1.5  # rows below the horizon
    depth = np.repeat((721 * 1.65 / below)[:, None], 300, 1)
    assert depth.max() > 790
    assert abs(np.diff(depth[:, 0]) / depth[1:, 0]).max() > 0.5
    assert not edges.flying_pixels(depth).any()
    noisy = depth * np.random.default_rng(0).lognormal(0, 0.005, depth.shape)
    assert edges.flying_pixels(noisy)[noisy < 80].mean() < 0.001


def test_slanted_walls_and_their_corner_lose_nothing():
    columns = np.arange(400)
    for slope in (0.001, 0.01, 0.1):
        wall = 1 / (0.02 + slope * columns)
        assert not edges.flying_pixels(np.tile(wall, (50, 1))).any()
        corner = 1 / (0.02 + slope * abs(columns - 170))
        assert not edges.flying_pixels(np.tile(corner, (50, 1))).any()
        assert not edges.flying_pixels(np.tile(1 / (0.02 + slope * 230 - slope * abs(columns - 170)), (50, 1))).any()


def test_curved_and_noisy_surfaces_lose_nothing():
    x = np.linspace(-1, 1, 41)
    for curve in (x**3, -(x**3), x**2, np.sqrt(1.0001 - x**2)):
        assert not edges.flying_pixels(np.tile(1 / (1.5 + curve), (50, 1))).any()
    bend = np.tile(1 / (30 + np.linspace(-3, 3, 41) ** 3), (50, 1))  # its sides, continued, pass each other
    assert not edges.flying_pixels(bend, ramp=4).any()
    noise = np.random.default_rng(0).lognormal(0, 0.01, (200, 200))
    assert edges.flying_pixels(5 * noise).mean() < 0.001


def test_a_sharp_edge_and_a_thin_surface_lose_nothing():
    depth = np.full((60, 90), 8.0)
    depth[:, :30] = 2.0
    assert not edges.flying_pixels(depth).any()
    depth[:, 30:33] = 4.0  # three pixels of something between the two
    assert not edges.flying_pixels(depth)[:, 31].any()
    depth[:, 60] = 3.0  # a wire before the wall
    assert not edges.flying_pixels(depth)[:, 60].any()


def test_differences_below_edge_are_no_edge():
    depth = two_planes("half", 5, 5.4, 4, "depth")
    assert not edges.flying_pixels(depth, ramp=4).any()
    assert edges.flying_pixels(depth, 0.05, ramp=4).any()
    for bad in (0, -1, np.nan):
        with pytest.raises(Dav2Error, match="give a share of the depth"):
            edges.flying_pixels(depth, bad)


def test_pixels_without_depth_are_no_surface():
    depth = two_planes("half", 2, 10, 4, "depth")
    flying = edges.flying_pixels(depth, ramp=4)
    depth[:20] = [[np.nan], [np.inf], [0.0], [-1.0]] * 5
    holes = edges.flying_pixels(depth, ramp=4)
    assert not holes[:20].any()
    np.testing.assert_array_equal(holes[36:], flying[36:])
