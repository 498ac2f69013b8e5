"""Sources for the loader's tests, in a module of their own because worker processes import what they read with."""

import tempfile
import time
from pathlib import Path

import numpy as np

from dav2_jax.data.example import Example, labeled
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error


def read(item: int) -> Example:
    """A small image of noise with its number in all of its depths."""
    image = np.random.default_rng(item).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return labeled(f"item-{item}", image, np.full((20, 30), 1 + item))


def read_or_fail(item: int) -> Example:
    if item % 5 == 2:
        raise Dav2Error(f"/data/{item}.png: damaged")
    return read(item)


def read_for_ever(item: int) -> Example:
    """Hangs, as a network disk might; says in a file that it does."""
    (Path(tempfile.gettempdir()) / "hangs").touch()
    time.sleep(1000)
    return read(item)


def toy(count: int, name: str = "toy", start: int = 0, reader=read) -> Source:
    return Source(name, range(start, start + count), reader)
