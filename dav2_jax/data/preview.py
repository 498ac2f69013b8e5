"""Pictures of examples, one a row, with everything that is known of them: to look at data before training on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dav2_jax.data.example import TAGS, Example, disparity
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.image.colormap import to_color

# Of each tag in TAGS: gray is plain, then thin, glass, mirror, sky.
TAG_COLORS = np.array([[90, 90, 90], [255, 210, 40], [60, 200, 255], [240, 80, 200], [190, 215, 255]], np.uint8)
VALID_COLOR = np.array([80, 190, 110], np.uint8)
GAP = 6
CAPTION = 16


def sheet(source: Source, count: int = 6, *, height: int = 200, start: int = 0) -> np.ndarray:
    """uint8 RGB: `count` examples spread evenly over the source from number `start` on, each in pictures `height` high.

    Labeled ones take a row each: image, disparity (near is red), valid pixels, and tags and sensor depth where there
    are some. Unlabeled ones stand side by side, four in a row. An example that cannot be read leaves its message.
    Raises Dav2Error for an empty source.
    """
    left = len(source) - start
    if left <= 0:
        raise Dav2Error(f"{source.name}: has {len(source)} examples, none from number {start} on")
    numbers = [start + place * left // min(count, left) for place in range(min(count, left))]
    cells = []
    for number in numbers:
        try:
            cells.append(_cells(source[number], height))
        except Dav2Error as error:
            cells.append([_captioned(np.zeros((height, 4 * height // 3, 3), np.uint8), str(error))])
    if all(len(row) == 1 for row in cells):
        cells = [[cell for row in cells[first : first + 4] for cell in row] for first in range(0, len(cells), 4)]
    rows = [_beside(row) for row in cells]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)


def tag_picture(tag: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] from the tags of an example [H, W]."""
    return TAG_COLORS[np.minimum(tag, len(TAGS) - 1)]


def disparity_picture(values: np.ndarray, valid: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """uint8 [H, W, 3] from disparity [H, W]: near is red, far is blue, what is not valid is black.

    limits  values at the two ends of the colors; None: the 1st and 99th percentile of what is valid
    """
    known = values[valid]
    if limits is None:
        limits = tuple(np.percentile(known, (1, 99))) if known.size else (0, 1)
    if limits[1] <= limits[0]:
        limits = (limits[0] - 0.5, limits[0] + 0.5)
    return np.where(valid[..., None], to_color(values, "high", limits), np.uint8(0))


def _cells(example: Example, height: int) -> list[np.ndarray]:
    shown = [_scaled(example["image"], height, Image.Resampling.LANCZOS)]
    texts = [example["id"]]
    if "valid" in example:
        values, valid = disparity(example), example["valid"]
        low, high = np.percentile(values[valid], (1, 99)) if valid.any() else (0, 1)
        limits = (float(low), float(high))
        pictures = {_range(example): disparity_picture(values, valid, limits)}
        pictures[f"valid {valid.mean():.1%}"] = valid[..., None] * VALID_COLOR
        if "tag" in example:
            present = [name for place, name in enumerate(TAGS) if (example["tag"] == place).any()]
            pictures["tags: " + " ".join(present)] = tag_picture(example["tag"])
        if "sensor_depth" in example:
            seen = example["sensor_depth"] > 0
            sensed = np.divide(1, example["sensor_depth"], out=np.zeros_like(values), where=seen)
            pictures["what a sensor gives"] = disparity_picture(sensed, seen, limits)
        for text, picture in pictures.items():
            texts.append(text)
            shown.append(_scaled(picture, height, Image.Resampling.NEAREST))
    return [_captioned(picture, text) for picture, text in zip(shown, texts, strict=True)]


def _range(example: Example) -> str:
    name = "depth" if "depth" in example else "disparity"
    known = example[name][example["valid"] & np.isfinite(example[name])]
    return f"{name} {known.min():.3g} to {known.max():.3g}" if known.size else f"{name}: none"


def _scaled(picture: np.ndarray, height: int, how: Image.Resampling) -> np.ndarray:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return np.asarray(Image.fromarray(picture).resize((width, height), how))


def _captioned(picture: np.ndarray, text: str) -> np.ndarray:
    strip = Image.new("RGB", (picture.shape[1], CAPTION), "white")
    font = ImageFont.load_default(11)
    while text and font.getlength(text) > picture.shape[1] - 4:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    ImageDraw.Draw(strip).text((2, 1), text, "black", font)
    return np.concatenate([np.asarray(strip), picture])


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1)
