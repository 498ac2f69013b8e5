"""Depth of single shapes against closed forms in float64, and what mirrors, glass and thin shapes tell a sensor."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
import scene_builder as builder

from dav2_jax.data.example import TAGS
from dav2_jax.scenes import cutouts
from dav2_jax.scenes.render import intrinsics, render_scene
from dav2_jax.scenes.shapes import BOX, CARD, CYLINDER, GLASS, MIRROR, ROUND, SPHERE, TORUS, frustum

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def draw():
    """draw(scene, camera) -> Picture in NumPy; one compiled program for all scenes."""
    program = jax.jit(lambda scene, camera: render_scene(scene, camera, HEIGHT, WIDTH, ()))
    return lambda scene, camera: jax.tree.map(np.asarray, program(scene, camera))


def rays(camera):
    return builder.rays(camera, intrinsics(camera, HEIGHT, WIDTH), HEIGHT, WIDTH)


def turned(x: float, y: float, z: float) -> np.ndarray:
    """A rotation by three angles."""
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def agree(depth: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5, rim: float = 0.02) -> None:
    """Same depths, relative; at the silhouette a few pixels may fall to the other side."""
    hit, wanted = np.isfinite(depth), np.isfinite(expected)
    assert wanted.sum() > 20
    assert (hit != wanted).sum() <= rim * wanted.sum()
    both = hit & wanted
    assert np.max(np.abs(depth[both] / expected[both] - 1)) < tolerance


def sphere_depth(origin, direction, center, radius) -> np.ndarray:
    away = origin - center
    a, b, c = (direction**2).sum(-1), direction @ away, away @ away - radius**2
    inside = b * b - a * c
    return np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)


def plane_depth(origin, direction, point, normal) -> np.ndarray:
    return ((point - origin) @ normal) / (direction @ normal)


@pytest.mark.parametrize(("distance", "radius"), [(5, 1), (60, 8), (350, 40)])
def test_sphere(draw, distance, radius):
    camera = builder.camera((0.5, 1, -0.3), (0.2, 0.4, distance), roll=0.1)
    center = np.array([0.3, 0.2, distance])
    picture = draw(builder.scene([ROUND], [center], [[radius] * 3], form=[SPHERE]), camera)
    agree(picture.depth, sphere_depth(*rays(camera), center, radius))
    assert set(np.unique(picture.tag)) == {TAGS.index("plain"), TAGS.index("sky")}


def test_tilted_plane_and_ground(draw):
    camera = builder.camera((0, 1.5, 0), (0, 1.0, 10))
    frame = turned(0.9, 0.4, 0.2)
    picture = draw(builder.scene([CARD], [[0, 1, 8]], [[300, 300, 1]], [frame]), camera)
    origin, direction = rays(camera)
    expected = plane_depth(origin, direction, np.array([0, 1, 8.0]), frame[:, 2])
    agree(picture.depth, np.where(expected > 0, expected, np.inf))

    picture = draw(builder.scene([0], [[0, 0, 0]], [[1, 1, 1]], ground=0), camera)
    expected = plane_depth(origin, direction, np.zeros(3), np.array([0, 1.0, 0]))
    agree(picture.depth, np.where((expected > 0) & (expected < 400), expected, np.inf))


def test_box_from_outside_and_inside(draw):
    half, center, frame = np.array([1.0, 0.5, 0.7]), np.array([0.4, 0.1, 6.0]), turned(0.3, 0.5, 0.2)
    for place in ((0, 0.5, 0), (0.4, 0.2, 5.9)):
        camera = builder.camera(place, (0.3, 0, 10))
        picture = draw(builder.scene([BOX], [center], [half], [frame]), camera)
        origin, direction = rays(camera)
        o, d = (origin - center) @ frame / half, direction @ frame / half
        near = np.minimum((-1 - o) / d, (1 - o) / d).max(-1)
        far = np.maximum((-1 - o) / d, (1 - o) / d).min(-1)
        agree(picture.depth, np.where((near <= far) & (far > 0), np.where(near > 0, near, far), np.inf))


@pytest.mark.parametrize("form", [CYLINDER, frustum(1, 0), frustum(0.5, 1)])
def test_cylinder_and_cone(draw, form):
    """Every depth is on the surface, and nothing of the solid is before it: both checked point by point."""
    half, center, frame = np.array([1.0, 1.5, 0.8]), np.array([0.2, 0.1, 7.0]), turned(0.4, 0.3, 0.5)
    camera = builder.camera((0, 0.5, 0), (0, 0, 7))
    picture = draw(builder.scene([ROUND], [center], [half], [frame], [form]), camera)
    origin, direction = rays(camera)
    expected = first_inside(lambda p: in_round(p, form), (origin - center) @ frame / half, direction @ frame / half)
    agree(picture.depth, expected, rim=0.05)


def test_torus(draw):
    center, frame, radius, tube = np.array([0.1, 0.2, 5.0]), turned(0.8, 0.3, 0.1), 1.2, 0.3

    def inside(p):
        return (np.hypot(p[..., 0], p[..., 2]) - 1) ** 2 + p[..., 1] ** 2 <= tube**2

    camera = builder.camera((0, 0.5, 0), (0, 0, 5))
    scene = builder.scene([TORUS], [center], [[radius] * 3], [frame], [(tube, 0, 0, 0, 0, 0)])
    origin, direction = rays(camera)
    expected = first_inside(inside, (origin - center) @ frame / radius, direction @ frame / radius)
    agree(draw(scene, camera).depth, expected, rim=0.05)


def in_round(p, form):
    q = form[0] + form[1] * p[..., 1] + form[2] * p[..., 1] ** 2
    return (np.abs(p[..., 1]) <= 1) & (p[..., 0] ** 2 + p[..., 2] ** 2 <= q)


def first_inside(inside, origin, direction) -> np.ndarray:
    """Where rays enter a solid: 1,200 steps, then bisection to float64's last digits. Slow and plain on purpose."""
    steps = np.linspace(2, 12, 1200)
    best = np.full(direction.shape[:2], np.inf)
    found = np.zeros(direction.shape[:2], bool)
    for low, high in itertools.pairwise(steps):
        enters = inside(origin + high * direction) & ~found
        a, b = np.full(enters.sum(), low), np.full(enters.sum(), high)
        d = direction[enters]
        for _ in range(40):
            middle = (a + b) / 2
            within = inside(origin + middle[:, None] * d)
            a, b = np.where(within, a, middle), np.where(within, middle, b)
        best[enters], found = b, found | enters
    return best


def test_mirror_depth_is_its_surface_and_the_sensor_goes_into_it(draw):
    """A mirror at 45 degrees shows a wall on the left as if it lay behind it."""
    frame = turned(0, -3 * np.pi / 4, 0)  # its normal is (-1, 0, -1) / sqrt 2
    camera = builder.camera((0, 0, 0), (0, 0, 1))
    wall = turned(0, np.pi / 2, 0)
    scene = builder.scene(
        [CARD, CARD], [[0, 0, 4], [-3, 0, 4]], [[0.8, 0.8, 1], [50, 50, 1]], [frame, wall], optics=[MIRROR, 0]
    )
    picture = draw(scene, camera)
    origin, direction = rays(camera)
    normal = frame[:, 2]
    surface = plane_depth(origin, direction, np.array([0, 0, 4.0]), normal)
    mirror = picture.tag == TAGS.index("mirror")
    assert mirror.sum() > 100
    assert np.max(np.abs(picture.depth[mirror] / surface[mirror] - 1)) < 1e-4
    # The mirror image of the wall x = -3 in the plane x + z = 4 is the wall z = 7.
    assert np.max(np.abs(picture.behind[mirror] / 7 - 1)) < 1e-3


def test_glass_depth_is_its_surface_and_the_sensor_goes_through(draw):
    frame = turned(0.1, 0.5, 0)
    camera = builder.camera((0, 0, 0), (0, 0, 1))
    scene = builder.scene(
        [CARD, CARD], [[0, 0, 3], [0, 0, 9]], [[0.9, 0.7, 1], [90, 90, 1]], [frame, np.eye(3)], optics=[GLASS, 0]
    )
    picture = draw(scene, camera)
    glass = picture.tag == TAGS.index("glass")
    assert glass.sum() > 100
    surface = plane_depth(*rays(camera), np.array([0, 0, 3.0]), frame[:, 2])
    assert np.max(np.abs(picture.depth[glass] / surface[glass] - 1)) < 1e-4
    assert np.max(np.abs(picture.behind[glass] / 9 - 1)) < 2e-3  # the pane shifts the ray
    assert np.max(np.abs(picture.depth[~glass] / 9 - 1)) < 1e-4


def test_wires_and_cards_with_holes_are_thin_and_what_is_behind_is_known(draw):
    camera = builder.camera((0, 0, 0), (0, 0, 1))
    form = (cutouts.GRID, 4, 4, 0.3, 0, 0)
    scene = builder.scene(
        [CARD, CARD], [[0, 0, 4], [0, 0, 10]], [[1.5, 1.5, 1], [90, 90, 1]], form=[form, (0,) * 6], thin=[1, 0]
    )
    picture = draw(scene, camera)
    origin, direction = rays(camera)
    point = origin + 4 * direction
    inside = (np.abs(point[..., :2]) <= 1.5).all(-1)
    place = (point[..., :2] / 1.5 + 1) * 2 % 1
    wire = inside & ((np.abs(place - 0.5) >= 0.35).any(-1))
    thin = picture.tag == TAGS.index("thin")
    assert (thin != wire).mean() < 0.01
    assert thin.sum() > 100
    assert np.max(np.abs(picture.depth[thin] - 4)) < 4e-4
    assert np.max(np.abs(picture.behind[thin] - 10)) < 2e-3


def test_depth_is_along_the_axis_and_intrinsics_project(draw):
    """A point lifted with depth and intrinsics lies on the sphere it came from."""
    camera = builder.camera((0, 0, 0), (0, 0, 1), focal=0.4, shift=(0.03, -0.02))
    picture = draw(builder.scene([ROUND], [[1.5, 0.5, 4]], [[1] * 3], form=[SPHERE]), camera)
    fx, fy, cx, cy = np.asarray(intrinsics(camera, HEIGHT, WIDTH), float)
    assert fx == pytest.approx(0.4 * WIDTH)
    v, u = np.nonzero(np.isfinite(picture.depth))
    z = picture.depth[v, u]
    points = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], -1)
    # The camera's axes are right, down, ahead; the world's x is to the left.
    world = points * np.array([-1, -1, 1])
    assert np.max(np.abs(np.linalg.norm(world - [1.5, 0.5, 4], axis=-1) - 1)) < 2e-3
