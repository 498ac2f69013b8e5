"""Many photos to many files: predict, write, go on when one fails, and count.

Files are written by the threads of the pipeline while the device goes on.

What a user reads: a progress bar on a terminal, and one line for each photo that failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dav2_jax.errors import Dav2Error, import_optional
from dav2_jax.files import remove_leftovers
from dav2_jax.image.fetch import is_url
from dav2_jax.image.read import read_header
from dav2_jax.inference.clouds import NO_FOCAL
from dav2_jax.inference.depth import Depth
from dav2_jax.inference.formats import FORMATS, NEED_FOCAL
from dav2_jax.inference.geometry import choose_focal, doubt_focal, focal_from_exif
from dav2_jax.inference.inputs import Input, count_by_extension
from dav2_jax.inference.pipeline import Outcome


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the photos. `failures` holds one line each, "path: what: what to do"; `str(report)` sums up.

    seconds   from the first photo to the last, compiling included, loading the model not
    left_out  files in folders and patterns that are no photos, by extension
    """

    out: Path
    written: int
    skipped: int
    failures: tuple[str, ...]
    seconds: float = 0.0
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return len(self.failures)

    def __str__(self) -> str:
        counts = f"{self.written} written, {self.skipped} skipped, {self.failed} failed; outputs are in {self.out}"
        return f"{counts}\nleft out: {count_by_extension(self.left_out)}" if self.left_out else counts

    def merged(self) -> Report:
        """The report of all processes of a run together; each must call it."""
        from dav2_jax import sharding

        reports = sharding.gather(dataclasses.asdict(self) | {"out": str(self.out)})
        return Report(
            self.out,
            sum(report["written"] for report in reports),
            sum(report["skipped"] for report in reports),
            tuple(line for report in reports for line in report["failures"]),
            max(report["seconds"] for report in reports),
            self.left_out,  # of the arguments, which all processes share
        )


Photo = Path | str  # a string is an address
Stream = Callable[[Iterable[Photo], Callable[[Photo, Depth], Any]], Iterator[Outcome]]


def predict_files(
    load: Callable[[], Stream],
    inputs: Sequence[Input],
    out: Path,
    formats: Sequence[str],
    *,
    skip_existing: bool = False,
    focal_length: float | None = None,
    fov: float | None = None,
    progress: bool = True,
    problems: Sequence[str] = (),
    left_out: Counter[str] | None = None,
    reword: Callable[[str], str] = str,
) -> Report:
    """Predict each input and write it in all formats to out / (input.relative + the suffix of the format).

    load           gives the function that predicts: `Model.stream` with its options filled in, or the like. Called
                   once, after all else was checked, and not at all when there is nothing to predict: models are large.
    skip_existing  pass over a photo all of whose outputs exist and are not empty.
    focal_length   pixels, or fov, degrees from left to right: for every photo, in place of what its EXIF data say.
    progress       show a bar on a terminal (there is none elsewhere).
    problems       lines of `find_inputs`; they are shown and counted as failures, as if they came up here.
    left_out       of `find_inputs`, for the report
    reword         of the lines on stderr: the command line puts its flags in place of parameters

    A photo that fails (unreadable, too large, full disk) costs one line on stderr and the rest go on. Any other
    exception is a bug, or Ctrl-C, and comes through; the files written until then are whole. Raises Dav2Error, before
    `load`, for an unknown format, one that needs a package that is not installed, two sources of the focal length, a
    point cloud where no photo states one, and an output folder that cannot be written.
    """
    _check(out, formats, focal_length, fov)
    failures, written = [], 0

    def say(line: str) -> None:
        tqdm.write(reword(line), file=sys.stderr)

    def fail(line: str) -> None:
        failures.append(line)
        say(line)

    for line in problems:
        fail(line)
    jobs = {item.path: {name: out / f"{item.relative}{FORMATS[name].suffix}" for name in formats} for item in inputs}
    todo = [path for path, outputs in jobs.items() if not (skip_existing and _are_there(outputs.values()))]
    skipped = len(jobs) - len(todo)
    remove_leftovers({path.parent for photo in todo for path in jobs[photo].values()})

    def write(photo: Photo, depth: Depth) -> _Written:
        """In a worker thread."""
        done = _Written([], list(depth.notes))
        try:
            focal = choose_focal(focal_length, fov, width=depth.shape[1], known=depth.focal_length)
            doubt = doubt_focal(focal, *depth.shape, known=depth.focal_length)
            if doubt and set(formats) & {*NEED_FOCAL, "npz", "exr"} and not doubts:
                doubts.append(doubt)  # one is enough: it is likely that of all photos
                done.notes.append(doubt)
            depth = dataclasses.replace(depth, focal_length=focal)
            for name, path in jobs[photo].items():
                path.parent.mkdir(parents=True, exist_ok=True)
                FORMATS[name].write(depth, path)
                done.formats.append(name)
        except Exception as error:
            done.error = error
        if not done.error and depth.is_constant:
            done.notes.append("the depth map is constant, so its pictures are one color: check the photo")
        return done

    doubts: list[str] = []
    if todo:
        if focal_length is None and fov is None and set(formats) & set(NEED_FOCAL):
            _refuse_without_focal(todo)
        _refuse_unwritable(out)
    stream = load() if todo else None
    shown = progress and sys.stderr.isatty()
    start = time.perf_counter()
    with (
        _warnings_as_notes(say),
        tqdm(total=len(jobs), initial=skipped, unit="photo", disable=not shown, dynamic_ncols=True) as bar,
    ):
        for photo, value, error in stream(todo, write) if stream else ():
            done = value or _Written([], [], error)
            for note in done.notes:
                say(f"{photo}: note: {note}")
            if done.error is not None:
                line = explain(done.error, photo, out)
                if line is None:
                    raise done.error
                fail(f"{line} (already written: {', '.join(done.formats)})" if done.formats else line)
            else:
                written += 1
            bar.update()
    seconds = time.perf_counter() - start
    return Report(out, written, skipped, tuple(failures), seconds, Counter(left_out or ()))


@dataclasses.dataclass
class _Written:
    """What became of one photo: formats that were written, lines to say, and what stopped the others."""

    formats: list[str]
    notes: list[str]
    error: BaseException | None = None


@contextlib.contextmanager
def _warnings_as_notes(say: Callable[[str], None]) -> Iterator[None]:
    """Each UserWarning of the block, from whatever thread, becomes one line, once.

    Set for the whole block and not around each write: these settings belong to the process, not to a thread.
    """
    seen: set[str] = set()

    def show(message, category, *_) -> None:
        if str(message) not in seen:
            seen.add(str(message))
            say(f"note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _are_there(paths: Iterable[Path]) -> bool:
    return all(path.is_file() and path.stat().st_size > 0 for path in paths)


def explain(error: BaseException, photo: Photo, out: Path) -> str | None:
    """One line for the failure of one photo, "path: what: what to do"; None for an error that no photo causes."""
    from PIL import Image

    if isinstance(error, Dav2Error):
        text = str(error)
        return text if text.startswith(f"{photo}: ") else f"{photo}: {text}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)):
        return f"{photo}: not enough memory: use a smaller input_size or model"
    if isinstance(error, Image.DecompressionBombError):
        return f"{photo}: too many pixels: raise max_pixels if you trust the file"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{photo}: not an image that Pillow can read: check the file"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{photo}: no space left for its outputs in {out}: free some and run again with skip_existing"
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename and str(error.filename) != str(photo) else ""
        return f"{photo}: {error.strerror or error}{where}: check that it can be read and that {out} can be written"
    return None


def _refuse_without_focal(photos: Sequence[Photo]) -> None:
    """Before the work: a point cloud where not one photo states its focal length. Those of addresses may."""
    lacking = []
    for photo in photos:
        header = read_header(photo)
        if is_url(photo) or (header and focal_from_exif(header.exif, header.width, header.height) is not None):
            return
        lacking += [photo] if header else []  # what cannot be read is a failure of its own
    if lacking:
        many = f" (nor do the other {len(lacking) - 1})" if len(lacking) > 1 else ""
        raise Dav2Error(f"{lacking[0]}: {NO_FOCAL.format(many=many)}")


def _check(out: Path, formats: Sequence[str], focal_length: float | None, fov: float | None) -> None:
    if not formats:
        raise Dav2Error(f"no output format: give one or more of {', '.join(FORMATS)}")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise Dav2Error(f"unknown format {unknown[0]!r}: use one of {', '.join(FORMATS)}")
    if "exr" in formats:
        import_optional("OpenEXR")
    if out.exists() and not out.is_dir():
        raise Dav2Error(f"{out}: is a file: name another folder")
    choose_focal(focal_length, fov, width=1, known=None)


def _refuse_unwritable(out: Path) -> None:
    """Before the first prediction, which may take an hour on its way to a file that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise Dav2Error(f"{out}: cannot be written ({error.strerror}): choose another folder") from error
