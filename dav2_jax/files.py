"""Files that appear whole or not at all: written under a hidden temporary name in their own folder, then renamed."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dav2_jax.errors import Dav2Error, ExistsError

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

_HOST = re.sub(r"[^\w.]", "_", platform.node()) or "host"  # a folder may be shared, and process numbers are not


def cache_folder() -> Path:
    """Where converted weights, compiled programs and kernels are kept: $DAV2_CACHE, or ~/.cache/dav2_jax."""
    return Path(os.environ.get("DAV2_CACHE") or Path.home() / ".cache" / "dav2_jax")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends well and vanishes otherwise.

    An OSError of the block names `path`, not the temporary file, of which nobody knows.
    """
    temporary = path.with_name(f".dav2-{_HOST}-{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:  # also KeyboardInterrupt
        with contextlib.suppress(OSError):  # where it could not even be created
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary), temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def held(lock: Path, busy: str) -> Iterator[None]:
    """Exclusive inter-process lock (flock); the lock file is created and kept.

    The system releases it when this process ends, in whatever way. Raises Dav2Error(busy) while another one holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Dav2Error(busy) from error
        except OSError:
            pass  # a file system without locks
        yield


def refuse_existing(path: Path, *, overwrite: bool, ours: Collection[str]) -> None:
    """Raises Dav2Error when `path` exists, unless `overwrite` and, if a folder, it holds nothing but `ours`."""
    if not path.exists():
        return
    if not overwrite:
        raise ExistsError(f"{path} exists: choose another name, or pass overwrite=True")
    if path.is_dir():
        others = sorted({file.name for file in path.iterdir()} - set(ours))
        if others or path.resolve() in (Path.cwd(), *Path.cwd().parents):
            why = f"holds {', '.join(others[:3])}" if others else "is the working directory or above it"
            raise Dav2Error(f"{path} is a folder of something else (it {why}): choose another name")


def make_parent(path: Path) -> None:
    """Creates the folders above `path`. Raises Dav2Error when it cannot."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Dav2Error(f"{path}: cannot be written ({error.strerror}): choose another place") from None


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False, ours: Collection[str]) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends well, and vanishes when it does not.

    overwrite, ours: a folder that exists is replaced if it holds nothing but files of these names
    """
    path = Path(path).absolute()
    refuse_existing(path, overwrite=overwrite, ours=ours)
    if path.exists() and not path.is_dir():
        raise Dav2Error(f"{path} is a file, and this is to be a folder: choose another name")
    make_parent(path)
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir()
        yield folder
        if path.exists():
            old = folder.with_suffix(".old")
            path.rename(old)
            folder.rename(path)
            old.unlink() if old.is_symlink() else shutil.rmtree(old)
        else:
            folder.rename(path)
    except Dav2Error as error:
        raise Dav2Error(str(error).replace(str(folder), str(path))) from None
    except OSError as error:
        raise Dav2Error(f"{path}: cannot be written ({error.strerror or error}): choose another place") from None
    finally:
        for _ in range(20):  # threads of a save that failed may still be writing
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.05)


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Deletes the temporary files of `atomic` that processes of this machine left in these folders when killed."""
    for folder in folders:
        for temporary in folder.glob(f".dav2-{_HOST}-*-*.tmp"):
            process = temporary.name.removeprefix(f".dav2-{_HOST}-").partition("-")[0]
            if process.isdecimal() and not _is_running(int(process)):
                temporary.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # no way to ask: signal 0 is Ctrl-C on Windows
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def save_png(pixels: np.ndarray | Image.Image, path: Path, pnginfo: PngInfo | None = None) -> None:
    """(H, W) uint8 or uint16, or (H, W, 3) uint8 RGB, or a PIL image, to a PNG file."""
    from PIL import Image

    # Of a depth map of 1920 x 1440, level 1 takes 0.17 s and 2.2 MB in color, 0.21 s and 4.0 MB in 16 bits; Pillow's
    # default, 6, takes 0.60 s and 1.6 MB, 0.56 s and 3.9 MB: about as long as the small model needs for its prediction.
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, format="PNG", pnginfo=pnginfo, compress_level=1)
