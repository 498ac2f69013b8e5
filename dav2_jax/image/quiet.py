"""Warnings and threads: Pillow's are silenced, ours arrive.

Filters of warnings, like Pillow's limit on size, belong to the process and not to a thread. Of two threads that change
and restore them at once, the later one would restore what the earlier one had set, and a warning that a third thread
raises meanwhile would be lost. So all of it happens under one lock.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

_LOCK = threading.RLock()


@contextlib.contextmanager
def quiet_pillow(max_pixels: int = 0) -> Iterator[None]:
    """Pillow without its warnings (odd but readable files), and with `max_pixels` in place of its own limit on size.

    For headers and metadata; decoding, which takes the time, is left outside. Pillow only warns up to twice its limit,
    so the limit itself is touched only where the caller allows more than that.
    """
    from PIL import Image

    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        lift = limit is not None and max_pixels > 2 * limit
        try:
            if lift:
                Image.MAX_IMAGE_PIXELS = None
            yield
        finally:
            if lift:
                Image.MAX_IMAGE_PIXELS = limit


def warn(message: str, stacklevel: int = 2) -> None:
    """`warnings.warn` of a UserWarning that no other thread's `quiet_pillow` swallows."""
    with _LOCK:
        warnings.warn(message, UserWarning, stacklevel=stacklevel + 1)
