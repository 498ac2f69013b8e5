"""Batches from Grain's worker processes, which end with whoever started them.

Grain reads ahead in processes and hands arrays over in shared memory. What is added here is their end, whatever the
reason: Ctrl-C reaches only the process that started them, which stops them in order; a worker that does not come back
from a read, or whose parent was killed, ends itself.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import queue
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import util
from pathlib import Path
from typing import Any

from dav2_jax.errors import Dav2Error

PATIENCE = 5.0  # seconds in which at least one more worker should end, once they are told to stop
CHECK = 0.2  # seconds between a worker's looks at whether it is still wanted


class Reader:
    """`read(0)`, `read(1)`, ... up to `read(count - 1)`, in this order, computed ahead.

    read     picklable, gives a tree of arrays and of small things; its Dav2Error is raised here when its turn comes
    workers  processes; 0: in-process threads
    ahead    results that each worker may have ready

    One thread may wait in `next` while another calls `close`.
    """

    def __init__(self, read: Callable[[int], Any], count: int, workers: int, threads: int = 2, ahead: int = 1):
        import grain

        turn = threading.Lock()  # Grain's iterators are for one thread at a time
        lease = None
        results = grain.MapDataset.range(count).map(read)
        if workers:
            _defaults_of_grains_flags()
            lease = Path(tempfile.mkdtemp(prefix="dav2-loader-"))
            results = results.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=min(workers, count), per_worker_buffer_size=ahead),
                worker_init_fn=functools.partial(_begin, str(lease), os.getpid()),
            )
        else:
            options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, ahead))
            results = results.to_iter_dataset(options)
        self._results, self._turn = iter(results), turn
        with _sigint_blocked():
            self._spent = queue.SimpleQueue()
            closing = _Closing(self._results, lease, turn, self._spent)
            # Also when the program ends. Before Grain's own (at 1), which waits 25 s for each worker that hangs, and
            # before the end of the thread (at 15) that gives back its shared memory.
            self._stop = util.Finalize(self, closing, exitpriority=20)
            if workers:
                # Otherwise Grain makes one iterator after another as their turns come, and forgets to close those that
                # never had theirs. Asking for the state makes all of them, without starting them.
                self._results.get_state()
        with _sigint_blocked():  # once more: the first process of all, Python's own for shared memory, unblocks it
            self._results.start_prefetch()

    def __next__(self):
        try:
            with self._turn:
                return next(self._results)
        except RuntimeError as error:
            code = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
            if code is None:
                raise
            raise Dav2Error(_worker_exit_message(int(code[1]))) from error

    def give_back(self, arrays: dict[str, Any]) -> None:
        """Empties it, soon. Arrays of a worker lie in memory shared with it, which is little: copy them, and give back.

        A thread does it. Grain's arrays are more than memory when they end, and Python drops a Ctrl-C that falls into
        their `__del__`, which would otherwise run in the thread that Ctrl-C interrupts.
        """
        self._spent.put(arrays)

    def close(self) -> None:
        """Stops the workers and waits until they are gone. What they had read and nobody took is lost."""
        self._stop()


class _Closing:
    """Called once, it closes Grain's iterator and ends the workers, and returns when they are gone.

    A thread of its own does it, so that a worker that hangs cannot hold up the caller, who then takes away the lease.
    The thread stands ready from the beginning: while Python shuts down, from 3.12 on, none can be started.
    """

    def __init__(self, results, lease: Path | None, turn: threading.Lock, spent: queue.SimpleQueue):
        self._lease, self._spent = lease, spent
        self._thread = threading.Thread(
            target=_empty_then_close, args=(spent, results, turn), daemon=True, name="dav2-loader-close"
        )
        self._thread.start()

    def __call__(self) -> None:
        self._spent.put(None)
        # Grain ends them one after another, which takes a busy machine a while. What a worker has read and nobody
        # cleared is lost with it when it ends itself, and its shared memory with that.
        before, left = None, _children()
        while self._thread.is_alive() and left != before:
            self._thread.join(PATIENCE)
            before, left = left, _children()
        if self._lease is not None:
            with contextlib.suppress(OSError):
                self._lease.rmdir()  # any worker that is left ends within CHECK seconds, and Grain sees that it has
        self._thread.join()


def _children() -> int:
    """Processes of multiprocessing that this program has started and that have not ended."""
    return len(multiprocessing.active_children())


def _empty_then_close(spent: queue.SimpleQueue, results, turn: threading.Lock) -> None:
    while (arrays := spent.get()) is not None:
        arrays.clear()
    with turn:
        results.close()
    from grain.multiprocessing import SharedMemoryArray

    # Arrays were dropped above, and by that what nobody took. A thread of Grain gives their memory back, one after
    # another, and is not waited for when a program ends: Python would complain of leaks. When it comes to this request,
    # all is given back.
    if pool := getattr(SharedMemoryArray, "_del_thread_pool", None):
        pool.apply(int)


def _begin(lease: str, parent: int, _number: int, _count: int) -> None:
    """In each worker, before anything else."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["JAX_PLATFORMS"] = "cpu"  # a reader that uses JAX after all must not take the accelerator
    if "jax" in sys.modules:  # Grain imports it for its trees
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    threading.Thread(target=_live_while_wanted, args=(Path(lease), parent), daemon=True).start()


def _live_while_wanted(lease: Path, parent: int) -> None:
    while os.getppid() == parent and lease.exists():
        time.sleep(CHECK)
    if os.getppid() != parent:  # which was killed: nobody else removes it
        with contextlib.suppress(OSError):
            lease.rmdir()
    os._exit(1)


def _defaults_of_grains_flags() -> None:
    """Grain 0.2.18 asks absl for one of its flags, which is an error in a program that does not parse absl's flags."""
    from absl import flags

    for name in flags.FLAGS:
        if name.startswith("grain_"):
            flags.FLAGS[name].present = True


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Threads and processes that start in here never see Ctrl-C, not even before they run any Python of ours."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _worker_exit_message(code: int) -> str:
    if code == -signal.SIGKILL:
        return "a worker of the loader was killed, probably for want of memory: use fewer workers or a smaller batch"
    if code == -getattr(signal, "SIGBUS", 0):
        return "a worker of the loader found no shared memory: enlarge /dev/shm (docker: --shm-size), or workers=0"
    return (
        f"a worker of the loader ended with exit code {code}, see its words above; in a script, what starts workers "
        'must stand under `if __name__ == "__main__":`'
    )
