"""An image and its depth, stored at unlike sizes or turned unlike, made to match; depth is never interpolated."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.image.resize import center_index

ASPECT = 0.02  # how far the two may differ in shape: 1296 x 968 and 640 x 480, a pair of ScanNet, differ by 0.004


def fit(
    id: str, image: np.ndarray, depth: np.ndarray, resize: Literal["image", "depth"]
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Image and depth at the size of one of them, and the factors (x, y) by which the image has changed.

    resize   which of the two changes. "image": by Pillow's cubic filter, which averages where it shrinks;
             "depth": each pixel of the image takes the value of the depth pixel under its center

    id, image uint8 [H, W, 3] and depth [h, w] as for an example; depth may also be disparity. Raises
    Dav2Error where the shapes differ by more than 2 %: one of the two is then cropped or turned.
    """
    (high, wide), (deep_high, deep_wide) = image.shape[:2], depth.shape
    if (high, wide) == (deep_high, deep_wide):
        return image, depth, (1.0, 1.0)
    if abs(wide * deep_high / (high * deep_wide) - 1) > ASPECT:
        raise Dav2Error(
            f"{id}: the image is {wide} x {high} and its depth {deep_wide} x {deep_high}: "
            "they differ in shape, not only in size, so they are not a pair"
        )
    if resize == "image":
        from PIL import Image

        resized = Image.fromarray(image).resize((deep_wide, deep_high), Image.Resampling.BICUBIC)
        return np.asarray(resized), depth, (deep_wide / wide, deep_high / high)
    rows, columns = center_index(deep_high, high), center_index(deep_wide, wide)
    return image, depth[rows[:, None], columns], (1.0, 1.0)


def scale_intrinsics(intrinsics: np.ndarray, factors: tuple[float, float]) -> np.ndarray:
    """fx, fy, cx, cy of a resized image. The edges of the image stay, so the center of the first pixel moves."""
    x, y = factors
    fx, fy, cx, cy = intrinsics
    return np.array([fx * x, fy * y, (cx + 0.5) * x - 0.5, (cy + 0.5) * y - 0.5])


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W] as stored -> as it is shown, by an EXIF orientation of 1 to 8."""
    return {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.T,
        6: values[::-1].T,
        7: values[::-1, ::-1].T,
        8: values.T[::-1],
    }[orientation]
