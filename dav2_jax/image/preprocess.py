"""From a photo to the network's input and from its output back to the photo's size, exactly as the official code does.

Source: `image2tensor` and `infer_image` in the official `depth_anything_v2/dpt.py`, and `util/transform.py`.
"""

import numpy as np

from dav2_jax.image import resize
from dav2_jax.image.normalize import normalize

_ROWS = 64  # of the network's input at a time


def preprocess(image: np.ndarray, input_size: int = 518) -> np.ndarray:
    """uint8 [H, W, 3] -> the network's input, float32 [H', W', 3]: cubic resize, then ImageNet normalization.

    The cubic overshoots 0..1 at edges and is not clipped, as in the official code.
    """
    height, width = image.shape[:2]
    net_height, net_width = resize.network_size(height, width, input_size)
    columns = resize.matrix(resize.cubic_taps(width, net_width), width)
    x = _resize_rows(image, net_height)  # [H', W * 3]
    x = x.reshape(net_height, width, 3).transpose(1, 0, 2).reshape(width, net_height * 3)
    x = (columns @ x).reshape(net_width, net_height, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(normalize(x))


def _resize_rows(image: np.ndarray, net_height: int) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [H', W * 3], in blocks: a large photo in float32 takes four times its memory."""
    height, width, _ = image.shape
    index, weight = resize.cubic_taps(height, net_height)
    x = np.empty((net_height, width * 3), np.float32)
    for top in range(0, net_height, _ROWS):
        rows = slice(top, top + _ROWS)
        first, end = index[rows].min(), index[rows].max() + 1
        taps = resize.ResizeTaps(index[rows] - first, weight[rows])
        block = image[first:end].reshape(end - first, width * 3).astype(np.float32)
        x[rows] = resize.matrix(taps, end - first) @ block
    return x


def postprocess(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """The network's output [H', W'] -> float32 [height, width], bilinear with corners aligned."""
    x = np.asarray(depth, np.float32)
    columns = resize.matrix(resize.linear_taps(x.shape[1], width), x.shape[1])
    rows = resize.matrix(resize.linear_taps(x.shape[0], height), x.shape[0])
    return rows @ np.ascontiguousarray((columns @ x.T).T)
