"""Preparing: stopped in any way it goes on to the same files; what cannot be read, or written, is said."""

import fcntl
import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import toy_source

from dav2_jax.data import prepare, records
from dav2_jax.errors import Dav2Error


def _contents(folder: Path) -> dict[str, object]:
    """{name: bytes} of a folder, without the moment it was finished."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    manifest = json.loads(files.pop(records.MANIFEST))
    for about in manifest["splits"].values():
        del about["finished"]
    return {**files, records.MANIFEST: manifest}


def _prepare_apart(count: int, pause: float, folder: Path, largest_file: int = 2**40) -> subprocess.Popen:
    command = [sys.executable, toy_source.__file__, str(count), str(pause), str(folder), str(largest_file)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=toy_source.environment()
    )
    process.stdout.readline()  # it has imported all and begins
    return process


def test_a_run_killed_again_and_again_ends_with_the_files_of_one_that_was_not(tmp_path):
    prepare.prepare(toy_source.source(80, (7,)), tmp_path / "whole", shard_examples=5)
    folder, chance, kills = tmp_path / "killed", random.Random(0), 0
    while not records.is_prepared(folder):
        process = _prepare_apart(80, 0.01, folder)
        time.sleep(chance.uniform(0, 0.25))
        if kills < 8:
            process.kill()
            kills += 1
            process.wait()
            assert not records.is_prepared(folder) or process.returncode == 0
        process.communicate()
    assert kills >= 5
    assert _contents(folder) == _contents(tmp_path / "whole")


def test_only_what_is_missing_is_written_and_nothing_when_all_is_there(tmp_path):
    source = toy_source.source()
    first = prepare.prepare(source, tmp_path, shard_examples=5)
    assert (first.examples, first.shards, first.written, first.errors) == (23, 5, 5, ())
    before = _contents(tmp_path)
    assert prepare.prepare(source, tmp_path, shard_examples=5).written == 0
    lost = tmp_path / "toy_set-train.array_record-00003-of-00005"
    lost.unlink()
    assert prepare.prepare(source, tmp_path, shard_examples=5).written == 1
    assert _contents(tmp_path) == before


def test_what_cannot_be_read_is_left_out_named_and_the_rest_goes_on(tmp_path):
    source = toy_source.source(23, broken=(3, 5, 6, 7, 8, 9))
    report = prepare.prepare(source, tmp_path, shard_examples=5)
    assert [index for index, _ in report.errors] == [3, 5, 6, 7, 8, 9]
    assert report.errors[0][1] == "Toy, set: toy/3.png: damaged"
    assert str(report).endswith("; 6 could not be read and are left out")
    shards = json.loads((tmp_path / records.MANIFEST).read_text())["splits"]["train"]["shards"]
    assert [shard["examples"] for shard in shards] == [4, 0, 5, 5, 3]
    assert [len(shard["errors"]) for shard in shards] == [1, 5, 0, 0, 0]
    read = records.source(tmp_path)
    assert [one["id"] for one in read] == [f"toy/é{index}" for index in range(23) if index not in (3, 5, 6, 7, 8, 9)]
    assert read.about == ("6 of 23 could not be read when it was prepared",)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(Dav2Error, match="has no examples"):
        prepare.prepare(toy_source.source(0), tmp_path)
    with pytest.raises(Dav2Error, match=r"none of the 3 .* could be read: Toy, set: toy/0.png"):
        prepare.prepare(toy_source.source(3, (0, 1, 2)), tmp_path)
    assert not records.is_prepared(tmp_path)


def test_shards_are_of_the_size_asked_for(tmp_path):
    report = prepare.prepare(toy_source.source(60), tmp_path, shard_bytes=70_000)
    sizes = [path.stat().st_size for path in tmp_path.glob("*array_record*")]
    payload = sum(sizes) - report.shards * 2**16  # ArrayRecord begins and ends on blocks of 64 kB
    assert report.shards > 2
    assert 0.5 < payload / report.shards / 70_000 < 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"jpeg": 90}, "image 'png', not 'jpeg 90'"),
        ({"options": "half"}, "options '', not 'half'"),
        ({"shard_examples": 4}, "shard_examples 5, not 4"),
        ({"source": toy_source.source(22)}, "count 23, not 22"),
    ],
)
def test_other_settings_are_refused_before_anything_is_written(tmp_path, changed, message):
    settings = {"source": toy_source.source(), "shard_examples": 5}
    prepare.prepare(**settings, folder=tmp_path)
    before = _contents(tmp_path)
    with pytest.raises(Dav2Error) as error:
        prepare.prepare(**settings | changed, folder=tmp_path)
    assert message in str(error.value)
    assert _contents(tmp_path) == before


def test_a_source_that_changed_under_the_same_name_is_noticed(tmp_path):
    source = toy_source.source()
    prepare.prepare(source, tmp_path, shard_examples=5)
    turned = type(source)(source.name, source.items[::-1], source.read, source.unit)
    with pytest.raises(Dav2Error, match=r"example 0 was 'toy/é0' and is now 'toy/é22'"):
        prepare.prepare(turned, tmp_path, shard_examples=5)


def test_splits_share_a_folder_and_other_datasets_are_kept_out(tmp_path):
    prepare.prepare(toy_source.source(4), tmp_path)
    prepare.prepare(toy_source.source(9), tmp_path, split="test")
    assert (len(records.source(tmp_path)), len(records.source(tmp_path, split="test"))) == (4, 9)
    other = toy_source.source(4)
    with pytest.raises(Dav2Error, match="holds toy_set: prepare other in a folder of its own"):
        prepare.prepare(type(other)("other", other.items, other.read), tmp_path)
    with pytest.raises(Dav2Error, match="no name of a split"):
        prepare.prepare(other, tmp_path, split="../x")
    (tmp_path / records.MANIFEST).unlink()
    with pytest.raises(Dav2Error, match="holds another dataset of TFDS"):
        prepare.prepare(other, tmp_path)


def test_two_at_once_are_refused_and_threads_leave_nothing_behind(tmp_path):
    process = _prepare_apart(40, 0.05, tmp_path)
    while not list(tmp_path.glob("prepare-*.json")):
        time.sleep(0.01)
    with pytest.raises(Dav2Error, match="another process is preparing it"):
        prepare.prepare(toy_source.source(40, (7,)), tmp_path, shard_examples=5)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[1]
    assert not list(tmp_path.glob(".dav2-*"))
    threads = threading.active_count()
    prepare.prepare(toy_source.source(40, (7,)), tmp_path, shard_examples=5)
    assert threading.active_count() == threads


def test_a_full_disk_is_one_line_and_the_run_can_go_on(tmp_path):
    process = _prepare_apart(23, 0, tmp_path, largest_file=66_000)
    error = process.communicate()[1]
    assert process.returncode == 1
    assert error.startswith(
        f"Dav2Error: {tmp_path}/toy_set-train.array_record-00000-of-00005: cannot be written (File too"
    )
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*array_record*"))
    report = prepare.prepare(toy_source.source(23, (7,)), tmp_path, shard_examples=5)
    assert report.written == 5
    assert records.check(tmp_path) == ()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Dav2Error, match="file/in: cannot be written"):
        prepare.prepare(toy_source.source(), tmp_path / "file/in")
    with pytest.raises(Dav2Error, match="file: is a file: name a folder"):
        prepare.prepare(toy_source.source(), tmp_path / "file")
    (tmp_path / "prepare-train.json").write_text("{")
    with pytest.raises(Dav2Error, match=r"prepare-train.json: damaged .* delete it to begin anew"):
        prepare.prepare(toy_source.source(), tmp_path)


def test_the_lock_ends_with_its_process(tmp_path):
    process = _prepare_apart(400, 0.05, tmp_path)
    while not (tmp_path / ".prepare.lock").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    with (tmp_path / ".prepare.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_images_may_be_kept_as_jpeg(tmp_path):
    source = toy_source.source(3)
    prepare.prepare(source, tmp_path, jpeg=80)
    one, other = source[1], records.source(tmp_path)[1]
    assert not np.array_equal(one["image"], other["image"])
    assert one["depth"].tobytes() == other["depth"].tobytes()
