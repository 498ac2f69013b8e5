"""The part of resizing that needs no JAX, against OpenCV. The cubic weights are tested in model/test_ops.py."""

import subprocess
import sys

import cv2
import numpy as np

from dav2_jax.image import resize


def test_nearest_takes_the_pixels_of_opencv():
    rng = np.random.default_rng(0)
    for size_in, size_out in [*rng.integers(1, 1500, (300, 2)), (480, 518), (1242, 1722), (3, 1), (1, 3)]:
        row = np.arange(size_in, dtype=np.float32)[None]
        expected = cv2.resize(row, (int(size_out), 1), interpolation=cv2.INTER_NEAREST)[0]
        np.testing.assert_array_equal(resize.nearest_index(size_in, size_out), expected)


def test_it_needs_no_jax():
    code = "import sys, dav2_jax.image.resize; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
