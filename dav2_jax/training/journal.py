"""The reports of a run: a progress bar or lines, metrics.jsonl, TensorBoard, and pictures of predictions."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dav2_jax.data.preview import disparity_picture
from dav2_jax.files import atomic, save_png


class Journal:
    """Writes to the folder of one run and to the screen; in a process that is not the first it does nothing.

    run    the folder: metrics.jsonl, tensorboard/, pictures/
    start  steps done before: entries of later steps, which a stopped run left, are removed
    total  steps of the run

    On a terminal (stderr) there is a progress bar; elsewhere, as under nohup or Slurm, each report is a line.
    """

    def __init__(self, run: Path, start: int, total: int, *, speaks: bool = True):
        self._speaks, self._run, self._writer, self._file = speaks, run, None, None
        self._step, self._total = start, total
        self._clock: tuple[int, float] | None = None  # step and time after the first one, which compiles
        self._bar = tqdm(
            total=total, initial=start, unit="step", disable=None if speaks else True, dynamic_ncols=True, smoothing=0.1
        )
        if not speaks:
            return
        path = run / "metrics.jsonl"
        kept = [line for line in _lines(path) if _step(line) <= start]
        with atomic(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        with contextlib.suppress(ImportError):  # an optional package
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)

    def step(self, **shown: str) -> None:
        """Counts one step; `shown` is its report, where there is one."""
        self._step += 1
        self._clock = self._clock or (self._step, time.perf_counter())
        if self._bar.disable:
            if shown and self._speaks:
                self.say(f"{self._progress()}: {', '.join(f'{name} {text}' for name, text in shown.items())}")
            return
        if shown:
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def _progress(self) -> str:
        text, (first, since) = f"step {self._step:,} of {self._total:,}", self._clock
        if self._step == first:
            return text
        seconds = (time.perf_counter() - since) / (self._step - first) * (self._total - self._step)
        return f"{text}, {tqdm.format_interval(seconds)} left"

    def note(self, step: int, values: dict[str, float], group: str) -> None:
        """Appends {"step": .., "time": .., "group": .., name: value} to metrics.jsonl; NaN and infinity become null."""
        if not self._speaks:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = {"step": step, "time": round(time.time(), 1), "group": group} | finite
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, step: int, images: np.ndarray, targets: np.ndarray, valid: np.ndarray, maps: np.ndarray) -> None:
        """Rows of image | target | prediction, float images of 0..1 and disparity [N, H, W], to pictures/STEP.png."""
        if not self._speaks:
            return
        rows = []
        for image, target, known, values in zip(images, targets, valid, maps, strict=True):
            photo = (np.clip(image, 0, 1) * 255).astype(np.uint8)
            everywhere = np.ones_like(known)
            parts = (photo, disparity_picture(target, known), disparity_picture(values, everywhere))
            rows.append(np.concatenate(parts, axis=1))
        sheet = np.concatenate(rows)
        (self._run / "pictures").mkdir(exist_ok=True)
        with atomic(self._run / "pictures" / f"{step:08}.png") as temporary:
            save_png(sheet, temporary)
        if self._writer is not None:
            self._writer.add_image("prediction", sheet, step, dataformats="HWC")

    def say(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        if not self._speaks:
            return
        if self._bar.disable:
            print(text, flush=True)  # a file or pipe is buffered otherwise, and a killed job would leave nothing
        else:
            self._bar.write(text)

    def close(self) -> None:
        self._bar.close()
        for one in (self._file, self._writer):
            if one is not None:
                one.close()


def _lines(path: Path) -> list[str]:
    """Whole lines: the last may have been cut off by a crash."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _step(line: str) -> float:
    """Of a line of `note`; infinite for one that a crash of the machine left as zeros, which is so taken back too."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


class Throughput:
    """Speed since the last report, without pauses such as validations.

    batch_size   images a step
    ceiling      peak FLOP/s of all devices together; None: unknown
    """

    def __init__(self, batch_size: int, ceiling: float | None):
        self._batch_size, self._ceiling = batch_size, ceiling
        self._waited = 0.0
        self._restart(0.0)

    def add(self, flops: int) -> None:
        """One more step."""
        self._steps += 1
        self._flops += flops

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def report(self, waited: float) -> dict[str, float]:
        """images_per_second, tflops, mfu (share of the ceiling) and waiting, the share of time spent on `waited`.

        waited   seconds for data since the beginning of the run
        """
        seconds = time.perf_counter() - self._since
        values = {
            "images_per_second": self._steps * self._batch_size / seconds,
            "tflops": self._flops / seconds / 1e12,
        }
        if self._ceiling is not None:
            values["mfu"] = self._flops / seconds / self._ceiling
        values["waiting"] = (waited - self._waited) / seconds
        self._restart(waited)
        return values

    def _restart(self, waited: float) -> None:
        self._since, self._waited, self._steps, self._flops = time.perf_counter(), waited, 0, 0
