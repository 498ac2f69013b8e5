"""The loader's promises: one order whatever reads it, exact resuming, broken examples by name."""

import json

import numpy as np
import pytest
from numbered_source import read_or_fail, toy

from dav2_jax.data.augment import Geometry
from dav2_jax.data.loader import Loader
from dav2_jax.errors import Dav2Error

CROPS = Geometry(14)
ALONE = {"process_index": 0, "process_count": 1}


def sources():
    return [toy(13), toy(9, "other", 100)]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def batches() -> list[dict]:
    """All of two epochs of 22 examples in batches of 4, read in this process."""
    with Loader(sources(), 4, CROPS, seed=5, epochs=2, workers=0, **ALONE) as loader:
        return list(loader)


def test_a_batch_has_its_arrays_and_an_epoch_every_example(batches):
    assert len(batches) == 11
    assert {name: (array.dtype.name, array.shape) for name, array in batches[0].items()} == {
        "image": ("float32", (4, 14, 14, 3)),
        "disparity": ("float32", (4, 14, 14)),
        "valid": ("bool", (4, 14, 14)),
        "index": ("int32", (4,)),
        "seed": ("uint32", (4,)),
    }
    index = np.concatenate([batch["index"] for batch in batches])
    assert sorted(index[:22]) == sorted(index[22:]) == list(range(22))
    assert len({*np.concatenate([batch["seed"] for batch in batches]).tolist()}) == 44  # anew in each epoch
    items = [*range(13), *range(100, 109)]
    for batch in batches:
        for row, number in enumerate(batch["index"]):
            np.testing.assert_allclose(batch["disparity"][row], 1 / (1 + items[number]), rtol=1e-6)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing_and_resuming_in_mid_epoch_neither(batches, workers):
    settings = {"seed": 5, "epochs": 2, "workers": workers, **ALONE}
    with Loader(sources(), 4, CROPS, **settings) as loader:
        for expected in batches[:3]:
            assert same(next(loader), expected)
        state = json.loads(json.dumps(loader.state()))  # while workers have read further
        assert same(next(loader), batches[3])
    with Loader(sources(), 4, CROPS, **settings) as loader:
        loader.restore(state)
        rest = list(loader)
        assert loader.state()["position"] == 44
        loader.restore(state)  # also one that has already run
        assert same(next(loader), batches[3])
    assert len(rest) == 8
    assert all(same(one, expected) for one, expected in zip(rest, batches[3:], strict=True))


def test_hosts_together_see_what_one_host_sees(batches):
    hosts = [
        Loader(sources(), 4, CROPS, seed=5, epochs=2, workers=0, process_index=index, process_count=2)
        for index in range(2)
    ]
    for expected in batches:
        parts = [next(host) for host in hosts]
        assert same({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, expected)
    for host in hosts:
        assert next(host, None) is None
        host.close()


def test_a_state_is_for_any_number_of_hosts_and_any_batch_size(batches):
    with Loader(sources(), 4, CROPS, seed=5, epochs=2, workers=0, process_index=1, process_count=2) as host:
        next(host)
        next(host)
        state = host.state()
    with Loader(sources(), 8, CROPS, seed=5, epochs=2, workers=0, **ALONE) as loader:
        loader.restore(state)
        batch = next(loader)
    assert np.array_equal(batch["image"][:4], batches[2]["image"])
    assert np.array_equal(batch["image"][4:], batches[3]["image"])
    state = state | {"position": 4}
    with Loader(sources(), 8, CROPS, seed=5, epochs=1, workers=0, **ALONE) as loader:
        loader.restore(state)
        assert len(list(loader)) == (22 - 4) // 8


def test_a_state_of_other_data_is_refused():
    state = Loader(sources(), 4, CROPS, seed=5, **ALONE).state()
    for changed, words in [
        (Loader(sources(), 4, CROPS, seed=6, **ALONE), "seed was 5, is 6"),
        (Loader([toy(13), toy(8, "other", 100)], 4, CROPS, seed=5, **ALONE), r"sources was .*9.*, is .*8"),
        (Loader(sources(), 4, CROPS, seed=5, weights=(1, 2), **ALONE), r"weights was None, is \[1.0, 2.0\]"),
        (Loader(sources(), 4, CROPS, seed=5, shuffle=False, **ALONE), "shuffle was True, is False"),
    ]:
        with pytest.raises(Dav2Error, match=words):
            changed.restore(state)


def test_weights_mix():
    with Loader(sources(), 64, CROPS, weights=(1, 3), workers=0, **ALONE) as loader:
        index = np.concatenate([next(loader)["index"] for _ in range(16)])
    assert (index < 13).sum() == 256


def test_the_last_rows_are_left_out_or_padded(batches):
    assert len(Loader(sources(), 5, CROPS, epochs=1, **ALONE)) == 4
    whole = Loader(sources(), 5, CROPS, seed=5, epochs=1, drop_remainder=False, workers=0, **ALONE)
    assert len(whole) == 5
    last = list(whole)[-1]
    expected = np.concatenate([batch["index"] for batch in batches])[20:22]
    assert last["index"].tolist() == [*expected, -1, -1, -1]
    assert last["valid"].any((1, 2)).tolist() == [True, True, False, False, False]
    with pytest.raises(Dav2Error, match="22 examples do not fill a batch of 23"):
        Loader(sources(), 23, CROPS, epochs=1, **ALONE)
    with pytest.raises(TypeError, match="endless"):
        len(Loader(sources(), 5, CROPS, **ALONE))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_example_stops_the_run_by_name(workers):
    with Loader(
        [toy(3), toy(9, "bad", reader=read_or_fail)], 4, CROPS, shuffle=False, workers=workers, **ALONE
    ) as loader:
        next(loader)
        with pytest.raises(Dav2Error, match=r'^bad: /data/2.png: damaged \(on_error="skip" leaves such') as caught:
            next(loader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_example_is_replaced_by_the_next_of_its_source(workers):
    settings = {"shuffle": False, "epochs": 1, "on_error": "skip", "workers": workers, **ALONE}
    with Loader([toy(3), toy(9, "bad", reader=read_or_fail)], 4, CROPS, **settings) as loader:
        index = np.concatenate([batch["index"] for batch in loader])
        assert loader.skipped == ["bad: /data/2.png: damaged", "bad: /data/7.png: damaged"]
        assert loader.name(6) == "bad 3: item-3"
    assert index.tolist() == [0, 1, 2, 3, 4, 6, 6, 7, 8, 9, 11, 11]


def test_nothing_but_broken_examples_is_an_error():
    source = toy(9, reader=read_or_fail)
    source = type(source)("bad", [2, 7, 12], read_or_fail)
    with (
        Loader([source], 1, CROPS, on_error="skip", workers=0, **ALONE) as loader,
        pytest.raises(Dav2Error, match="damaged: and so are 2 more in a row"),
    ):
        next(loader)


def test_settings_that_do_not_fit_are_refused():
    on_device = type(toy(3))("scenes", range(3), read_or_fail, on_device=True)
    assert Loader([on_device], 1, CROPS, **ALONE).workers == 0
    with pytest.raises(Dav2Error, match="scenes: made on a device"):
        Loader([on_device], 1, CROPS, workers=2, **ALONE)
    with pytest.raises(Dav2Error, match="a batch of 5 cannot be shared by 2 hosts"):
        Loader(sources(), 5, CROPS, process_index=0, process_count=2)
    with (
        Loader(sources(), 2, Geometry(14, target=None, extra=("tag",)), workers=0, **ALONE) as loader,
        pytest.raises(Dav2Error, match=r"^(toy|other): item-\d+: has no tag"),
    ):
        next(loader)


def wild(example, seed):
    return {"image": np.zeros((seed % 7 + 1, 3))}


def test_rows_of_different_sizes_are_named():
    with (
        Loader(sources(), 8, wild, workers=0, **ALONE) as loader,
        pytest.raises(Dav2Error, match="rows of a batch differ in their image"),
    ):
        next(loader)
