"""Prepared folders: read from anywhere as they were given, by us and by TFDS; damage is named."""

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import toy_source

from dav2_jax.data import prepare, records
from dav2_jax.errors import Dav2Error

SHARD = "toy_set-train.array_record-00002-of-00005"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "whole"
    prepare.prepare(toy_source.source(), folder, shard_examples=5)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "copy")


def test_it_gives_back_the_source(whole):
    source, back = toy_source.source(), records.source(whole)
    assert (back.name, back.unit, len(back), back.about) == ("Toy, set", "any scale", 23, ())
    assert all(toy_source.same(one, other) for one, other in zip(source, back, strict=True))
    assert toy_source.same(back[-1], source[22])
    with pytest.raises(IndexError):
        back[23]


def _right(source, index: int) -> bool:
    return toy_source.same(source[index], toy_source.example(index))


def _in_child(source, results) -> None:
    results.put([_right(source, index) for index in range(len(source))])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
def test_it_is_read_from_threads_from_forks_and_after_a_pickle(whole):
    source = pickle.loads(pickle.dumps(records.source(whole)))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda index: _right(source, index % 23), range(230)))
    context = multiprocessing.get_context("fork")  # with the readers of this process open
    results = context.SimpleQueue()
    children = [context.Process(target=_in_child, args=(source, results)) for _ in range(2)]
    for child in children:
        child.start()
    assert [results.get() for _ in children] == [[True] * 23] * 2
    for child in children:
        child.join()
    assert all(_right(source, index) for index in range(23))


def test_more_shards_than_stay_open(tmp_path):
    prepare.prepare(toy_source.source(70), tmp_path, shard_examples=1)
    source = records.source(tmp_path)
    assert all(_right(source, index) for _ in range(2) for index in range(70))
    assert records._reader.cache_info().currsize <= 64


def test_tfds_reads_it_without_tensorflow(whole):
    code = (
        "import sys, numpy as np, toy_source, tensorflow_datasets as tfds;"
        f"data = tfds.builder_from_directory({str(whole)!r}).as_data_source(split='train');"
        "assert len(data) == 23;"
        "a, b = data[11], toy_source.example(11);"
        "assert a['id'].decode() == b['id'];"
        "assert a.keys() == b.keys() == set(['id', 'image', 'depth', 'valid', 'intrinsics', 'tag', 'sensor_depth']);"
        "same = lambda x, y: np.array_equal(x, y) and x.dtype == y.dtype;"
        "assert all(same(a[k], b[k]) for k in ('image', 'valid', 'tag'));"
        "assert all(a[k][..., 0].tobytes() == b[k].tobytes() for k in ('depth', 'sensor_depth'));"
        "assert a['intrinsics'].tobytes() == b['intrinsics'].tobytes();"
        "none = data[12];"
        "assert none['tag'].shape == (1, 1) and np.isnan(none['sensor_depth']).all();"
        "print({'tensorflow', 'jax'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=toy_source.environment())
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr


def test_a_changed_bit_is_found_by_the_check_and_by_the_read(folder):
    assert records.check(folder) == ()
    path = folder / SHARD
    data = bytearray(path.read_bytes())
    place = data.index(toy_source.example(12)["id"].encode())
    data[place + 40] ^= 4
    path.write_bytes(data)
    (line,) = records.check(folder)
    assert line.startswith(f"{path}: damaged: its SHA-256 is not the one in the manifest: delete it and prepare again")
    source = records.source(folder)
    assert _right(source, 11)
    assert _right(source, 13)
    with pytest.raises(Dav2Error) as error:
        source[12]
    assert str(error.value).startswith(f"Toy, set: {path}: record 2 is damaged (Corrupted")
    path.unlink()
    prepare.prepare(toy_source.source(), folder, shard_examples=5)
    assert records.check(folder) == ()


def test_a_shard_that_is_cut_off_or_missing_or_another_is_named(folder):
    path = folder / SHARD
    data = path.read_bytes()
    path.write_bytes(data[:-70_000])
    assert "bytes, not" in records.check(folder)[0]
    with pytest.raises(Dav2Error, match=f"{SHARD}: is no ArrayRecord file, or is cut off"):
        records.source(folder)[10]
    shutil.copy(folder / "toy_set-train.array_record-00004-of-00005", path)
    with pytest.raises(Dav2Error, match=f"{SHARD}: 3 records, not 5"):
        records.source(folder)[10]
    open_source = records.source(folder)
    path.unlink()
    assert records.check(folder)[0].startswith(f"{path}: is missing")
    with pytest.raises(Dav2Error, match=f"{SHARD}: is missing"):
        records.source(folder)
    records._reader.cache_clear()
    with pytest.raises(Dav2Error, match=f"{SHARD}: No such file"):
        open_source[10]


def test_folders_that_are_not_ready_say_what_to_do(folder, tmp_path):
    with pytest.raises(Dav2Error, match=r"has no manifest.json, so it is no folder of records"):
        records.source(tmp_path / "nothing")
    with pytest.raises(Dav2Error, match="has no split 'val': it has train"):
        records.source(folder, split="val")
    with pytest.raises(Dav2Error, match="has no split 'val': it has train"):
        records.check(folder, split="val")
    (folder / records.MANIFEST).rename(folder / "prepare-train.json")
    with pytest.raises(Dav2Error, match="is not prepared to the end: run the same prepare again"):
        records.source(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"name": "../../etc/passwd"},
        {"name": 3},
        {"splits": []},
        {"splits": {"../x": {}}},
        {"splits": {"train": {}}},
        {"splits": {"train": {"source": "a", "unit": "metres", "count": 1, "shards": []}}},
        {"splits": {"train": {"source": "a", "unit": "metres", "count": 1, "shards": [None]}}},
    ],
    ids=str,
)
def test_a_hostile_manifest_is_one_line(folder, change):
    path = folder / records.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Dav2Error, match=str(path)) as error:
        records.source(folder)
    assert "\n" not in str(error.value)
    path.write_text("{")
    with pytest.raises(Dav2Error, match="damaged"):
        records.source(folder)
