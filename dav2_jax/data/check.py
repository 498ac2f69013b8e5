"""Reads examples of a source and says whether they are fit to train on: counts, ranges, broken files, a verdict."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from dav2_jax.data.example import TAGS, Example
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error

SHOWN = 10  # broken examples and findings that a report prints in full
_AHEAD = 64  # examples in memory at once

FARTHEST, NEAREST = 10_000.0, 0.001  # metres; what lies beyond was not measured
UNLIKELY = 1e5  # times the median of an example, for depth of unknown scale and disparity
GAP = 10  # between the largest depth, where many pixels have just that, and all others
# Metres that the largest step of 16 bits is worth, in the usual scales: millimetres, 1/256, centimetres, 1/5000 (TUM).
SATURATED = tuple(65535 * scale for scale in (0.001, 1 / 256, 0.01, 1 / 5000))
_FEW = 0.001  # share of an example's pixels below which the largest step may have been measured


@dataclass
class Extreme:
    """Values of one implausible kind, over the examples that have some."""

    first: str  # id
    examples: int = 0
    pixels: int = 0
    of: int = 0  # pixels of these examples
    value: float | None = None  # the largest, or the smallest of those that are too small


@dataclass
class Report:
    """What `check` saw. `problems` are reasons not to train on the source as it is; `str` is the text for people."""

    name: str
    unit: str
    total: int  # examples of the source
    read: int = 0  # of them looked at, without the broken ones
    broken: list[str] = field(default_factory=list)  # one line each
    problems: list[str] = field(default_factory=list)
    about: tuple[str, ...] = ()
    sizes: Counter = field(default_factory=Counter)  # (width, height) -> examples
    pixels: int = 0  # of labeled examples
    valid: int = 0
    sky: int = 0
    tags: Counter = field(default_factory=Counter)  # pixels of each
    labeled: int = 0
    low: float = np.inf  # of finite valid values of depth (or disparity)
    high: float = -np.inf
    medians: list[float] = field(default_factory=list)  # one an example
    with_intrinsics: int = 0
    extremes: dict[str, Extreme] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.total:,} examples, {self.read:,} read, {len(self.broken):,} broken"]
        lines += [f"  {fact}" for fact in self.about]
        common = ", ".join(f"{w} x {h} ({count:,})" for (w, h), count in self.sizes.most_common(4))
        more = f" and {len(self.sizes) - 4} more" if len(self.sizes) > 4 else ""
        lines += [f"  sizes       {common}{more}"] if common else []
        if self.labeled:
            what = "disparity" if self.unit == "disparity" else f"depth, {self.unit}"
            values = (
                f"{self.low:.4g} to {self.high:.4g}, median {np.median(self.medians):.4g}" if self.medians else "none"
            )
            lines.append(f"  {what:11} {values}")
            sky = f", of which sky {self.sky / self.valid:.1%}" if self.sky else ""
            lines.append(f"  valid       {self.valid / self.pixels:.1%} of all pixels{sky}")
            if self.tags:
                shares = ", ".join(f"{TAGS[tag]} {count / self.pixels:.1%}" for tag, count in sorted(self.tags.items()))
                lines.append(f"  tags        {shares}")
        if self.read:
            lines.append(f"  labeled     {self.labeled:,} examples; intrinsics known for {self.with_intrinsics:,}")
        lines += [f"  broken: {line}" for line in self.broken[:SHOWN]]
        lines += [f"  broken: and {len(self.broken) - SHOWN:,} more"] if len(self.broken) > SHOWN else []
        lines += [f"  problem: {line}" for line in self.problems]
        return "\n".join([*lines, f"verdict: {self.verdict}"])

    @property
    def verdict(self) -> str:
        if self.problems or self.broken:
            count = len(self.problems) + bool(self.broken)
            return f"look at the {'line' if count == 1 else f'{count} kinds of lines'} above before you train on it"
        return "fit for training" if self.labeled else "fit for pseudo-labeling: it has no depth of its own"


def check(source: Source, limit: int | None = None, *, progress: bool = True) -> Report:
    """Reads `limit` examples, spread evenly over the source (None: all), in threads, in constant memory."""
    report = Report(source.name, source.unit, len(source), about=source.about)
    if not len(source):
        report.problems.append("there is no example: check the path and the split")
        return report
    count = len(source) if limit is None else min(limit, len(source))
    numbers = [place * len(source) // count for place in range(count)]
    ids: Counter = Counter()
    notes: Counter = Counter()
    first: dict[str, str] = {}
    for number, found in zip(
        numbers,
        tqdm(_read(source, numbers), total=count, unit="example", disable=None if progress else True),
        strict=True,
    ):
        if isinstance(found, Dav2Error):
            report.broken.append(str(found))
            continue
        ids[found["id"]] += 1
        more = source.notes(source.items[number], found) if source.notes else []
        for note in [*_look(found, report), *more]:
            notes[note] += 1
            first.setdefault(note, found["id"])
    twice = [name for name, times in ids.items() if times > 1]
    if twice:
        report.problems.append(f"{len(twice):,} ids stand for more than one example, first {twice[0]}")
    report.problems += [f"{times:,} examples {note}, first {first[note]}" for note, times in notes.items()]
    report.problems += _implausible_problems(report)
    report.problems += _unit_problems(report)
    return report


def _read(source: Source, numbers: Sequence[int]) -> Iterator[Example | Dav2Error]:
    def one(number: int) -> Example | Dav2Error:
        try:
            return source[number]
        except Dav2Error as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(numbers), _AHEAD):
            yield from pool.map(one, numbers[start : start + _AHEAD])


def _look(example: Example, report: Report) -> Iterator[str]:
    """Adds an example to the report; yields what is odd about it."""
    height, width = example["image"].shape[:2]
    report.read += 1
    report.sizes[width, height] += 1
    report.with_intrinsics += "intrinsics" in example
    if example["image"].min() == example["image"].max():
        yield "show one color only"
    if "valid" not in example:
        return
    report.labeled += 1
    valid, name = example["valid"], "depth" if "depth" in example else "disparity"
    values = example[name]
    sky = valid & (np.isinf(values) if name == "depth" else values == 0)
    report.pixels += valid.size
    report.valid += int(valid.sum())
    report.sky += int(sky.sum())
    if "tag" in example:
        report.tags.update(dict(enumerate(np.bincount(example["tag"].ravel(), minlength=len(TAGS)).tolist())))
    known = values[valid & ~sky]
    if not valid.any():
        yield "have no valid pixel"
    elif known.size and known.min() == known.max() and known.size > 1:
        yield "have the same depth everywhere"
    if known.size:
        report.low, report.high = min(report.low, float(known.min())), max(report.high, float(known.max()))
        plausible = known[(known < FARTHEST) & (known >= NEAREST)] if report.unit == "metres" else known
        report.medians.append(float(np.median(plausible if plausible.size else known)))
        for kind, wrong in _implausible(known, report.unit if name == "depth" else "disparity"):
            if wrong.any():
                _add(report.extremes.setdefault(kind, Extreme(example["id"])), known[wrong], valid.size, kind)


def _add(extreme: Extreme, values: np.ndarray, pixels: int, kind: str) -> None:
    worst = min if kind == "small" else max
    extreme.examples += 1
    extreme.pixels += len(values)
    extreme.of += pixels
    value = float(values.min() if kind == "small" else values.max())
    extreme.value = value if extreme.value is None else worst(extreme.value, value)


def _implausible(known: np.ndarray, unit: str) -> Iterator[tuple[str, np.ndarray]]:
    """(kind, mask) of values that nobody measured: of background, of holes, or of the largest number of the file."""
    middle = np.median(known)
    metres = unit == "metres"
    large = known >= FARTHEST if metres else known > UNLIKELY * middle
    yield "large", large
    yield "small", known < NEAREST if metres else known < middle / UNLIKELY
    largest = known.max()
    same = known == largest
    if unit == "disparity" or same.mean() < _FEW or same.all() or large.any():
        return
    alone = largest > GAP * known[~same].max()
    yield "filler", same & (alone or (metres and any(abs(largest / value - 1) < 1e-6 for value in SATURATED)))


def _implausible_problems(report: Report) -> Iterator[str]:
    unit = " m" if report.unit == "metres" else ""
    what = "disparity" if report.unit == "disparity" else "depth"
    means = {
        "large": f"{what} up to {{:.4g}}{unit}",
        "small": f"{what} down to {{:.4g}}{unit}",
        "filler": f"{what} of exactly {{:.5g}}{unit}, far beyond all others or the largest that 16 bits hold",
    }
    for kind, extreme in report.extremes.items():
        yield (
            f"{extreme.examples:,} examples have {means[kind].format(extreme.value)}, in "
            f"{extreme.pixels / extreme.of:.2%} of their pixels, first {extreme.first}: "
            "background or holes? Say so with ?sky= or ?invalid= and the stored number"
        )


def _unit_problems(report: Report) -> Iterator[str]:
    if report.unit == "metres" and report.medians:
        middle = float(np.median(report.medians))
        if middle > 300:
            yield f"the median depth is {middle:.4g} m: are these millimetres or steps? Give their scale"
        elif middle < 0.05:
            yield f"the median depth is {middle:.4g} m: is it in another unit, or disparity?"
