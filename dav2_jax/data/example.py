"""What every source of data gives: ONE form of an image with its depth, in NumPy."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.scenes.tags import TAGS as TAGS  # beside the example whose `tag` they name


class Example(TypedDict, total=False):
    """An image with what is known of it. An unlabeled one has `id` and `image` alone; a labeled one has `valid` and
    either `depth` or `disparity`; the rest is there where the source knows it.
    """

    id: str  # unique in its source and the same on every machine: mostly the path below the root, without its ending
    image: np.ndarray  # uint8 [H, W, 3], RGB, upright
    depth: np.ndarray  # float32 [H, W], along the optical axis, in the source's unit; inf is sky, 0 where not valid
    disparity: np.ndarray  # float32 [H, W], 1 / depth up to a factor; 0 is sky, and also stands where not valid
    valid: np.ndarray  # bool [H, W]: the value is known. Sky is known: infinitely far
    intrinsics: np.ndarray  # float32 [4]: fx, fy, cx, cy in pixels; the center of the first pixel is (0, 0)
    tag: np.ndarray  # uint8 [H, W]: what is seen, a place in TAGS
    sensor_depth: np.ndarray  # float32 [H, W]: what a depth camera would have measured; 0 where it sees nothing
    pairs: np.ndarray  # int32 [P, 2, 2]: (row, column) of two pixels, of which the first is the closer one
    points: np.ndarray  # float32 [K, 2]: (row, column) of places on objects, e.g. from which masks were made
    scene: str  # the kind of scene, in the dataset's own words


def labeled(
    id: str, image: np.ndarray, depth: np.ndarray, valid: np.ndarray | None = None, intrinsics=None, **more
) -> Example:
    """An example from depth of any float type, in the form above.

    depth   [H, W]; NaN, minus infinity, zero and negative values are not valid, plus infinity is sky
    valid   bool [H, W]: where the depth may be used at all; None is everywhere

    Raises Dav2Error where the sizes of image and depth differ.
    """
    if image.shape[:2] != depth.shape:
        raise Dav2Error(f"{id}: the image is {_size(image)} and its depth {_size(depth)}: they are not a pair")
    depth = depth.astype(np.float32)
    good = depth > 0  # False for NaN
    if valid is not None:
        good &= valid
    example = Example(id=id, image=image, depth=np.where(good, depth, np.float32(0)), valid=good, **more)
    if intrinsics is not None:
        example["intrinsics"] = np.asarray(intrinsics, np.float32)
    return example


def from_disparity(
    id: str, image: np.ndarray, disparity: np.ndarray, valid: np.ndarray | None = None, intrinsics=None, **more
) -> Example:
    """An example from disparity; non-finite and negative values are not valid, zero is sky. Otherwise as `labeled`."""
    if image.shape[:2] != disparity.shape:
        sizes = f"the image is {_size(image)} and its disparity {_size(disparity)}"
        raise Dav2Error(f"{id}: {sizes}: they are not a pair")
    disparity = disparity.astype(np.float32)
    good = np.isfinite(disparity) & (disparity >= 0)
    if valid is not None:
        good &= valid
    example = Example(id=id, image=image, disparity=np.where(good, disparity, np.float32(0)), valid=good, **more)
    if intrinsics is not None:
        example["intrinsics"] = np.asarray(intrinsics, np.float32)
    return example


def disparity(example: Example) -> np.ndarray:
    """float32 [H, W]: the example's disparity, or 1 / depth; 0 for sky and where not valid.

    Raises Dav2Error for an example without a label.
    """
    if "disparity" in example:
        return example["disparity"]
    if "depth" not in example:
        raise Dav2Error(f"{example['id']}: has no depth")
    depth = example["depth"]
    return np.divide(1, depth, out=np.zeros_like(depth), where=example["valid"])


def depth(example: Example) -> np.ndarray:
    """float32 [H, W]: the example's depth, or 1 / disparity; inf for sky, 0 where not valid.

    Raises Dav2Error for an example without a label.
    """
    if "depth" in example:
        return example["depth"]
    if "disparity" not in example:
        raise Dav2Error(f"{example['id']}: has no depth")
    values, valid = example["disparity"], example["valid"]
    far = np.where(valid, np.float32(np.inf), np.float32(0))
    return np.divide(1, values, out=far, where=values > 0)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
