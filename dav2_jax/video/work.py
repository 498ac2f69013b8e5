"""The work folder of a video that is being made, which makes it possible to go on after a stop of any kind.

`out.mp4` grows in the hidden folder `.out.mp4.dav2` beside it:

    manifest.json           the input and all options: other ones never continue this work
    000000.mp4, ...         the pictures of one chunk; or frames/, the files of all frames
    000007.memory.npz       what the frames after chunk 7 must know of those before: the range, the flicker figure
    000000.npy, ...         timestamps of the frames of one chunk; written last, it says that the chunk is finished
    joined.mp4              while chunks are being joined; renamed to out.mp4 when it is whole
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np

from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic


class Work:
    """Opens or creates the work folder of `out`.

    manifest    what this run makes, and from which input: JSON values
    start_over  throw away finished chunks that were made with another manifest, which is otherwise a Dav2Error

    Attributes: folder, and times, an int64 array [frames] for each finished chunk.
    """

    def __init__(self, out: Path, manifest: dict, *, start_over: bool):
        self.folder = out.with_name(f".{out.name}.dav2")
        known = self._read_manifest()
        same = known == json.loads(json.dumps(manifest))
        if known and not same and not start_over and self._mark(0).exists():
            differing = ", ".join(sorted(key for key in known | manifest if known.get(key) != manifest.get(key)))
            raise Dav2Error(
                f"{out}: unfinished work in {self.folder} was made with another {differing}: run that command again to "
                "go on, or this one with --overwrite to start over"
            )
        if not same:
            self.remove()
            self.folder.mkdir(parents=True)
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
        """Where the pictures of a chunk go; or of the next one, with number len(times)."""
        return self.folder / f"{number:06d}{suffix}"

    def finish_chunk(self, times: list[int], **parts: object) -> None:
        """Marks the next chunk as finished: its pictures are written, and the attributes of `parts` are kept."""
        number = len(self.times)
        attributes = {f"{name}.{key}": value for name, part in parts.items() for key, value in vars(part).items()}
        data = io.BytesIO()
        np.savez(data, **{key: value for key, value in attributes.items() if value is not None})
        with atomic(self._memory(number)) as temporary:
            temporary.write_bytes(data.getvalue())
        data = io.BytesIO()
        np.save(data, np.array(times, np.int64))
        with atomic(self._mark(number)) as temporary:
            temporary.write_bytes(data.getvalue())
        self._memory(number - 1).unlink(missing_ok=True)
        self.times.append(np.array(times, np.int64))

    def recall(self, **parts: object) -> None:
        """Gives `parts` back the attributes that they had when the last finished chunk ended."""
        if not self.times:
            return
        with np.load(self._memory(len(self.times) - 1), allow_pickle=False) as stored:
            for key, value in stored.items():
                name, attribute = key.split(".")
                setattr(parts[name], attribute, value if value.ndim else value.item())

    def remove(self) -> None:
        self._manifest.unlink(missing_ok=True)  # first: without it the rest counts for nothing, should this be stopped
        if self.folder.exists():
            shutil.rmtree(self.folder)

    @property
    def _manifest(self) -> Path:
        return self.folder / "manifest.json"

    def _mark(self, number: int) -> Path:
        return self.chunk(number, ".npy")

    def _memory(self, number: int) -> Path:
        return self.chunk(number, ".memory.npz")

    def _read_manifest(self) -> dict | None:
        try:
            return json.loads(self._manifest.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
