"""Batches on devices ahead of use: whole, in order, timed, and the same from two hosts as from one."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from numbered_source import read_or_fail, toy

from dav2_jax import sharding
from dav2_jax.data.augment import Geometry
from dav2_jax.data.loader import Loader, rows_on_this_host
from dav2_jax.data.prefetch import prefetch_to_device
from dav2_jax.errors import Dav2Error


@pytest.fixture(scope="module")
def split():
    return sharding.batch_sharding(sharding.make_mesh(jax.devices(), fsdp=2))


def loader(**more) -> Loader:
    return Loader([toy(24)], 8, Geometry(14), seed=1, epochs=2, workers=0, **more)


def prefetching_threads() -> int:
    return sum(thread.name == "dav2-prefetch" for thread in threading.enumerate())


def test_global_arrays_are_the_loaders_batches_in_order(split):
    with loader() as plain, prefetch_to_device(loader(), split) as ready:
        for expected, batch in zip(plain, ready, strict=True):
            assert batch.keys() == expected.keys()
            for name, array in batch.items():
                assert array.sharding.is_equivalent_to(split, array.ndim)
                np.testing.assert_array_equal(array, expected[name])
        assert ready.given == 6
        assert next(ready, None) is None
    assert prefetching_threads() == 0


def test_the_state_is_of_what_was_given_not_of_what_lies_ready(split):
    with prefetch_to_device(loader(), split, depth=3) as ready:
        assert ready.state()["position"] == 0
        batches = [next(ready) for _ in range(2)]
        time.sleep(0.3)  # the thread is further by now
        state = ready.state()
        third = next(ready)
    assert state["position"] == 16
    again = loader()
    again.restore(state)
    with prefetch_to_device(again, split) as ready:
        np.testing.assert_array_equal(next(ready)["image"], third["image"])
    assert not np.array_equal(batches[1]["image"], third["image"])


def test_waiting_for_input_is_measured(split):
    go = threading.Event()

    def held_up():
        yield {"x": np.zeros((8, 1))}
        go.wait()
        for _ in range(3):
            yield {"x": np.zeros((8, 1))}

    with prefetch_to_device(held_up(), split) as ready:
        next(ready)
        assert ready.waited == 0  # the first batch is start-up
        assert ready.start_up > 0
        threading.Timer(0.5, go.set).start()
        next(ready)
        waited = ready.waited
        assert waited > 0.45
        assert ready.share_waiting > 0.5
        time.sleep(1)  # the others are ready by now
        next(ready)
        assert ready.waited < waited + 0.4
        assert ready.share_waiting < 0.6
        assert ready.given == 3


def test_reading_ahead_is_bounded(split):
    taken = []

    def watched():
        for number in range(100):
            taken.append(number)
            yield {"x": np.zeros((8, 1))}

    with prefetch_to_device(watched(), split, depth=2) as ready:
        next(ready)
        time.sleep(0.3)
        assert len(taken) == 1 + 2
    assert prefetching_threads() == 0


def test_errors_arrive_in_their_turn(split):
    source = toy(16, "bad", reader=read_or_fail)
    broken = Loader([source], 8, Geometry(14), shuffle=False, workers=0)
    with prefetch_to_device(broken, split) as ready, pytest.raises(Dav2Error, match=r"bad: /data/2.png: damaged"):
        next(ready)
    assert prefetching_threads() == 0


def test_rows_are_those_of_the_devices(split):
    assert rows_on_this_host(split, 16) == tuple(range(16))
    one = sharding.batch_sharding(sharding.make_mesh(jax.devices()[:1]))
    with loader(sharding=one) as plain:
        assert len(next(plain)["index"]) == 8
    with pytest.raises(Dav2Error, match="a batch of 12 cannot be split over 8 devices"):
        rows_on_this_host(split, 12)


PROGRAM = """
import sys
import jax, numpy as np
from numbered_source import toy
from dav2_jax import sharding
from dav2_jax.data import strong
from dav2_jax.data.augment import Geometry
from dav2_jax.data.loader import Loader
from dav2_jax.data.prefetch import prefetch_to_device

def batches(devices):
    mesh = sharding.make_mesh(devices, fsdp=2)
    split, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    prepare = jax.jit(lambda x: x | strong.cutmix(x["image"], x["seed"])._asdict(), out_shardings=whole)
    loader = Loader([toy(24)], 8, Geometry(14), seed=1, epochs=1, workers=0, sharding=split)
    with prefetch_to_device(loader, split) as ready:
        return [jax.tree.map(np.asarray, prepare(batch)) for batch in ready]

out, *place = sys.argv[1:]
if place:
    sharding.initialize(place[0], 2, int(place[1]))
devices = jax.devices()
assert len(devices) == 8
plain, reverse = batches(devices), batches(devices[::-1])  # in reverse the second host has the first rows
jax.tree.map(np.testing.assert_array_equal, plain, reverse)
if sharding.is_first():
    np.savez(out, **{f"{number}-{name}": x for number, batch in enumerate(plain) for name, x in batch.items()})
"""


def test_two_hosts_of_four_devices_see_what_one_of_eight_sees(tmp_path):
    """Also after CutMix, which takes rows from another host."""

    def start(out: str, devices: int, *place: str) -> subprocess.Popen:
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        return subprocess.Popen([sys.executable, "-c", PROGRAM, out, *place], env=environment, cwd=tmp_path)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    jobs = [start("two.npz", 4, address, str(number)) for number in range(2)] + [start("one.npz", 8)]
    assert [job.wait(timeout=240) for job in jobs] == [0, 0, 0]
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert {*one.files} == {*two.files}
        assert "2-images" in one.files
        for name in one.files:
            np.testing.assert_array_equal(two[name], one[name])
