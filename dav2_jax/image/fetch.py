"""The bytes of a photo from an open file or from an address, within limits."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from dav2_jax.errors import Dav2Error

MAX_BYTES = 512 * 2**20  # of a download
TIMEOUT = 30  # seconds without a byte


def is_url(source: Any) -> bool:
    """Whether this is the address of a photo, http or https."""
    return isinstance(source, str) and re.match(r"https?://", source, re.IGNORECASE) is not None


def download(url: str, *, max_bytes: int = MAX_BYTES, timeout: float = TIMEOUT) -> bytes:
    """The bytes at an http(s) address. Raises Dav2Error for whatever goes wrong, and for more than `max_bytes`."""
    try:
        host = urlsplit(url).hostname
    except ValueError:  # brackets of IPv6 that do not match
        host = None
    if not host:
        raise Dav2Error("an address without a host: give https://host/photo.jpg")
    # Some servers refuse Python's own name; what is no character of an address is escaped, as browsers do.
    request = urllib.request.Request(
        quote(url, safe="/:?#[]@!$&'()*+,;=%~"), headers={"User-Agent": "dav2_jax", "Accept": "image/*,*/*;q=0.5"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            stated = answer.headers.get("Content-Length", "")
            if stated.isdecimal() and int(stated) > max_bytes:
                raise _too_large(max_bytes)
            data = answer.read(max_bytes + 1)
    except urllib.error.HTTPError as error:
        raise Dav2Error(f"the server answers {error.code} {error.reason}: check the address") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        text = (str(getattr(reason, "strerror", None) or reason).splitlines() or [type(error).__name__])[0]
        raise Dav2Error(f"cannot be downloaded ({text}): check the address and the network") from error
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    if stated.isdecimal() and len(data) < int(stated):
        raise Dav2Error(f"the download ended after {len(data):,} of {int(stated):,} bytes: try again")
    return data


def read_open_file(file: Any) -> bytes:
    """All bytes of an open binary file, from its start where it can seek. Raises Dav2Error for a text file."""
    try:
        if hasattr(file, "seek"):
            file.seek(0)
    except OSError:
        pass  # a pipe: from where it is
    try:
        data = file.read()
    except UnicodeDecodeError as error:
        raise Dav2Error("a file that is open as text is no image: open it with mode 'rb'") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise Dav2Error(f"a file that reads as {type(data).__name__} is no image: open it with mode 'rb'")
    return bytes(data)


def _too_large(max_bytes: int) -> Dav2Error:
    return Dav2Error(f"more than {max_bytes / 2**20:,.0f} MiB: download it and give the file")
