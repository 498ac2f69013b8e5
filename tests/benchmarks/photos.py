"""A folder of photos that anyone can rebuild: 30 different sizes, seeded, with the statistics of real ones.

Each picture is a floor and a wall in perspective with discs and boxes before them, under 1/f noise: smooth areas, sharp
edges and fine grain, so that JPEG files have the size, and take the time to decode, of photos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

# (width, height): the usual cameras and crops from 320 x 240 to 1600 x 1200, landscape, portrait and square. The first
# 25 have every aspect and the largest pictures among them, so that a quarter of 100 photos needs what all of them need.
SIZES = (
    (1242, 375), (1400, 600), (512, 512), (1080, 1080),
    (320, 240), (640, 480), (800, 600), (1024, 768), (1280, 960), (1600, 1200),
    (240, 320), (600, 800), (768, 1024), (960, 1280), (1200, 1600),
    (480, 320), (960, 640), (1200, 800), (1500, 1000),
    (640, 960), (1000, 1500),
    (640, 360), (1280, 720), (1600, 900), (720, 1280),
    (480, 360), (480, 640), (720, 480), (320, 480), (800, 1200),
)  # fmt: skip


def make(folder: Path, count: int) -> list[Path]:
    """Writes photo-000.jpg to photo-<count - 1>.jpg, those that are missing, and returns their paths.

    Photo i has size SIZES[i % 30], so any first n of them are mixed; a longer folder starts with the same photos.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{index:03}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        if not path.exists():
            width, height = SIZES[index % len(SIZES)]
            Image.fromarray(photo(height, width, seed=index)).save(path, quality=92)
    return paths


def photo(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 RGB [height, width, 3]."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(min(height, width))
    horizon = (0.35 + 0.3 * rng.random()) * height / min(height, width)
    below = np.maximum(y - horizon, 0.02)
    tiles = (np.floor(4 * (x - x.mean()) / below) + np.floor(1 / below)) % 2
    wall, floor, mortar = rng.random((3, 3))
    image = np.where((y < horizon)[..., None], wall * (1 - 0.3 * y[..., None]), 0)
    image = np.where((y >= horizon)[..., None], floor + (mortar - floor) * tiles[..., None], image)
    for _ in range(int(rng.integers(4, 12))):  # far to near: later ones cover earlier ones
        color, (cx, cy), size = rng.random(3), rng.random(2) * (x.max(), y.max()), 0.05 + 0.25 * rng.random()
        if rng.random() < 0.5:
            inside, shade = (x - cx) ** 2 + (y - cy) ** 2 < size**2, 1 - 0.5 * np.hypot(x - cx, y - cy) / size
        else:
            inside, shade = (abs(x - cx) < size) & (abs(y - cy) < 0.7 * size), 0.7 + 0.3 * (y - cy) / size
        image = np.where(inside[..., None], color * shade[..., None], image)
    image = image * (1 + 0.06 * _grain(height, width, rng))[..., None] + 0.01 * rng.standard_normal(image.shape)
    return (image.clip(0, 1) * 255).astype(np.uint8)


def _grain(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """1/f noise of standard deviation 1, the texture of natural surfaces."""
    fy, fx = np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / np.maximum(np.hypot(fy, fx), 1)
    noise = np.fft.irfft2(spectrum, s=(height, width))
    return noise / noise.std()
