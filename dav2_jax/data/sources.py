"""ONE table of everything that gives examples by name, and how a line of text names one of them."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dav2_jax.data import records
from dav2_jax.data.source import Source
from dav2_jax.errors import Dav2Error, did_you_mean


class Dataset(NamedTuple):
    opener: str  # "module:function"; its first parameter is the path, where it has one, its keywords are the options
    about: str

    def function(self) -> Callable[..., Source]:
        module, _, name = self.opener.partition(":")
        return getattr(importlib.import_module(module), name)


_READERS = "dav2_jax.data.readers"
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

DATASETS = {
    "procedural": Dataset("dav2_jax.data.readers.procedural:source", "endless scenes with exact depth; no path"),
    "records": Dataset("dav2_jax.data.records:source", "a folder that dav2 data prepare wrote"),
    "tfds": Dataset("dav2_jax.data.tfds_folder:source", "a prepared TFDS dataset, by its name or folder"),
    "own": Dataset(f"{_READERS}.own:source", "your own photos and depth: a folder, or a CSV file"),
    "images": Dataset(f"{_READERS}.images:source", "photos without depth: a folder, a list, or tar files"),
    "hypersim": Dataset(f"{_READERS}.hypersim:source", "Hypersim: rendered rooms"),
    "vkitti2": Dataset(f"{_READERS}.vkitti2:source", "Virtual KITTI 2: rendered streets"),
    "tartanair": Dataset(f"{_READERS}.tartanair:source", "TartanAir: rendered flights"),
    "irs": Dataset(f"{_READERS}.irs:source", "IRS: rendered rooms, disparity"),
    "blendedmvs": Dataset(f"{_READERS}.blendedmvs:source", "BlendedMVS: rendered reconstructions, any scale"),
    "kitti": Dataset(f"{_READERS}.kitti:source", "KITTI depth: streets, sparse LiDAR"),
    "nyu": Dataset(f"{_READERS}.nyu:source", "NYU Depth V2: rooms, Kinect"),
    "sintel": Dataset(f"{_READERS}.sintel:source", "MPI Sintel: an animated film"),
    "eth3d": Dataset(f"{_READERS}.eth3d:source", "ETH3D: laser scans"),
    "diode": Dataset(f"{_READERS}.diode:source", "DIODE: laser scans"),
    "scannet": Dataset(f"{_READERS}.scannet:source", "ScanNet: rooms, depth camera"),
    "da2k": Dataset(f"{_READERS}.da2k:source", "DA-2K: photos with pairs of points, no depth"),
    "sa1b": Dataset(f"{_READERS}.sa1b:source", "SA-1B: photos with points, no depth"),
}


def open_source(text: str, **options: Any) -> Source:
    """The source that a line of text names.

    NAME                    procedural: what needs no path
    NAME:PATH               hypersim:/data/hypersim
    NAME:PATH?key=value&..  with the reader's options; also procedural?count=1000&seed=3
    PATH                    own records, a CSV file or a folder of photos with depth, or else a folder of photos

    options  as after the question mark, of their proper types; they win over those

    Raises Dav2Error for an unknown name or option, and what the reader raises.
    """
    head, _, query = text.partition("?")
    name, _, path = head.partition(":")
    if name not in DATASETS:
        if not Path(head).exists():
            raise Dav2Error(f"{head}: is neither a file nor a folder, nor {_known(name)}")
        name, path = _recognize(Path(head)), head
    function = DATASETS[name].function()
    parameters = inspect.signature(function).parameters
    takes_path = next(iter(parameters.values()), None)
    takes_path = takes_path is not None and takes_path.kind is not inspect.Parameter.KEYWORD_ONLY
    if takes_path and not path:
        raise Dav2Error(f"{name}: where is it? Write {name}:PATH")
    if path and not takes_path:
        raise Dav2Error(f"{name}: takes no path; options go behind a question mark, as in {name}?key=value")
    known = {key: hint for key, hint in typing.get_type_hints(function).items() if _is_option(parameters.get(key))}
    written = dict(_pairs(name, query))
    for key in [*written, *options]:
        if key not in known:
            raise Dav2Error(
                f"{name} has no option {key!r}{did_you_mean(key, known)}: it has {', '.join(known) or 'none'}"
            )
    chosen = {key: _value(name, key, value, known[key]) for key, value in written.items()} | options
    place = (_path_type(function)(Path(path).expanduser()),) if takes_path else ()
    return function(*place, **chosen)


def table() -> str:
    """Every name with its options, for people."""
    lines = []
    for name, dataset in DATASETS.items():
        parameters = inspect.signature(dataset.function()).parameters.values()
        options = [f"{one.name}={one.default}" for one in parameters if _is_option(one)]
        lines += [f"{name:11} {dataset.about}", *([f"{'':11}   {', '.join(options)}"] if options else [])]
    return "\n".join(lines)


def _recognize(path: Path) -> str:
    if path.is_file():
        return "own" if path.suffix.lower() == ".csv" else "images"
    if records.is_prepared(path) or any(path.glob("prepare-*.json")):
        return "records"
    if (path / "dataset_info.json").exists():
        return "tfds"
    return "own" if (path / "depth").is_dir() else "images"


def _known(name: str) -> str:
    return f"a known source{did_you_mean(name, DATASETS)}: dav2 data sources lists them"


def _is_option(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.kind is inspect.Parameter.KEYWORD_ONLY


def _path_type(function: Callable) -> type:
    first = next(iter(inspect.signature(function).parameters))
    return Path if typing.get_type_hints(function).get(first) is Path else str


def _pairs(name: str, query: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals:
            raise Dav2Error(f"{name}: {part!r} is no option: write key=value, and & between two")
        pairs.append((key.replace("-", "_"), value))
    return pairs


def _value(name: str, key: str, text: str, hint: Any) -> Any:
    """The text as the type that the reader asks for: one of these kinds, None besides, or a tuple of it (a,b,c)."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    problems = []
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            return tuple(_value(name, key, part, typing.get_args(kind)[0]) for part in text.split(",") if part)
        if typing.get_origin(kind) is typing.Literal:
            choices = {str(choice): choice for choice in typing.get_args(kind)}
            if text in choices:
                return choices[text]
            problems.append(f"one of {', '.join(choices)}")
        elif kind is bool:
            if text.lower() in _BOOLS:
                return _BOOLS[text.lower()]
            problems.append("true or false")
        elif kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                problems.append("a whole number" if kind is int else "a number")
        elif kind in (str, Path):
            return Path(text).expanduser() if kind is Path else text
    raise Dav2Error(f"{name}: {key}={text}: give {' or '.join(problems)}")
