"""The order of examples in an endless stream: a pure function of the position, which is all there is to save.

Shuffling many examples is Grain's index permutation, computed for one index at a time: 3 microseconds, and no memory,
for 62 million as for a hundred thousand. Hosts, workers and restarts compute the same order from the same few numbers.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from typing import NamedTuple

import numpy as np

from dav2_jax.errors import Dav2Error

LISTED = 2**16  # examples up to which a permutation is kept as a list: below, Grain's takes up to 3 ms for one index
SHARES = 2**32  # parts into which weights are divided, as whole numbers: no rounding that machines could disagree on


class Place(NamedTuple):
    """One example: number `index` of source number `source`, on its pass number `epoch` over the data."""

    epoch: int
    source: int
    index: int


@dataclasses.dataclass(frozen=True)
class Order:
    """position -> Place.

    lengths  examples in each source, none empty
    seed     of the permutations, at least 0
    shuffle  each epoch in an order of its own, over all sources together; otherwise one after another
    weights  None: the sources are one long list (plain concatenation, as in the paper), an epoch is all of it.
             Otherwise a share for each source: every block of positions has just that share of each, and each source
             goes through epochs of its own

    Raises Dav2Error for what cannot be an order.
    """

    lengths: tuple[int, ...]
    seed: int = 0
    shuffle: bool = True
    weights: tuple[float, ...] | None = None

    def __post_init__(self):
        if not self.lengths or min(self.lengths) < 1:
            raise Dav2Error(f"sources of {list(self.lengths)} examples: at least one source, and none empty, is needed")
        if sum(self.lengths) >= 2**31:
            raise Dav2Error(f"{sum(self.lengths):,} examples: fewer than {2**31:,} can be numbered")
        if self.seed < 0:
            raise Dav2Error(f"seed {self.seed}: seeds are 0 or more")
        if self.weights is not None:
            if len(self.weights) != len(self.lengths):
                raise Dav2Error(f"{len(self.weights)} weights for {len(self.lengths)} sources: give one for each")
            if not all(weight > 0 and weight < float("inf") for weight in self.weights):
                raise Dav2Error(f"weights {list(self.weights)}: they must be positive; leave out a source instead")
            if min(self.weights) < 1e-6 * sum(self.weights):
                raise Dav2Error(f"weights {list(self.weights)}: a share below one in a million would not be kept")

    def __call__(self, position: int) -> Place:
        """The example at this position, from 0 on."""
        if self.weights is None:
            epoch, within = divmod(position, sum(self.lengths))
            if self.shuffle:
                within = _shuffled(within, sum(self.lengths), number(self.seed, epoch))
            ends = list(itertools.accumulate(self.lengths))
            source = bisect.bisect_right(ends, within)
            return Place(epoch, source, within - (ends[source - 1] if source else 0))
        length = _block_length(self.weights)
        block, within = divmod(position, length)
        source, drawn = _block(self.weights, length, block, self.seed if self.shuffle else None)
        source, drawn = int(source[within]), int(drawn[within])
        epoch, index = divmod(drawn, self.lengths[source])
        if self.shuffle:
            index = _shuffled(index, self.lengths[source], number(self.seed, epoch, source))
        return Place(epoch, source, index)


def number(*parts: int) -> int:
    """A 32-bit number that is mixed from these (at least 0 each) and looks unrelated to that of any others."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _shuffled(index: int, length: int, seed: int) -> int:
    if length <= LISTED:
        return int(_permutation(length, seed)[index])
    from grain.experimental import index_shuffle

    return index_shuffle(index, max_index=length - 1, seed=seed, rounds=4)


@functools.lru_cache(maxsize=64)
def _permutation(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(length).astype(np.int32)


@functools.lru_cache(maxsize=64)
def _block_length(weights: tuple[float, ...]) -> int:
    """Positions that share out the weights: enough that the rarest source has two of them."""
    length = 1024
    while length * min(weights) < 2 * sum(weights):
        length *= 2
    return length


@functools.lru_cache(maxsize=4)
def _block(weights: tuple[float, ...], length: int, block: int, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
    """For each position of a block its source, and how often that source has come before in the whole stream."""
    ends = [0, *(round(SHARES * end / sum(weights)) for end in itertools.accumulate(weights))]

    def drawn_before(position: int) -> list[int]:
        edges = [end * position // SHARES for end in ends]
        return [after - before for before, after in itertools.pairwise(edges)]

    first = drawn_before(block * length)
    counts = [later - now for now, later in zip(first, drawn_before((block + 1) * length), strict=True)]
    source = np.repeat(np.arange(len(weights)), counts)
    drawn = np.concatenate([np.arange(start, start + count) for start, count in zip(first, counts, strict=True)])
    if seed is None:  # as evenly as they go
        spread = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        order = np.argsort(spread, kind="stable")
    else:
        order = np.random.default_rng(number(seed, block, len(weights))).permutation(length)
    source, in_turn = source[order], np.empty_like(drawn)
    in_turn[np.argsort(source, kind="stable")] = drawn  # of each source one draw after another, epoch after epoch
    return source, in_turn
