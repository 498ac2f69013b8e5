"""What a run tells: a progress bar, a line of JSON for each report, TensorBoard, and pictures of what it predicts."""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dav2_jax.data.preview import disparity_picture
from dav2_jax.files import atomic, save_png


class Journal:
    """Of one run, in its folder; in a process that is not the first it does nothing.

    run    the folder: metrics.jsonl, tensorboard/, pictures/
    start  step at which this part of the run begins: what was noted of later ones, before a stop, is taken back
    total  steps of the run
    """

    def __init__(self, run: Path, start: int, total: int, *, speaks: bool = True):
        self._speaks, self._run, self._writer, self._file = speaks, run, None, None
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
        """One more step is done; `shown` stands beside the bar."""
        if shown:
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def note(self, step: int, values: dict[str, float], group: str) -> None:
        """A line {"step": .., "time": .., "group": .., name: value}; numbers that JSON has not become null."""
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
        """A line that does not disturb the bar."""
        if self._speaks:
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
