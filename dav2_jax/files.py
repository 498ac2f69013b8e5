"""Files that appear whole or not at all: written under a hidden temporary name in their own folder, then renamed."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dav2_jax.errors import Dav2Error

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
    """Holds what the file `lock` stands for against other processes; made here, and left there.

    The system lets go of it when this process ends, in whatever way. Raises Dav2Error(busy) while another one holds it.
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
