"""Many items through one device: threads prepare, the device computes batches, threads finish, the order is kept.

    item --prepare (threads)--> array --batch of one shape--> forward (device) --row--> finish (threads) --> value

Arrays of equal shape share a batch; nothing is padded or squashed to make shapes equal. Memory is bounded twice, by the
number and by the bytes of the items that are between being taken and being given back, however many there are in all.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

AHEAD = 2  # batches on the device at once: one computes while the next one waits behind it
_BYTES, _BYTES_A_WORKER = 10**9, 5 * 10**8  # in flight, see `run`
_IDLE = 0.5  # of an item's bytes, while no thread works on it


class Outcome(NamedTuple):
    """What became of one item: `value`, from `finish`, or the `error` that prepare, forward or finish raised."""

    item: Any
    value: Any
    error: BaseException | None


class _Slot:
    def __init__(self, item, prepared: Future, size: int):
        self.item = item
        self.size = size  # bytes
        self.prepared = prepared  # (array, rest)
        self.result: Future | None = None  # from when the item has left the device

    def outcome(self) -> Outcome:
        error = self.result.exception()
        return Outcome(self.item, None if error else self.result.result(), error)


def run(
    items: Iterable,
    prepare: Callable[[Any], tuple[np.ndarray, Any]],
    forward: Callable[[list[np.ndarray]], Any],
    finish: Callable[[Any, Any, np.ndarray], Any],
    *,
    batch_size: int = 1,
    workers: int | None = None,
    size: Callable[[Any], int] = lambda item: 0,
) -> Iterator[Outcome]:
    """Lazily one Outcome for each item, in the order of the items.

    items       taken one by one as there is room, in the thread of the caller
    prepare     item -> (array for the device, anything else that `finish` needs); in a worker thread
    forward     up to `batch_size` arrays of one shape -> array-like [batch, ...], one row for each of them and perhaps
                more; in the thread of the caller, and should return before the device is done
    finish      (item, anything else, row) -> value; in a worker thread
    workers     threads; None: one a core, at most 8
    size        item -> bytes that it takes while a thread works on it; about half of that before and after. Items are
                taken while all of them together stay below 1 GB and 0.5 GB a worker; a larger one goes alone.

    A batch is sent when it is full, and in part only when the oldest item would otherwise wait for ever. Which items
    share a batch depends on the items alone, never on timing. An error is of its own item, or of all items of its batch
    if `forward` raised it; the others go on. When the caller stops early, nothing new is begun.
    """
    workers = workers or min(os.cpu_count() or 1, 8)
    window = (AHEAD + 2) * batch_size + workers
    limit = _BYTES + workers * _BYTES_A_WORKER
    items = iter(items)
    peeked: list[tuple[Any, int]] = []  # an item that has to wait for room
    slots: deque[_Slot] = deque()  # all items on their way, oldest first
    waiting: deque[_Slot] = deque()  # those being prepared
    groups: dict[tuple, list[_Slot]] = {}  # prepared, by the shape of their arrays; none is a full batch
    flight: deque[tuple[list[_Slot], Any]] = deque()  # batches on the device

    def send(group: list[_Slot]) -> None:
        if len(flight) == AHEAD:
            collect()
        try:
            flight.append((group, forward([slot.prepared.result()[0] for slot in group])))
        except Exception as error:
            _fail(group, error)

    def collect() -> None:
        group, rows = flight.popleft()
        try:
            rows = np.asarray(rows)  # waits for the device
        except Exception as error:
            return _fail(group, error)
        for slot, row in zip(group, rows, strict=False):
            slot.result = pool.submit(finish, slot.item, slot.prepared.result()[1], row)
            slot.prepared = None  # its memory belongs to `finish` now

    def admit() -> bool:
        """Takes one more item, where there is one and room for it."""
        if len(slots) == window:
            return False
        if not peeked:
            if (item := next(items, _END)) is _END:
                return False
            peeked.append((item, size(item)))
        item, bytes_needed = peeked[0]
        sizes = sorted([bytes_needed, *(slot.size for slot in slots)], reverse=True)
        if slots and _IDLE * sum(sizes) + (1 - _IDLE) * sum(sizes[:workers]) > limit:
            return False
        peeked.clear()
        slot = _Slot(item, pool.submit(prepare, item), bytes_needed)
        slots.append(slot)
        waiting.append(slot)
        return True

    def assign_to_batch() -> None:
        slot = waiting.popleft()
        if slot.prepared.exception():
            slot.result = slot.prepared
            return
        shape = slot.prepared.result()[0].shape
        group = groups.setdefault(shape, [])
        group.append(slot)
        if len(group) == batch_size:
            send(groups.pop(shape))

    pool = ThreadPoolExecutor(workers, thread_name_prefix="dav2")
    try:
        while True:
            while admit():
                pass
            if not slots:
                return
            while waiting and waiting[0].prepared.done():
                assign_to_batch()
            oldest = slots[0]
            if oldest.result is not None and oldest.result.done():
                yield slots.popleft().outcome()
            elif flight:
                collect()  # before waiting for files to be read or written: the device comes first
            elif waiting:
                assign_to_batch()
            elif oldest.result is None:
                send(groups.pop(next(shape for shape, group in groups.items() if oldest in group)))
            else:
                yield slots.popleft().outcome()
    finally:
        pool.shutdown(cancel_futures=True)


_END = object()


def _fail(group: list[_Slot], error: Exception) -> None:
    for slot in group:
        slot.result = Future()
        slot.result.set_exception(error)


def one_by_one(predict: Callable[[Any], Any]) -> Callable[..., Iterator[Outcome]]:
    """`predict`, of one photo, as a stream like `Model.stream`: nothing runs ahead. For what batches by itself."""

    def stream(photos: Iterable, finish: Callable[[Any, Any], Any]) -> Iterator[Outcome]:
        for photo in photos:
            try:
                outcome = Outcome(photo, finish(photo, predict(photo)), None)
            except Exception as error:
                outcome = Outcome(photo, None, error)
            yield outcome

    return stream
