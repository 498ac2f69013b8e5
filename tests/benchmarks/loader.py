"""Examples a second from files to batches: the loader with and without workers, against a plain loop.

    python tests/benchmarks/loader.py                                  # two minutes on two cores
    python tests/benchmarks/loader.py --sizes 518 --workers 0 4 8 --pixels uint8

Pairs of 640 x 480 are made once in --work: an image as PNG or JPEG, its depth as npy (float32) or 16-bit PNG. All of
them stay in the system's cache, so this is the cost of decoding, resizing and handing over, not of a disk.

    plain loop  read, resize, crop and stack in this process, one example after another
    loader, 0   threads of this process; loader, 2: worker processes, and so on
    parts       milliseconds of a core an example of image, depth file and transform

The time starts after the first batches, when all workers run. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dav2_jax.data.augment import Geometry
from dav2_jax.data.example import Example, labeled
from dav2_jax.data.loader import Loader
from dav2_jax.data.source import Source
from dav2_jax.image import depth_files
from dav2_jax.image.read import read_image

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KINDS = {"png + npy": (".png", ".npy"), "png + png16": (".png", ".png"), "jpg + npy": (".jpg", ".npy")}


def make(folder: Path, count: int, image_ending: str, depth_ending: str) -> list[str]:
    """Pairs of smooth shapes with some noise, which compress about as photos do."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}" for number in range(count)]
    for number, name in enumerate(names):
        image, depth = folder / f"{name}{image_ending}", folder / f"{name}-depth{depth_ending}"
        if image.exists() and depth.exists():
            continue
        rng = np.random.default_rng(number)
        waves = rng.normal(size=(4, 3))
        y, x = np.mgrid[:480, :640] / 60
        smooth = sum(np.sin(a * x + b * y + c) for a, b, c in waves) / 4
        noisy = 127 + 90 * smooth[..., None] * [1, 0.8, 0.6] + rng.normal(size=(480, 640, 3)) * 4
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(image)
        metres = (3 + smooth).astype(np.float32)
        if depth_ending == ".npy":
            np.save(depth, metres)
        else:
            Image.fromarray((metres * 1000).astype(np.uint16)).save(depth)
    return names


def read(name: str, folder: Path, image_ending: str, depth_ending: str) -> Example:
    image = read_image(folder / f"{name}{image_ending}")[0]
    return labeled(name, image, depth_files.read(folder / f"{name}-depth{depth_ending}"))


def plain_loop(source: Source, transform: Geometry, batch: int, batches: int) -> float:
    """Seconds for so many batches."""
    start = time.perf_counter()
    for number in range(batches):
        rows = [transform(source[(number * batch + row) % len(source)], row) for row in range(batch)]
        {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return time.perf_counter() - start


def loader(source: Source, transform: Geometry, batch: int, batches: int, workers: int) -> tuple[float, float]:
    """Seconds for so many batches, and until the first came."""
    settings = {"transform": transform, "workers": workers, "process_index": 0, "process_count": 1}
    start = time.perf_counter()
    with Loader([source], batch, **settings) as ready:
        next(ready)
        first = time.perf_counter() - start
        for _ in range(4 * max(workers, 1)):  # what was read ahead while others started
            next(ready)
        start = time.perf_counter()
        for _ in range(batches):
            next(ready)
        return time.perf_counter() - start, first


def parts(source: Source, folder: Path, endings: tuple[str, str], transform: Geometry) -> dict[str, float]:
    """Milliseconds of a core an example."""
    spent = dict.fromkeys(("image", "depth", "transform"), 0.0)
    for seed, name in enumerate(source.items):
        now = time.process_time()
        read_image(folder / f"{name}{endings[0]}")
        spent["image"] += time.process_time() - now
        now = time.process_time()
        depth_files.read(folder / f"{name}-depth{endings[1]}")
        spent["depth"] += time.process_time() - now
        example = source[seed]
        now = time.process_time()
        transform(example, seed)
        spent["transform"] += time.process_time() - now
    return {name: 1e3 * seconds / len(source) for name, seconds in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["png + npy"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[252, 518])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--pixels", choices=("float32", "uint8"), default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "benchmarks" / "pairs")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    arguments = parser.parse_args()
    found = []
    for kind, size in itertools.product(arguments.kinds, arguments.sizes):
        endings = KINDS[kind]
        folder = arguments.work / kind.replace(" ", "")
        names = make(folder, arguments.files, *endings)
        reader = functools.partial(read, folder=folder, image_ending=endings[0], depth_ending=endings[1])
        source, transform = Source("pairs", names, reader), Geometry(size, pixels=arguments.pixels)
        cost = parts(source, folder, endings, transform)
        shown = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in cost.items())
        print(f"\n{kind}, crops of {size}, batches of {arguments.batch}; ms of a core an example: {shown}")
        examples = arguments.batch * arguments.batches
        seconds = plain_loop(source, transform, arguments.batch, arguments.batches)
        print(f"  plain loop            {examples / seconds:7.1f} examples/s", flush=True)
        row = {"kind": kind, "size": size, "parts_ms": cost, "plain": examples / seconds}
        for workers in arguments.workers:
            seconds, first = loader(source, transform, arguments.batch, arguments.batches, workers)
            print(f"  loader, {workers} workers     {examples / seconds:7.1f} examples/s, first after {first:.1f} s")
            row[f"workers {workers}"] = examples / seconds
        found.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
