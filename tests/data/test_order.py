"""The order of examples is a function of the position: complete, mixed as asked for, the same everywhere."""

from collections import Counter

import numpy as np
import pytest

from dav2_jax.data.order import Order, Place
from dav2_jax.errors import Dav2Error


def test_concatenation_sees_every_example_once_an_epoch_and_mixes_the_sources():
    order = Order((7, 1, 12), seed=3)
    epochs = [[order(20 * epoch + i) for i in range(20)] for epoch in range(3)]
    everything = {(source, index) for source, length in enumerate((7, 1, 12)) for index in range(length)}
    for epoch, places in enumerate(epochs):
        assert {place.epoch for place in places} == {epoch}
        assert {place[1:] for place in places} == everything
    assert len({tuple(place[1:] for place in places) for places in epochs}) == 3  # each in its own order
    assert [place.source for place in epochs[0]] != sorted(place.source for place in epochs[0])
    assert [Order((7, 1, 12), seed=4)(i) for i in range(20)] != epochs[0]


def test_many_examples_are_a_permutation_too():
    order = Order((70_000, 5), seed=2)
    assert len({order(i) for i in range(70_005)}) == 70_005
    assert {order(i).epoch for i in range(70_005)} == {0}


def test_without_shuffling_it_is_the_list_itself():
    order = Order((2, 3), shuffle=False)
    assert [order(i)[1:] for i in range(6)] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (0, 0)]
    assert order(5).epoch == 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_weights_are_kept_in_every_block_and_each_source_has_epochs(shuffle):
    lengths, weights = (50, 1000, 9), (3, 1, 0.01)
    order = Order(lengths, 1, shuffle, weights)
    places = [order(i) for i in range(4096)]
    for block in range(4):
        shares = Counter(place.source for place in places[1024 * block : 1024 * (block + 1)])
        assert all(abs(shares[s] - 1024 * weights[s] / 4.01) <= 1 for s in range(3))
    for source, length in enumerate(lengths):
        drawn = [place for place in places if place.source == source]
        for epoch in range(len(drawn) // length):
            whole = drawn[epoch * length : (epoch + 1) * length]
            assert {place.epoch for place in whole} == {epoch}
            assert {place.index for place in whole} == set(range(length))
            if not shuffle:
                assert whole == [Place(epoch, source, index) for index in range(length)]
        if shuffle:
            assert [place.index for place in drawn[:length]] != sorted(place.index for place in drawn[:length])
    rarest = [i for i, place in enumerate(places) if place.source == 2]
    assert (np.diff(rarest) > 256).all() != shuffle  # spread evenly, or anywhere in its block


def test_positions_far_away_need_nothing_before_them():
    order = Order((31_000_000, 31_300_000), seed=1)
    assert order(10**12) == order(10**12)
    assert order(10**12).epoch == 10**12 // 62_300_000
    assert Order((10, 10), weights=(1, 2))(10**12) == Order((10, 10), weights=(1, 2))(10**12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lengths": ()}, "at least one source"),
        ({"lengths": (3, 0)}, "none empty"),
        ({"lengths": (2**31,)}, "can be numbered"),
        ({"lengths": (3,), "seed": -1}, "0 or more"),
        ({"lengths": (3, 4), "weights": (1.0,)}, "1 weights for 2 sources"),
        ({"lengths": (3, 4), "weights": (1.0, 0.0)}, "leave out a source"),
        ({"lengths": (3, 4), "weights": (1.0, 1e-9)}, "one in a million"),
    ],
)
def test_what_is_no_order_is_refused(settings, words):
    with pytest.raises(Dav2Error, match=words):
        Order(**settings)
