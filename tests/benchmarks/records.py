"""How fast records are written and read, and how large they are: `python tests/benchmarks/records.py`.

Examples of 640 x 480 from the bundled image, shifted each by some pixels: depth of smooth surfaces with steps, once as
computed and once rounded to millimetres as a depth camera's file has it; a mask and intrinsics. Reading is by random
access, from the page cache, one thread. CPU time is what stays the same on a machine that has other work too.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import dav2_jax
from dav2_jax.data import prepare, record_codec, records
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    settings = parser.parse_args()
    raw = 640 * 480 * (3 + 4 + 1)
    print(f"raw: {raw / 1e6:.2f} MB an example; {settings.count} examples, {os.cpu_count()} cores")
    print("| depth | image | MB an example | of raw | write, ms CPU | wall | read, ms CPU | wall |")
    print("|---|---|---|---|---|---|---|---|")
    for depth in ("smooth", "millimetres"):
        for jpeg in (None, 95):
            size, write, read = measure(depth, jpeg, settings.count)
            image = "PNG" if jpeg is None else f"JPEG {jpeg}"
            head = f"| {depth} | {image} | {size / 1e6:.2f} | {size / raw:.0%} "
            print(f"{head}| {write[0]:.0f} | {write[1]:.0f} | {read[0]:.0f} | {read[1]:.0f} |", flush=True)


def measure(depth: str, jpeg: int | None, count: int) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """Bytes an example; ms of CPU and of wall time an example to write, and to read, all with one thread."""
    examples = [example(depth, index) for index in range(10)]
    source = Source("bench", range(count), lambda index: examples[index % 10])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write = _timed(count, lambda: prepare.prepare(source, folder, jpeg=jpeg, workers=1))
        back = records.source(folder)
        back[0]  # opens the shard
        order = np.random.default_rng(0).permutation(count).tolist()
        read = _timed(count, lambda: [back[index]["id"] for index in order])
    size = np.mean([len(record_codec.encode(one, jpeg)) for one in examples])
    return float(size), write, read


@functools.cache
def example(depth: str, index: int) -> Example:
    """A part of the bundled image, with depth made up for it."""
    with Image.open(Path(dav2_jax.__file__).parent / "assets" / "room.jpg") as image:
        pixels = np.asarray(image.convert("RGB").resize((800, 600)))[index : index + 480, 2 * index : 2 * index + 640]
    y, x = np.mgrid[:480, :640].astype(np.float32)
    values = 2 + 3 * np.abs(np.sin((x + 9 * index) / 150)) + y / 200
    values[100:300, 200:400] = 1.5 + x[100:300, 200:400] / 900
    values[:20] = 0
    if depth == "millimetres":
        values = np.round(values * 1000) / np.float32(1000)
    return labeled(str(index), pixels, values, intrinsics=[500, 500, 320, 240])


def _timed(count: int, work) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.process_time() - cpu) / count, 1000 * (time.perf_counter() - wall) / count


if __name__ == "__main__":
    main()
