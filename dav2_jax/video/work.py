"""The work folder of an unfinished video, from which an interrupted run resumes.

`out.mp4` grows in the hidden folder `.out.mp4.dav2` beside it:

    manifest.json           the input and all options: a run with other ones does not resume this work
    000000.mp4, ...         the pictures of one chunk; or frames/, the files of all frames
    000007.state.npz        state after chunk 7, for the next one: steady range, scene cuts, flicker figures
    000000.npy, ...         times of the frames of one chunk; written last, it says that the chunk is finished
    lock                    held by the process at work
    joined.mp4              while chunks are being joined; renamed to out.mp4 when it is whole
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic, held

_LOCK = "lock"


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds the work folder of `out`, which is created, against other processes.

    Raises Dav2Error while another one is making `out`. A folder that stays empty is removed at the end.
    """
    folder = _folder(out)
    busy = f"{out}: another dav2 video is making it: wait until that has ended, or name another output"
    try:
        with contextlib.ExitStack() as stack:
            while True:
                folder.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # whoever held it has just ended, and removed the folder
                    stack.enter_context(held(folder / _LOCK, busy))
                    if (folder / _LOCK).exists() or os.name != "posix":  # there, `held` needs no file
                        break
                    stack.pop_all().close()  # the file of that process
            try:
                yield
            finally:
                if {path.name for path in folder.iterdir()} <= {_LOCK}:
                    (folder / _LOCK).unlink(missing_ok=True)  # while it is held: it is nobody else's
    finally:
        with contextlib.suppress(OSError):  # not empty: work to go on with, or of another process
            folder.rmdir()


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.dav2")


class Work:
    """Opens or creates the work folder of `out`.

    manifest    input and options of this run, JSON
    start_over  discard finished chunks of another manifest, which is otherwise a Dav2Error

    Attributes: folder, and times, an int64 array [frames, 2] for each finished chunk: timestamp and duration.

    Only for the process that holds `locked(out)`.
    """

    def __init__(self, out: Path, manifest: dict, *, start_over: bool):
        self.folder = _folder(out)
        known = self._read_manifest()
        same = known == json.loads(json.dumps(manifest))
        if known and not same and not start_over and self._mark(0).exists():
            differing = ", ".join(sorted(key for key in known | manifest if known.get(key) != manifest.get(key)))
            raise Dav2Error(
                f"{out}: unfinished work in {self.folder} was made with another {differing}: run that command again to "
                "go on, or this one with overwrite=True to start over"
            )
        if not same:
            self.remove()
            with atomic(self._manifest) as temporary:
                temporary.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        self.times: list[np.ndarray] = []
        while (mark := self._mark(len(self.times))).exists():
            self.times.append(np.load(mark, allow_pickle=False))

    @property
    def frames(self) -> int:
        """Number of frames in finished chunks."""
        return sum(map(len, self.times))

    def chunk(self, number: int, suffix: str) -> Path:
        """Path of the pictures of a chunk; number len(times) is the next one."""
        return self.folder / f"{number:06d}{suffix}"

    def finish_chunk(self, times: list[tuple[int, int]], **parts: object) -> None:
        """Marks the next chunk, whose pictures are written, as finished, and stores the attributes of `parts`."""
        number = len(self.times)
        attributes = {f"{name}.{key}": value for name, part in parts.items() for key, value in vars(part).items()}
        data = io.BytesIO()
        np.savez(data, **{key: value for key, value in attributes.items() if value is not None})
        with atomic(self._state(number)) as temporary:
            temporary.write_bytes(data.getvalue())
        data = io.BytesIO()
        np.save(data, np.array(times, np.int64))
        with atomic(self._mark(number)) as temporary:
            temporary.write_bytes(data.getvalue())
        self._state(number - 1).unlink(missing_ok=True)
        self.times.append(np.array(times, np.int64))

    def restore(self, **parts: object) -> None:
        """Sets the attributes of `parts` to those after the last finished chunk."""
        if not self.times:
            return
        with np.load(self._state(len(self.times) - 1), allow_pickle=False) as stored:
            for key, value in stored.items():
                name, attribute = key.split(".")
                setattr(parts[name], attribute, value if value.ndim else value.item())

    def remove(self) -> None:
        """Removes all but the lock, with which `locked` removes the folder."""
        self._manifest.unlink(missing_ok=True)  # first: without it the rest counts for nothing, should this be stopped
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()

    @property
    def _manifest(self) -> Path:
        return self.folder / "manifest.json"

    def _mark(self, number: int) -> Path:
        return self.chunk(number, ".npy")

    def _state(self, number: int) -> Path:
        return self.chunk(number, ".state.npz")

    def _read_manifest(self) -> dict | None:
        try:
            return json.loads(self._manifest.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
