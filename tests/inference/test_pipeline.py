"""The pipeline: order, batches, bounded memory, and errors that stay where they belong."""

import itertools
import threading
import time

import numpy as np
import pytest

from dav2_jax.inference.pipeline import AHEAD, run


def prepared(size):
    return np.full(size, size, np.float32), f"rest of {size}"


def finished(item, rest, row):
    return item, rest, row.shape, float(row.sum())


def forward_that_records(calls, batch_size):
    def forward(arrays):
        calls.append([array.size for array in arrays])
        return np.stack([*arrays, *[arrays[0]] * (batch_size - len(arrays))]) * 2

    return forward


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_every_item_comes_back_in_order_with_its_own_row(batch_size):
    sizes = [3, 1, 4, 1, 5, 1, 2, 6, 5, 3, 5] * 3
    calls = []
    outcomes = list(
        run(sizes, prepared, forward_that_records(calls, batch_size), finished, batch_size=batch_size, workers=3)
    )
    assert [outcome.item for outcome in outcomes] == sizes
    assert all(outcome.error is None for outcome in outcomes)
    assert [outcome.value for outcome in outcomes] == [(n, f"rest of {n}", (n,), 2.0 * n * n) for n in sizes]
    assert all(len(set(call)) == 1 and len(call) <= batch_size for call in calls)  # one shape a batch
    assert sum(map(len, calls)) == len(sizes)


def test_batches_depend_on_the_items_and_not_on_timing():
    sizes = np.random.default_rng(0).integers(1, 5, 60).tolist()

    def batches(seed):
        rng, calls = np.random.default_rng(seed), []

        def slow(size):
            time.sleep(rng.random() / 500)
            return prepared(size)

        def slow_finish(*arguments):
            time.sleep(rng.random() / 500)
            return finished(*arguments)

        list(run(sizes, slow, forward_that_records(calls, 4), slow_finish, batch_size=4, workers=4))
        return calls

    assert batches(1) == batches(2) == batches(3)


def test_full_batches_where_shapes_allow():
    calls = []
    list(run([7] * 10, prepared, forward_that_records(calls, 4), finished, batch_size=4))
    assert [len(call) for call in calls] == [4, 4, 2]
    calls.clear()
    list(run([1, 2] * 8, prepared, forward_that_records(calls, 4), finished, batch_size=4))
    assert [len(call) for call in calls] == [4, 4, 4, 4]  # two shapes in turn still fill their batches


@pytest.mark.parametrize("batch_size", [1, 4])
def test_only_a_window_of_items_is_alive(batch_size):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield number % 3 + 1

    stream = run(endless(), prepared, forward_that_records([], batch_size), finished, batch_size=batch_size, workers=2)
    for given, _ in enumerate(itertools.islice(stream, 200)):
        assert len(taken) - given <= (AHEAD + 2) * batch_size + 2
    stream.close()


@pytest.mark.parametrize(("workers", "limit"), [(2, 2e9), (6, 4e9)])
@pytest.mark.parametrize("size", [1e8, 4e8, 1.7e9, 9e9])
def test_memory_is_bounded_by_bytes_and_a_photo_larger_than_all_goes_alone(size, workers, limit):
    alive, working, most = [], [], 0

    def prepare(item):
        nonlocal most
        working.append(item)
        most = max(most, size / 2 * (len(alive) + len(working)))
        time.sleep(0.001)
        working.remove(item)
        return prepared(item)

    def taken():
        for item in range(1, 25):
            alive.append(item)
            yield item

    calls = forward_that_records([], 1)
    for outcome in run(taken(), prepare, calls, finished, workers=workers, size=lambda item: size):
        assert outcome.error is None
        alive.remove(outcome.item)
    # One item is taken from the iterator, and not read, before it is known whether there is room for it.
    assert most <= max(limit, size) + size / 2
    assert most >= min(size, limit / 2)


def test_an_error_is_of_its_own_item():
    def fails_on_two(size):
        if size == 2:
            raise ValueError("two")
        return prepared(size)

    def fails_on_three(item, rest, row):
        if item == 3:
            raise OSError("three")
        return item

    outcomes = list(run([1, 2, 3, 4, 2], fails_on_two, np.stack, fails_on_three))
    assert [repr(outcome.error) for outcome in outcomes] == [
        "None", "ValueError('two')", "OSError('three')", "None", "ValueError('two')",
    ]  # fmt: skip
    assert [outcome.value for outcome in outcomes] == [1, None, None, 4, None]


@pytest.mark.parametrize("where", ["at once", "when read"])
def test_an_error_of_the_device_is_of_its_batch(where):
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("RESOURCE_EXHAUSTED")

    def forward(arrays):
        if arrays[0].size == 2:
            if where == "when read":
                return Broken()
            raise RuntimeError("RESOURCE_EXHAUSTED")
        return np.stack(arrays)

    outcomes = list(run([1, 2, 1, 2, 3], prepared, forward, finished, batch_size=2))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, False, True]


def test_the_device_works_while_files_are_written():
    """Finishing blocks until a later batch has reached the device: only a pipeline that runs ahead ends."""
    third = threading.Event()

    def forward(arrays):
        if arrays[0].size == 3:
            third.set()
        return np.stack(arrays)

    def finish(item, rest, row):
        assert third.wait(timeout=20)
        return item

    assert [o.value for o in run([1, 2, 3], prepared, forward, finish, workers=2)] == [1, 2, 3]


def test_stopping_early_begins_nothing_new():
    begun = []

    def prepare(size):
        begun.append(size)
        return prepared(size)

    stream = run(itertools.count(1), prepare, np.stack, finished, workers=2)
    assert next(stream).item == 1
    stream.close()
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count <= AHEAD + 2 + 2 + 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dav2")]
