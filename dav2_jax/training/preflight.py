"""Before the first step: does the loss count any pixel of each source? A loss of nothing is 0, and looks like success.

Examples of each source go through the transform of the run, so what is counted is what a batch would hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dav2_jax.data.example import Example
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error
from dav2_jax.training.losses import MIN_VALID

FEW, MANY = 8, 64  # examples of a source: most that count are found among a few; a source is refused after many
LITTLE = 0.05  # share of the valid pixels within the range of the loss, below which a line says so

Row = dict[str, np.ndarray]


@dataclass
class Sample:
    """What was seen of a source."""

    examples: int = 0
    pixels: int = 0  # valid in the crops
    counted: int = 0  # of these, by the loss
    values: list[np.ndarray] = field(default_factory=list)  # known ones, of whole examples


def check_counts(
    source: Source, transform: Callable[[Example, int], Row], limits: tuple[float, float] | None = None
) -> list[str]:
    """Lines about a source of which the loss counts hardly a pixel.

    limits   metres, least and largest depth that a metric loss counts; None: a relative loss, which counts an image
             with at least MIN_VALID valid pixels that are not all the same

    Raises Dav2Error, with the range seen and what to change, where no pixel counts. Examples that cannot be read are
    passed over: they are the loader's matter. So are sources `on_device`, whose depth is our own.
    """
    if source.on_device:
        return []
    sample = Sample()
    few, many = _spread(len(source), FEW), _spread(len(source), MANY)
    for indices in (few, [index for index in many if index not in few]):
        for index in indices:
            _look(source, index, transform, limits, sample)
        if sample.counted:
            break
    if sample.examples and not sample.counted:
        looked = f"{sample.examples} examples looked at"
        raise Dav2Error(f"{source.name}: the loss counts no pixel of the {looked}: {_why(sample, limits)}")
    if limits is not None and sample.counted < LITTLE * sample.pixels:
        share = sample.counted / sample.pixels
        return [f"{source.name}: the loss counts only {share:.2%} of the valid pixels: {_why(sample, limits)}"]
    return []


def _spread(length: int, count: int) -> Sequence[int]:
    count = min(count, length)
    return [place * length // count for place in range(count)]


def _look(source: Source, index: int, transform, limits: tuple[float, float] | None, sample: Sample) -> None:
    try:
        example = source[index]
        row = transform(example, index)
    except Dav2Error:
        return
    sample.examples += 1
    name = "depth" if "depth" in example else "disparity"
    known = example[name][example["valid"] & np.isfinite(example[name])]
    sample.values.append(known[:: max(1, known.size // 10_000)])
    target, valid = row["depth" if "depth" in row else "disparity"], row["valid"]
    sample.pixels += int(valid.sum())
    if limits is not None:
        sample.counted += int((valid & (target >= limits[0]) & (target <= limits[1])).sum())
    elif valid.sum() >= MIN_VALID and np.ptp(target[valid]) > 0:
        sample.counted += int(valid.sum())


def _why(sample: Sample, limits: tuple[float, float] | None) -> str:
    values = np.concatenate(sample.values)
    if not values.size:
        return "all depth is unknown (0, negative, NaN or infinite): look at it with dav2 data check"
    seen = f"{values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}"
    if limits is None:
        return (
            f"values are {seen}, and a crop needs {MIN_VALID} valid pixels that are not all the same: "
            "denser depth, or a larger size helps"
        )
    low, high = limits
    text = f"depth is {seen} m, and the loss takes {low:g} m to {high:g} m: "
    if values.min() > high or np.median(values) > high:
        scale = "are these millimetres? Add ?scale=0.001 to the source, or " if np.median(values) > 5 * high else ""
        return f"{text}{scale}raise max_depth"
    if np.median(values) < low:
        return f"{text}is it in another unit? Add its ?scale= to the source, or lower min_depth"
    return f"{text}look at it with dav2 data check"
