"""A small source of noise with every field an example can have; run as a program, it is prepared, slowly."""

import functools
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error


def example(index: int, height: int = 20, width: int = 31) -> Example:
    """Noise; every second one has the fields that are optional."""
    noise = np.random.default_rng(index)
    image = noise.integers(0, 256, (height, width, 3), np.uint8)
    depth = noise.normal(2, 1, (height, width)).astype(np.float32)
    depth[0, :3] = np.inf, np.nan, 0
    one = labeled(f"toy/é{index}", image, depth, intrinsics=[300.1, 301.7, width / 2, height / 3])
    if index % 2:
        one["tag"] = noise.integers(0, 5, (height, width), np.uint8)
        one["sensor_depth"] = noise.random((height, width), np.float32)
    return one


def source(count: int = 23, broken: tuple[int, ...] = (), pause: float = 0) -> Source:
    """`count` examples, of which `broken` cannot be read, each after a pause in seconds."""
    return Source("Toy, set", range(count), functools.partial(_read, broken, pause), "any scale")


def _read(broken: tuple[int, ...], pause: float, index: int) -> Example:
    time.sleep(pause)
    if index in broken:
        raise Dav2Error(f"toy/{index}.png: damaged")
    return example(index)


def same(one: Example, other: Example) -> bool:
    """Whether all fields are, bit for bit."""
    return one.keys() == other.keys() and all(_bits(one[name]) == _bits(other[name]) for name in one)


def _bits(value):
    return value if isinstance(value, str) else (value.dtype, value.shape, value.tobytes())


def environment() -> dict[str, str]:
    """Of a subprocess that imports what this process can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


if __name__ == "__main__":
    from dav2_jax.data import prepare

    count, pause, folder, largest_file = sys.argv[1:]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond fails, as it does on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), resource.RLIM_INFINITY))
    print("ready", flush=True)
    try:
        prepare.prepare(source(int(count), (7,), float(pause)), Path(folder), shard_examples=5, workers=2)
    except Dav2Error as error:
        sys.exit(f"Dav2Error: {error}")
