"""The ONE table of released checkpoints, the one that comes along, and `load`, which takes a name or a path."""

import os
import sys
import types
from pathlib import Path
from typing import NamedTuple

from dav2_jax.convert.recognize import APACHE, NON_COMMERCIAL, Told, settle
from dav2_jax.errors import Dav2Error, did_you_mean
from dav2_jax.files import cache_folder
from dav2_jax.model.config import PRESETS, Kind, Taps


class Release(NamedTuple):
    """One released checkpoint: where it is, and what its file does not say itself.

    files: of the repository, all that conversion needs; the first one holds the weights
    """

    repo: str
    files: tuple[str, ...]
    encoder: str
    kind: Kind
    taps: Taps | None
    max_depth: float | None
    license: str
    repo_type: str = "model"


def _releases() -> dict[str, Release]:
    letters = {"small": "s", "base": "b", "large": "l", "giant": "g"}
    hf_files = ("model.safetensors", "config.json")
    table = {}
    for size in ("small", "base", "large"):
        vit, cap = f"vit{letters[size]}", size.capitalize()
        v2_license = APACHE if size == "small" else NON_COMMERCIAL
        v2 = "depth-anything/Depth-Anything-V2"
        rows = [
            ("", f"{v2}-{cap}", f"depth_anything_v2_{vit}.pth", "relative", "v2", None, v2_license),
            ("metric-indoor-", f"{v2}-Metric-Hypersim-{cap}", f"depth_anything_v2_metric_hypersim_{vit}.pth",
             "metric", "v2", 20.0, v2_license),
            ("metric-outdoor-", f"{v2}-Metric-VKITTI-{cap}", f"depth_anything_v2_metric_vkitti_{vit}.pth",
             "metric", "v2", 80.0, v2_license),
        ]  # fmt: skip
        for prefix, repo, file, kind, taps, max_depth, license in rows:
            table[prefix + size] = Release(repo, (file,), size, kind, taps, max_depth, license)
        v1_files = (f"checkpoints/depth_anything_{vit}14.pth",)
        v1 = Release("LiheYoung/Depth-Anything", v1_files, size, "relative", "v1", None, APACHE, repo_type="space")
        table[f"v1-{size}"] = v1
        mirrors = [
            (f"{size}-hf", f"{v2}-{cap}-hf", "relative", "v2", None, v2_license),
            (f"metric-indoor-{size}-hf", f"{v2}-Metric-Indoor-{cap}-hf", "metric", "v2", 20.0, v2_license),
            (f"metric-outdoor-{size}-hf", f"{v2}-Metric-Outdoor-{cap}-hf", "metric", "v2", 80.0, v2_license),
            (f"v1-{size}-hf", f"LiheYoung/depth-anything-{size}-hf", "relative", "v1", None, APACHE),
        ]
        for name, repo, kind, taps, max_depth, license in mirrors:
            table[name] = Release(repo, hf_files, size, kind, taps, max_depth, license)
    for size in letters:
        table[f"dinov2-{size}"] = Release(f"facebook/dinov2-{size}", hf_files, size, "encoder", None, None, APACHE)
    return table


RELEASES = types.MappingProxyType(_releases())
EMBEDDED = "nano"  # comes with the package: a small network of our own, for machines without network
UNTRAINED = "untrained-"  # + a preset: fresh weights, to try the program without any download
UNRELEASED = {"giant": "the giant Depth Anything V2 was never released; if you have its weights, pass the file"}


def load(
    model: str | os.PathLike = "small",
    *,
    dtype: str = "float32",
    kind: Kind | None = None,
    max_depth: float | None = None,
    taps: Taps | None = None,
):
    """A `Model` from a released name, or from any checkpoint that `dav2 convert` reads.

    model: a name of `dav2 models`, or a path to a `.pth`, a `.safetensors`, a Hugging Face folder or our own folder;
           or the folder of a training run; "nano", which comes with the package; or "untrained-small", -base, -large,
           -giant, -nano: random weights, no depth
    dtype: of the computation, "float32" (the official numbers) or "bfloat16" (speed); parameters stay float32
    kind, max_depth, taps: for files whose name does not say them, as in `dav2 convert`
    Raises Dav2Error for an unknown name, no network, and whatever is wrong with a file.
    """
    import jax.numpy as jnp

    from dav2_jax.convert.convert import load_tensors, open_source, refuse_contradiction
    from dav2_jax.inference.predictor import Model
    from dav2_jax.weights import checkpoint

    if dtype not in ("float32", "bfloat16", jnp.float32, jnp.bfloat16):
        raise Dav2Error(f"dtype {dtype!r}: computation is in float32 or bfloat16")
    if not isinstance(model, str | os.PathLike):
        raise Dav2Error(f"a {type(model).__name__} is no model: give a released name or a path")
    told = Told(kind, max_depth, taps).check()
    if os.fspath(model).startswith(UNTRAINED):
        return _untrained(os.fspath(model), dtype, told)
    path = resolve(model)
    if checkpoint.is_checkpoint(path):
        header = checkpoint.load_header(path)
        refuse_contradiction(path, header.model, told)
        params = checkpoint.load_params(path, header.model, jnp.float32)
    else:
        weights = open_source(path, told)
        header, params = weights.header, load_tensors(weights)
    print_license(str(model), header.license)
    return Model(header.model, params, dtype=dtype, license=header.license)


def _untrained(name: str, dtype: str, told: Told):
    import jax

    from dav2_jax.inference.predictor import Model
    from dav2_jax.model.depth_anything import init

    config = PRESETS.get(name.removeprefix(UNTRAINED))
    if config is None:
        raise Dav2Error(f"{name}: the untrained models are {', '.join(UNTRAINED + size for size in PRESETS)}")
    config = settle(name, config, Told("relative", None, "v2"), told)
    print(f"{name}: RANDOM WEIGHTS, never trained: the output shows that the program runs, not depth", file=sys.stderr)
    return Model(config, init(config, jax.random.key(0)), dtype=dtype, license="none (random weights)")


def resolve(model: str | os.PathLike) -> Path:
    """A path as it is; a released name as the folder of its converted weights, downloaded and converted if need be.

    Of the folder of a training run, its best weights, or the last where it never validated.
    """
    from dav2_jax.weights import checkpoint

    name = os.fspath(model)
    if not checkpoint.is_checkpoint(Path(name)):  # a name goes before any other folder that is called so
        if name in RELEASES:
            return fetch(name)
        if name == EMBEDDED:
            return Path(__file__).parents[1] / "assets" / f"{EMBEDDED}.ckpt"
    if name and (Path(name) / "recipe.json").is_file():
        return _of_run(Path(name))
    if name and Path(name).exists():
        return Path(name)
    if name in UNRELEASED:
        raise Dav2Error(f"{name}: {UNRELEASED[name]}")
    if os.sep in name or Path(name).suffix:
        raise Dav2Error(f"{name}: no such file or folder")
    untrained = [UNTRAINED + size for size in PRESETS]
    if name in untrained:
        raise Dav2Error(f"{name}: random weights, made when predict or video ask for them: there is no file")
    near = did_you_mean(name, [*RELEASES, EMBEDDED, *untrained], most=3)
    raise Dav2Error(f"{name!r}: neither a file nor a released model{near}: `dav2 models` lists all names")


def _of_run(run: Path) -> Path:
    from dav2_jax.weights import checkpoint

    for path in (run / "best.ckpt", run / "last.ckpt"):
        if checkpoint.is_checkpoint(path):
            return path
    raise Dav2Error(
        f"{run}: this training run has no weights yet: go on with it, or stop it with Ctrl-C, which keeps them"
    )


def fetch(name: str) -> Path:
    """Downloads a release through huggingface_hub (with its progress bar) and converts it, once each."""
    from dav2_jax.convert import convert
    from dav2_jax.weights import checkpoint

    target = cache_folder() / f"{name}.ckpt"
    if checkpoint.is_checkpoint(target):
        return target
    release = RELEASES[name]
    files = [_download(name, release, file) for file in release.files]
    hf = len(files) > 1
    told = Told() if hf or release.kind == "encoder" else Told(release.kind, release.max_depth, release.taps)
    print(f"{name}: converting once to {target}", file=sys.stderr)
    weights = convert.open_source(files[0].parent if hf else files[0], told)
    provenance = weights.header.provenance | {"source": f"{release.repo}/{release.files[0]}"}
    header = checkpoint.Header(weights.header.model, release.license, provenance)
    convert.write_checkpoint(target, convert.Weights(header, weights.tensors), overwrite=True)
    return target


def _download(name: str, release: Release, file: str) -> Path:
    """One file of a release, from the cache of huggingface_hub or the network. Raises Dav2Error, at once if offline."""
    import huggingface_hub as hub
    from huggingface_hub.errors import HTTPError

    where = {"repo_id": release.repo, "filename": file, "repo_type": release.repo_type}
    try:
        if not isinstance(hub.try_to_load_from_cache(**where), str):
            hub.get_hf_file_metadata(
                hub.hf_hub_url(**where)
            )  # asks once; the download itself retries for half a minute
        return Path(hub.hf_hub_download(**where))
    except (HTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Dav2Error(
            f"{name}: cannot download {file} of {release.repo} from the Hugging Face hub ({reason}); "
            f"with network elsewhere, get that file there and pass its path here in place of {name!r}, or take "
            f"{EMBEDDED!r}, a small and coarse model that is here already"
        ) from None


_said: set[str] = set()


def print_license(name: str, license: str) -> None:
    """Once a process and model, on stderr."""
    if name not in _said:
        _said.add(name)
        note = " (not for commercial use)" if license == NON_COMMERCIAL else ""
        print(f"{name}: license of the weights: {license}{note}", file=sys.stderr)


def table() -> str:
    """All names that `load` knows, a line each, for people."""
    rows = [("name", "encoder", "gives", "license", "from")]
    for name, r in RELEASES.items():
        gives = {"relative": "disparity", "encoder": "features"}.get(r.kind, f"metres, to {r.max_depth or 0:g}")
        rows.append((name, r.encoder, gives, r.license, f"{r.repo}/{r.files[0]}"))
    rows.append((EMBEDDED, "nano", "disparity", APACHE, "this package: no download; trained on procedural scenes"))
    rows += [(UNTRAINED + size, size, "noise", "none", "random weights, no download") for size in PRESETS]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
