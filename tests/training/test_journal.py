"""What a run notes: lines of JSON that any stop leaves readable."""

import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from dav2_jax.training.journal import Journal, Throughput


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_what_was_noted_after_the_last_checkpoint_is_taken_back(tmp_path):
    journal = Journal(tmp_path, 0, 12)
    for step in (4, 8):
        journal.note(step, {"loss": 1 / step}, "train")
    journal.close()
    with (tmp_path / "metrics.jsonl").open("ab") as file:  # what a crash of the machine leaves
        file.write(b'\0\0\0\0\n"text"\n\xff{"step": 12, "loss"')
    journal = Journal(tmp_path, 4, 12)
    journal.note(8, {"loss": 0.5, "abs_rel": float("nan")}, "validation")
    journal.close()
    first, second = lines(tmp_path)
    assert (first["step"], first["group"], first["loss"]) == (4, "train", 0.25)
    assert (second["step"], second["group"], second["loss"], second["abs_rel"]) == (8, "validation", 0.5, None)


def test_pictures_are_rows_of_image_target_and_prediction(tmp_path):
    rng = np.random.default_rng(0)
    images, disparity = rng.uniform(size=(2, 14, 28, 3)), rng.uniform(0.1, 1, (2, 14, 28))
    journal = Journal(tmp_path, 0, 12)
    journal.picture(8, images, disparity, np.ones_like(disparity, bool), 3 * disparity + 1)
    journal.close()
    sheet = np.asarray(Image.open(tmp_path / "pictures" / "00000008.png"))
    assert sheet.shape == (28, 84, 3)
    np.testing.assert_array_equal(sheet[14:, :28], (images[1] * 255).astype(np.uint8))
    target, prediction = sheet[:, 28:56].astype(int), sheet[:, 56:].astype(int)
    assert np.abs(target - prediction).max() <= 2  # each is drawn in its own range
    assert np.ptp(target) > 100


def test_only_the_first_process_writes(tmp_path):
    journal = Journal(tmp_path, 0, 12, speaks=False)
    journal.note(4, {"loss": 1.0}, "train")
    journal.say("nothing")
    journal.picture(4, *[np.zeros((1, 14, 14))] * 4)
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_each_report_is_a_line(tmp_path, capsys):
    journal = Journal(tmp_path, 4, 7)
    journal.step()
    assert capsys.readouterr().out == ""
    journal.step(loss="0.5000", images="2.0/s")
    journal.say("step 6: d1 0.9000")
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"step 6 of 7, \d\d:\d\d left: loss 0.5000, images 2.0/s", first)
    assert second == "step 6: d1 0.9000"
    journal.close()


def test_throughput_is_since_the_last_report_and_without_pauses(monkeypatch):
    now = iter([0.0, 2.0, 10.0, 12.0, 12.0, 16.0, 16.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    throughput = Throughput(8, 4e12)
    for _ in range(3):
        throughput.add(int(4e12))
    with throughput.paused():
        pass
    assert throughput.report(1.0) == {"images_per_second": 6.0, "tflops": 3.0, "mfu": 0.75, "waiting": 0.25}
    throughput.add(int(4e12))
    assert throughput.report(2.0) == {"images_per_second": 2.0, "tflops": 1.0, "mfu": 0.25, "waiting": 0.25}


@pytest.mark.parametrize("start", [0, 4])
def test_a_new_run_has_an_empty_file(start, tmp_path):
    Journal(tmp_path, start, 12).close()
    assert lines(tmp_path) == []
