"""A profile of a few training steps, for TensorBoard or xprof."""

from __future__ import annotations

from pathlib import Path

import jax

SKIPPED = 3  # steps before: the first compiles
TRACED = 5


class Profile:
    """Traces steps SKIPPED + 1 to SKIPPED + TRACED of this part of the run into `folder`; None: no profile."""

    def __init__(self, folder: Path | None, first_step: int):
        self._folder, self._first, self._running = folder, first_step + SKIPPED, False

    def before(self, number: int) -> None:
        """Before step `number`, counted from 1, starts."""
        if self._folder is not None and number == self._first + 1:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, number: int, state) -> str | None:
        """After step `number` was dispatched; what to tell when the profile is written."""
        if not self._running or number < self._first + TRACED:
            return None
        jax.block_until_ready(state)
        self.close()
        return f"profile of {TRACED} steps: tensorboard --logdir {self._folder} (pip install xprof)"

    def close(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
