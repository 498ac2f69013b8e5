"""From an example to what a batch holds: resize, crop and flip, everything of the example together. NumPy, no JAX.

As the official training code (`metric_depth/dataset/transform.py`) does it: the short side becomes `size` by the rule
of the network (`resize.network_size`), the image by the cubic of OpenCV, every map by its nearest, never between two
depths; then a random crop. Sizes differ from file to file, so this runs on the host, in the loader's workers. Strong
changes of color and CutMix, whose sizes are fixed, run on the device: `data/strong.py`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

import numpy as np

from dav2_jax.data import example as examples
from dav2_jax.data.example import Example
from dav2_jax.errors import Dav2Error
from dav2_jax.image.resize import ResizeTaps, cubic_taps, matrix, nearest_index, network_size


class View(NamedTuple):
    """What is taken of an example: `rows` x `columns` at (top, left) of `height` x `width`, perhaps mirrored."""

    height: int
    width: int
    top: int
    left: int
    rows: int
    columns: int
    flip: bool


@dataclasses.dataclass(frozen=True)
class Geometry:
    """(example, seed) -> the arrays of one row of a batch; the same for the same seed, wherever it runs.

    size    the short side, and the side of the square crop, in pixels; smaller images are enlarged to it
    width   None; or of the crop, which then is size x width, and the image made large enough for it
    target  "disparity" or "depth", of whichever the example has; None for images without a label
    random  crop anywhere and flip; otherwise the middle is taken and nothing flipped
    flip    probability of a horizontal flip, drawn per example (the official code flips whole batches)
    extra   what else goes along: "intrinsics", "tag", "sensor_depth"
    pixels  "float32": as the official code has it, the overshoot of the cubic beyond 0..1 included, 12 bytes a pixel.
            "uint8": rounded and clipped, so up to 1/510 off and more at overshoots, 3 bytes a pixel to the device

    Gives `image` [S, W, 3], float32 of 0..1 or uint8; with a target also float32 [S, W] under its name and `valid`,
    bool [S, W]; each extra as in `Example`, intrinsics for the new pixels.
    """

    size: int = 518
    target: Literal["disparity", "depth"] | None = "disparity"
    random: bool = True
    flip: float = 0.5
    extra: tuple[Literal["intrinsics", "tag", "sensor_depth"], ...] = ()
    pixels: Literal["float32", "uint8"] = "float32"
    width: int | None = None

    def __call__(self, example: Example, seed: int) -> dict[str, np.ndarray]:
        """Raises Dav2Error for an example without the target or an extra, or too long and thin for the network."""
        missing = [name for name in self.extra if name not in example]
        if missing:
            raise Dav2Error(f"{example['id']}: has no {', '.join(missing)}: leave it out of extra")
        view = self.view(*example["image"].shape[:2], seed)
        out = {"image": view_image(example["image"], view, self.pixels)}
        if self.target:
            wanted = examples.disparity if self.target == "disparity" else examples.depth
            known = ("depth", "disparity", "valid")
            seen = {name: view_map(example[name], view) for name in known if name in example}
            out |= {self.target: wanted(Example(id=example["id"], **seen)), "valid": seen["valid"]}
        for name in self.extra:
            out[name] = view_intrinsics(example, view) if name == "intrinsics" else view_map(example[name], view)
        return out

    def view(self, height: int, width: int, seed: int) -> View:
        """What is taken of an image of this size."""
        crop = self.size, self.width or self.size
        new_height, new_width = network_size(height, width, _short_side(height, width, crop))
        room = new_height - crop[0], new_width - crop[1]
        if not self.random:
            return View(new_height, new_width, room[0] // 2, room[1] // 2, *crop, flip=False)
        rng = np.random.default_rng(seed)
        top, left = (int(rng.integers(0, free + 1)) for free in room)
        return View(new_height, new_width, top, left, *crop, flip=bool(rng.random() < self.flip))


def view_image(image: np.ndarray, view: View, pixels: str = "float32") -> np.ndarray:
    """uint8 [H, W, 3] -> [S, W, 3], float32 of 0..1, which a cubic overshoots, or uint8. Only the crop is computed."""
    rows, row_span = _within(cubic_taps(image.shape[0], view.height), view.top, view.rows)
    columns, column_span = _within(cubic_taps(image.shape[1], view.width), view.left, view.columns)
    if view.flip:
        columns = ResizeTaps(columns.index[::-1], columns.weight[::-1])
    x = image[row_span, column_span]
    height, width = x.shape[:2]
    x = matrix(rows, height) @ x.reshape(height, width * 3).astype(np.float32)
    x = x.reshape(view.rows, width, 3).transpose(1, 0, 2).reshape(width, view.rows * 3)
    x = (matrix(columns, width) @ x).reshape(view.columns, view.rows, 3).transpose(1, 0, 2)
    if pixels == "uint8":
        return np.clip(np.rint(x), 0, 255).astype(np.uint8, order="C")
    return np.multiply(x, np.float32(1 / 255), order="C")


def view_map(values: np.ndarray, view: View) -> np.ndarray:
    """[H, W] of any dtype -> [S, W]: the nearest, with the values as they are."""
    rows = nearest_index(values.shape[0], view.height)[view.top : view.top + view.rows]
    columns = nearest_index(values.shape[1], view.width)[view.left : view.left + view.columns]
    return values[rows[:, None], columns[::-1] if view.flip else columns]


def view_intrinsics(example: Example, view: View) -> np.ndarray:
    """float32 [4]: fx, fy, cx, cy for the pixels of the view.

    They are those of the image. OpenCV's nearest takes a map's pixels up to half an input pixel further up and left.
    """
    height, width = example["image"].shape[:2]
    fx, fy, cx, cy = example["intrinsics"].astype(np.float64)
    across, down = view.width / width, view.height / height
    cx = (cx + 0.5) * across - 0.5 - view.left
    cy = (cy + 0.5) * down - 0.5 - view.top
    return np.array([fx * across, fy * down, view.columns - 1 - cx if view.flip else cx, cy], np.float32)


def _short_side(height: int, width: int, crop: tuple[int, int]) -> int:
    """The least input size, but for rounding, at which an image is no smaller than the crop."""
    return math.ceil(max(crop[0] / height, crop[1] / width) * min(height, width) - 1e-6)


def _within(taps: ResizeTaps, start: int, count: int) -> tuple[ResizeTaps, slice]:
    """The taps of some output pixels, and the input pixels that they need, from which they now count."""
    index, weight = taps.index[start : start + count], taps.weight[start : start + count]
    first, last = int(index.min()), int(index.max())
    return ResizeTaps(index - first, weight), slice(first, last + 1)
