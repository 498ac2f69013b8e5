"""Batches for training from any sources: shuffled, mixed, shared among hosts, read by workers, resumed where it was.

The stream of examples is fixed by the sources and the seed (`data/order.py`). Global batch number b is the positions
from b * batch_size on; each host reads its rows of it. So how far the run has come is one number, and neither it nor
the batches depend on how many hosts or workers there are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dav2_jax.data.example import Example
from dav2_jax.data.order import Order, number
from dav2_jax.data.source import Source
from dav2_jax.data.workers import Reader
from dav2_jax.errors import Dav2Error

if TYPE_CHECKING:
    import jax

TRIES = 100  # examples in a row that may be broken before it must be something else
FOREVER = 2**40  # batches

Batch = dict[str, np.ndarray]


class Loader:
    """An iterator over this host's part of each global batch, as NumPy arrays [rows, ...].

    sources     at least one; see `Source`. Those `on_device` are read in this process
    batch_size  of the global batch: all hosts together
    transform   (example, seed) -> arrays of one row, of one shape for all, such as `augment.Geometry`; picklable
    seed        of the order, and of the seeds of the transform
    weights     None: plain concatenation, as in the paper; or a share for each source
    shuffle     globally, anew each epoch
    epochs      passes over the data; None: endless. With weights a pass is the number of examples of all sources
    drop_remainder  of a finite run leave out the last examples, fewer than a batch; otherwise they are padded to one
                by rows with `index` -1 and nothing valid
    workers     processes that read; 0: in-process threads. None: one per core up to 8, or 0 for sources on a device
    ahead       batches that each worker has ready
    on_error    "raise" for an example that cannot be read; "skip" takes the next one of its source that can be, so that
                the order stays as it is, and lists what was left out in `skipped`
    process_index, process_count  this host and the number of hosts, which take equal parts of each batch one after
                another; None asks JAX
    sharding    instead of those two: this host's rows are the ones that `sharding` puts on its devices

    A batch has what the transform gives, and of each row `index`, int32: its number in all sources one after another
    (`loader.name(index)` says which), and `seed`, uint32: the same for the same (seed, epoch, example) in any batch;
    `data/strong.py` starts from it.

    Use it in a `with` block or call `close`, which ends the workers. The next batch afterwards starts them again.
    Raises Dav2Error for settings that do not fit together, and for examples that cannot be read, by name.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        batch_size: int,
        transform: Callable[[Example, int], Batch],
        *,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        shuffle: bool = True,
        epochs: int | None = None,
        drop_remainder: bool = True,
        workers: int | None = None,
        ahead: int = 1,
        on_error: Literal["raise", "skip"] = "raise",
        process_index: int | None = None,
        process_count: int | None = None,
        sharding: jax.sharding.Sharding | None = None,
    ):
        lengths = tuple(len(source) for source in sources)
        self.sources, self.batch_size, self.workers, self.ahead = tuple(sources), batch_size, workers, ahead
        order = Order(lengths, seed, shuffle, None if weights is None else tuple(map(float, weights)))
        on_device = [source.name for source in sources if source.on_device]
        if workers is None:
            self.workers = 0 if on_device else min(os.cpu_count() or 1, 8)
        elif workers and on_device:
            raise Dav2Error(f"{', '.join(on_device)}: made on a device, which workers cannot: use workers=0")
        self._drop_remainder = drop_remainder
        end = None if epochs is None else epochs * sum(lengths)
        if sharding is not None:
            rows = rows_on_this_host(sharding, batch_size)
        else:
            rows = _part(batch_size, process_index, process_count)
        self._read = _Read(self.sources, order, end, rows, transform, on_error)
        if end is not None and not self._batches(end):
            raise Dav2Error(f"{end:,} examples do not fill a batch of {batch_size}: use a smaller one")
        self._position = 0
        self._reader: Reader | None = None
        self.skipped: list[str] = []  # one line for each example that was left out on this host, in the order of events

    def __len__(self) -> int:
        """Batches in all epochs. Raises TypeError when they are endless, as `len` does for whatever has no length."""
        if self._read.end is None:
            raise TypeError("an endless loader has no length: give epochs")
        return self._batches(self._read.end)

    def _batches(self, examples: int) -> int:
        return examples // self.batch_size if self._drop_remainder else -(-examples // self.batch_size)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        left = FOREVER if self._read.end is None else self._batches(self._read.end - self._position)
        if left <= 0:
            self.close()
            raise StopIteration
        if self._reader is None:
            read = dataclasses.replace(self._read, start=self._position, batch_size=self.batch_size)
            self._reader = Reader(read, left, self.workers, threads=min(os.cpu_count() or 1, 4), ahead=self.ahead)
        try:
            batch, skipped = next(self._reader)
        except Exception:
            self.close()
            raise
        self._position += self.batch_size
        self.skipped += skipped
        if not self.workers:
            return {name: np.asarray(array) for name, array in batch.items()}
        copied = {name: np.array(array) for name, array in batch.items()}  # whoever takes a batch may hold it for long
        self._reader.give_back(batch)
        return copied

    def state(self) -> dict[str, Any]:
        """How far the batches that were given out have come, for `restore`; small, and JSON can hold it."""
        return {"position": self._position} | self._about()

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where the loader that gave this state was, on however many hosts and with any size of batch.

        Raises Dav2Error when the data or the seed are not those of the state: then the order is another one.
        """
        about = self._about()
        differ = [name for name in about if state.get(name) != about[name]]
        if differ:
            changes = "; ".join(f"{name} was {state.get(name)!r}, is {about[name]!r}" for name in differ)
            raise Dav2Error(f"the loader cannot go on from this state, the order has changed: {changes}")
        self.close()
        self._position = int(state["position"])

    def _about(self) -> dict[str, Any]:
        order = self._read.order
        sources = [[source.name, len(source)] for source in self.sources]
        weights = None if order.weights is None else list(order.weights)
        return {"sources": sources, "weights": weights, "seed": order.seed, "shuffle": order.shuffle}

    def name(self, index: int) -> str:
        """The example of a batch's `index` in words: source, number there and id; reads the example once more."""
        for source in self.sources:
            if index < len(source):
                return f"{source.name} {index}: {source[index]['id']}"
            index -= len(source)
        raise IndexError(index)

    def close(self) -> None:
        """Ends the workers and waits for it; batches that nobody took will be read again."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def rows_on_this_host(sharding: jax.sharding.Sharding, batch_size: int) -> tuple[int, ...]:
    """Those rows of a global batch, in order, that `sharding` puts on this process's devices.

    Raises Dav2Error for a batch that it cannot split.
    """
    try:
        parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    except ValueError as error:
        devices = len(sharding.device_set)
        raise Dav2Error(f"a batch of {batch_size} cannot be split over {devices} devices: choose a multiple") from error
    return tuple(sorted({row for (part,) in parts for row in range(batch_size)[part]}))


def _part(batch_size: int, index: int | None, count: int | None) -> tuple[int, ...]:
    if index is None or count is None:
        import jax

        index, count = jax.process_index(), jax.process_count()
    if batch_size < 1 or batch_size % count or not 0 <= index < count:
        raise Dav2Error(
            f"a batch of {batch_size} cannot be shared by {count} hosts (this is {index}): choose a multiple"
        )
    part = batch_size // count
    return tuple(range(index * part, (index + 1) * part))


@dataclasses.dataclass(frozen=True)
class _Read:
    """What a worker does: batch number `step`, counted from position `start`, of this host."""

    sources: tuple[Source, ...]
    order: Order
    end: int | None
    rows: tuple[int, ...]
    transform: Callable[[Example, int], Batch]
    on_error: str
    start: int = 0
    batch_size: int = 1

    def __call__(self, step: int) -> tuple[Batch, list[str]]:
        first, skipped = self.start + step * self.batch_size, []
        rows = [self._row(first + row, skipped) for row in self.rows]
        shapes = {name: {row[name].shape for row in rows} for name in rows[0]}
        for name, found in shapes.items():
            if len(found) > 1:
                raise Dav2Error(f"rows of a batch differ in their {name}: {sorted(found)}: crop them to one size")
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}, skipped

    def _row(self, position: int, skipped: list[str]) -> Batch:
        if self.end is not None and position >= self.end:
            row = self._row(self.end - 1, []) | {"index": np.int32(-1)}  # for its shapes
            return row | {name: np.zeros_like(row[name]) for name in ("valid",) if name in row}
        place = self.order(position)
        source = self.sources[place.source]
        for offset in range(min(len(source), TRIES)):
            index = (place.index + offset) % len(source)
            seed = number(self.order.seed, place.epoch, place.source, index)
            try:
                example = source[index]
                row = self._transform(source, example, seed)
            except Dav2Error as error:
                if self.on_error == "raise":
                    way = 'on_error="skip" leaves such examples out'
                    raise Dav2Error(f"{error} ({way})") from error
                skipped.append(str(error))
                continue
            whole = index + sum(len(one) for one in self.sources[: place.source])
            return row | {"index": np.int32(whole), "seed": np.uint32(seed)}
        raise Dav2Error(f"{skipped[-1]}: and so are {len(skipped) - 1} more in a row: is this the right folder?")

    def _transform(self, source: Source, example: Example, seed: int) -> Batch:
        try:
            return self.transform(example, seed)
        except Dav2Error as error:
            raise Dav2Error(f"{source.name}: {error}") from error
