"""Many photos to many files: predict, write, go on when one fails, and count.

What a user reads: a progress bar on a terminal, one line for each photo that failed, one summary.
"""

from __future__ import annotations

import dataclasses
import errno
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from dav2_jax.errors import Dav2Error
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.formats import FORMATS
from dav2_jax.inference.geometry import choose_focal
from dav2_jax.inference.inputs import Input


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the photos. `failures` holds one line each, "path: what: what to do"; `str(report)` sums up."""

    out: Path
    written: int
    skipped: int
    failures: tuple[str, ...]

    @property
    def failed(self) -> int:
        return len(self.failures)

    def __str__(self) -> str:
        return f"{self.written} written, {self.skipped} skipped, {self.failed} failed; outputs are in {self.out}"


def predict_files(
    load: Callable[[], Callable[[Path], Depth]],
    inputs: Sequence[Input],
    out: Path,
    formats: Sequence[str],
    *,
    skip_existing: bool = False,
    focal_length: float | None = None,
    fov: float | None = None,
    progress: bool = True,
    problems: Sequence[str] = (),
) -> Report:
    """Predict each input and write it in all formats to out / (input.relative + the suffix of the format).

    load           gives the function from path to Depth, which raises Dav2Error for a photo that it cannot take. Called
                   once, after all else was checked, and not at all when there is nothing to predict: models are large.
    skip_existing  pass over a photo all of whose outputs exist and are not empty.
    focal_length   pixels, or fov, degrees from left to right: for every photo, in place of what its EXIF data say.
    progress       show a bar on a terminal (there is none elsewhere); the summary goes to stdout either way.
    problems       lines of `find_inputs`; they are shown and counted as failures, as if found here.

    A photo that fails (unreadable, too large, full disk) costs one line on stderr and the rest go on. Any other
    exception is a bug, or Ctrl-C, and comes through; the files written until then are whole. Raises Dav2Error, before
    `load`, for an unknown format, two sources of the focal length, and an output folder that is a file.
    """
    _check(out, formats, focal_length, fov)
    failures, written = [], 0
    seen: set[str] = set()  # warnings already shown

    def say(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def fail(line: str) -> None:
        failures.append(line)
        say(line)

    for line in problems:
        fail(line)
    jobs = [(item, {name: out / f"{item.relative}{FORMATS[name].suffix}" for name in formats}) for item in inputs]
    todo = [job for job in jobs if not (skip_existing and _are_there(job[1].values()))]
    skipped = len(jobs) - len(todo)
    predict = load() if todo else None
    shown = progress and sys.stderr.isatty()
    with tqdm(todo, initial=skipped, total=len(jobs), unit="photo", disable=not shown, dynamic_ncols=True) as bar:
        for item, outputs in bar:
            finished: list[str] = []
            try:
                depth = predict(item.path)
                focal = choose_focal(focal_length, fov, width=depth.shape[1], known=depth.focal_length)
                depth = dataclasses.replace(depth, focal_length=focal)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", UserWarning)
                    for name, path in outputs.items():
                        path.parent.mkdir(parents=True, exist_ok=True)
                        FORMATS[name].write(depth, path)
                        finished.append(name)
            except Exception as error:
                line = explain(error, item.path, out)
                if line is None:
                    raise
                fail(f"{line} (already written: {', '.join(finished)})" if finished else line)
                continue
            written += 1
            if depth.is_constant:
                say(f"{item.path}: note: the depth map is constant, so its pictures are one colour: check the photo")
            for text in {str(warning.message) for warning in caught} - seen:
                seen.add(text)
                say(f"note: {text}")
    report = Report(out, written, skipped, tuple(failures))
    print(report)
    return report


def _are_there(paths: Iterable[Path]) -> bool:
    return all(path.is_file() and path.stat().st_size > 0 for path in paths)


def explain(error: Exception, photo: Path, out: Path) -> str | None:
    """One line for the failure of one photo, "path: what: what to do"; None for an error that no photo causes."""
    from PIL import Image

    if isinstance(error, Dav2Error):
        text = str(error)
        return text if text.startswith(f"{photo}: ") else f"{photo}: {text}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)):
        return f"{photo}: not enough memory: use a smaller input_size (--input-size) or model (--model)"
    if isinstance(error, Image.DecompressionBombError):
        return f"{photo}: too many pixels: raise max_pixels (--max-pixels) if you trust the file"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{photo}: not an image that Pillow can read: check the file"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{photo}: no space left for its outputs in {out}: free some and run again with --skip-existing"
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename and str(error.filename) != str(photo) else ""
        return f"{photo}: {error.strerror or error}{where}: check that it can be read and that {out} can be written"
    return None


def _check(out: Path, formats: Sequence[str], focal_length: float | None, fov: float | None) -> None:
    if not formats:
        raise Dav2Error(f"no output format: give one or more of {', '.join(FORMATS)}")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise Dav2Error(f"unknown format {unknown[0]!r}: use one of {', '.join(FORMATS)}")
    if out.exists() and not out.is_dir():
        raise Dav2Error(f"{out}: is a file: name a folder with --out")
    choose_focal(focal_length, fov, width=1, known=None)
