"""Depth from OpenEXR files: which channel holds it. Needs the optional package OpenEXR, imported on first use.

A channel is called LAYER.NAME, where the layer may be missing: `Z`, `depth.T` (Mitsuba), `Depth.V` and
`ViewLayer.Depth.Z` (Blender); in files of several parts the part's name may be the layer. A color image (R, G, B) is
never taken for depth.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dav2_jax.errors import Dav2Error, import_optional

# Passes that renderers write as one channel named Z, or with "depth" in their name, and that are not the depth pass.
_OTHER_PASSES = ("mist", "denoising", "depthoffield", "depth_of_field", "confidence", "variance")


def read_channel(path: Path, channel: str | None, max_pixels: int, color: str | None = None) -> np.ndarray:
    """float32 [H, W] (stored as half, float or uint): the channel of this name, or the one that holds depth.

    color   "R", "G" or "B": which one of a color picture, if that is what the file holds; None refuses it

    Raises Dav2Error where there is none or several could, for deep files and for more than `max_pixels` pixels; what
    OpenEXR raises for a damaged file; OSError.
    """
    package = import_optional("OpenEXR")
    _open_by_python(path)
    with package.File(str(path), header_only=True) as file:
        for part in file.parts:
            _check_part(part.header, max_pixels, package)
    with package.File(str(path), separate_channels=True) as file:
        pixels = {
            _full_name(name, part, len(file.parts)): found.pixels
            for part in file.parts
            for name, found in part.channels.items()
        }
    name = _chosen(pixels, channel, color)
    return pixels[name].astype(np.float32)


def header(path: Path) -> dict[str, Any]:
    """The attributes of a file's first part. Raises as `read_channel`."""
    package = import_optional("OpenEXR")
    _open_by_python(path)
    with package.File(str(path), header_only=True) as file:
        return dict(file.header())  # closing empties the header


def depth_channels(names: Iterable[str]) -> list[str]:
    """Those channels of a file, by their names alone, that could hold depth; sorted.

    The only channel, alpha aside; else every Z at the top level or alone in its layer (not the Z of X, Y, Z), and
    every channel with "depth" in its name.
    """
    names = sorted(name for name in names if _last(name) not in ("a", "alpha"))
    if len(names) == 1:
        return names
    beside: dict[str, set[str]] = {}
    for name in names:
        beside.setdefault(_layer(name), set()).add(_last(name))
    found = [
        name for name in names if "depth" in name.lower() or (_last(name) == "z" and "x" not in beside[_layer(name)])
    ]
    return [name for name in found if not any(other in name.lower() for other in _OTHER_PASSES)]


def _chosen(pixels: dict[str, np.ndarray], channel: str | None, color: str | None) -> str:
    if channel is not None:
        if channel not in pixels:
            raise Dav2Error(f"has no channel {channel!r}: it has {', '.join(sorted(pixels))}")
        return channel
    if color in pixels:
        return color
    found = depth_channels(pixels)
    colors = [name for name in found or pixels if _last(name) not in ("a", "alpha")]
    if [_last(name) for name in sorted(colors)] == ["b", "g", "r"] and len({_layer(name) for name in colors}) == 1:
        first, *others = colors  # a gray picture, as Blender writes a value to an RGB file
        if all(np.array_equal(pixels[first], pixels[other], equal_nan=True) for other in others):
            return first
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} channels that could be depth" if found else "no channel that is depth by its name"
    names = ", ".join(found or sorted(pixels))
    raise Dav2Error(f"has {what}: name one of {names} with channel= (own:PATH?channel=NAME)")


def _check_part(header: dict[str, Any], max_pixels: int, package: ModuleType) -> None:
    if header.get("type") in (package.deepscanline, package.deeptile):
        raise Dav2Error("is a deep EXR, with several depths a pixel: flatten it to one Z channel")
    (left, top), (right, bottom) = header["dataWindow"]
    height, width = int(bottom) - int(top) + 1, int(right) - int(left) + 1
    if height <= 0 or width <= 0 or height * width > max_pixels:
        raise Dav2Error(f"claims {width} x {height} pixels: from 1 to {max_pixels:,} can be read")


def _open_by_python(path: Path) -> None:
    """Raises OSError where the file cannot be opened: OpenEXR has one exception for everything."""
    with path.open("rb"):
        pass


def _full_name(name: str, part: Any, parts: int) -> str:
    """LAYER.NAME; the name of the part is the layer of a channel that has none."""
    return name if parts == 1 or "." in name else f"{part.name()}.{name}"


def _last(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
