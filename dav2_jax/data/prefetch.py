"""Batches on their devices before they are needed, and how long the training had to wait for them all the same."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

LOOK = 0.1  # seconds between a waiting thread's looks at whether it should stop


class DevicePrefetch:
    """An iterator over global arrays; made by `prefetch_to_device`.

    Its numbers do not count the first batch, for which readers have to start; `start_up` has the seconds of that.
    """

    def __init__(self, batches: Iterator[dict[str, np.ndarray]], sharding: jax.sharding.Sharding, depth: int = 2):
        self.waited = 0.0  # seconds that the consumer was held up for want of data
        self.start_up = 0.0
        self.given = 0  # batches
        self._began: float | None = None  # when the first batch was given out
        self._batches = batches
        self._state = batches.state() if hasattr(batches, "state") else None
        self._ready: queue.Queue = queue.Queue(max(depth - 1, 1))  # one more is in the hands of the thread
        self._stopping = threading.Event()
        work = (batches, sharding, self._ready, self._stopping)
        self._thread = threading.Thread(target=_work, args=work, daemon=True, name="dav2-prefetch")
        # JAX must not be in use by a thread while Python shuts down.
        self._stop = weakref.finalize(self, _stop, batches, self._ready, self._stopping, self._thread)
        self._thread.start()

    def __iter__(self) -> DevicePrefetch:
        return self

    def __next__(self) -> dict[str, jax.Array]:
        if not self._stop.alive:
            raise StopIteration
        start = time.perf_counter()
        batch, state, error = self._ready.get()
        now = time.perf_counter()
        if error is not None:
            self._stop()
            raise error
        if self._began is None:
            self.start_up, self._began = now - start, now
        else:
            self.waited += now - start
        self.given += 1
        self._state = state
        return batch

    @property
    def share_waiting(self) -> float:
        """Of the time since the first batch, the part that was spent on waiting for the next: 0 is best, 1 is worst.

        Well above 0 the training is bound by its input: more workers, smaller files or a faster disk would speed it up.
        """
        return 0.0 if self._began is None else self.waited / max(time.perf_counter() - self._began, 1e-9)

    def state(self) -> dict[str, Any]:
        """The loader's state after the last batch that was given out; prefetched batches do not count."""
        return self._state

    def close(self) -> None:
        """Stops reading ahead, and the loader behind it; waits for both."""
        self._stop()

    def __enter__(self) -> DevicePrefetch:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def prefetch_to_device(
    batches: Iterator[dict[str, np.ndarray]], sharding: jax.sharding.Sharding, depth: int = 2
) -> DevicePrefetch:
    """A thread takes batches (of a `Loader`, or any iterator) and puts them on the devices, `depth` of them ahead.

    batches   dicts of this host's arrays [rows, ...]
    sharding  of the global arrays [batch, ...], as `sharding.batch_sharding(mesh)`; one device is a mesh of one

    What the iterator raises is raised here, when its turn comes. Close it, or use it in a `with` block.
    """
    return DevicePrefetch(batches, sharding, depth)


def _work(batches, sharding, ready: queue.Queue, stopping: threading.Event) -> None:
    def hand_over(*item) -> None:
        while not stopping.is_set():
            try:
                return ready.put(item, timeout=LOOK)
            except queue.Full:
                continue

    try:
        for batch in batches:
            if stopping.is_set():
                return
            state = batches.state() if hasattr(batches, "state") else None
            arrays = {name: jax.make_array_from_process_local_data(sharding, part) for name, part in batch.items()}
            del batch
            hand_over(arrays, state, None)
            del arrays
        hand_over(None, None, StopIteration())
    except Exception as error:
        hand_over(None, None, error)


def _stop(batches, ready: queue.Queue, stopping: threading.Event, thread: threading.Thread) -> None:
    stopping.set()
    if hasattr(batches, "close"):
        batches.close()
    thread.join()
    while not ready.empty():
        ready.get_nowait()
