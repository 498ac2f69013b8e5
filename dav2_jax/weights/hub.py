"""The ONE table of released checkpoints, how they are downloaded, and what their licenses are."""

import sys
import types
from pathlib import Path
from typing import NamedTuple

from dav2_jax.convert.read import read
from dav2_jax.convert.recognize import APACHE, NON_COMMERCIAL, Overrides
from dav2_jax.errors import Dav2Error, first_line
from dav2_jax.files import atomic, cache_folder
from dav2_jax.model.config import PRESETS, Kind, Taps
from dav2_jax.weights import checkpoint


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
EMBEDDED = "nano"  # comes with the package: a small network of this project, for machines without network
UNTRAINED = "untrained-"  # + a preset: fresh weights, to try the program without any download
UNRELEASED = {"giant": "the giant Depth Anything V2 was never released; if you have its weights, pass the file"}


def known_name(name: str) -> str | None:
    """The released name that is meant: "small", "LARGE", "vits", "depth-anything/Depth-Anything-V2-Small-hf"; or None.

    A repository's own name means the release that was converted from it.
    """
    word = name.lower()
    letters = {"vits": "small", "vitb": "base", "vitl": "large", "dinov2_vits14": "dinov2-small"}
    letters |= {"dinov2_vitb14": "dinov2-base", "dinov2_vitl14": "dinov2-large", "dinov2_vitg14": "dinov2-giant"}
    if (word := letters.get(word, word)) in RELEASES or word == EMBEDDED:
        return word
    repos = {release.repo.lower(): key for key, release in RELEASES.items() if release.repo_type == "model"}
    return repos.get(word)


def fetch(name: str) -> Path:
    """Downloads a release through huggingface_hub (with its progress bar) and converts it, once each."""
    target = cache_folder() / f"{name}.ckpt"
    if checkpoint.is_checkpoint(target):
        return target
    release = RELEASES[name]
    files = [_download(name, release, file) for file in release.files]
    hf = len(files) > 1
    known = Overrides()
    if not hf and release.kind != "encoder":
        known = Overrides(release.kind, release.max_depth, release.taps)
    print(f"{name}: converting once to {target}", file=sys.stderr)
    weights = read(files[0].parent if hf else files[0], known)
    provenance = weights.provenance | {"source": f"{release.repo}/{release.files[0]}"}
    checkpoint.save(target, weights.replace(license=release.license, provenance=provenance), overwrite=True)
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
        raise Dav2Error(
            f"{name}: cannot download {file} of {release.repo} from the Hugging Face hub ({first_line(error)}); "
            f"with network elsewhere, get that file there and pass its path here in place of {name!r}, or take "
            f"{EMBEDDED!r}, a small and coarse model that is here already"
        ) from None


def print_license(name: str, license: str) -> None:
    """On stderr, once a machine and model: what was said is remembered in the cache folder."""
    said = cache_folder() / "licenses.txt"
    line = (
        f"{name}: license of the weights: {license}{' (not for commercial use)' if license == NON_COMMERCIAL else ''}"
    )
    try:
        before = said.read_text(encoding="utf-8") if said.is_file() else ""
        if line in before.splitlines():
            return
        said.parent.mkdir(parents=True, exist_ok=True)
        with atomic(said) as temporary:
            temporary.write_text(f"{before}{line}\n", encoding="utf-8")
    except OSError:
        pass  # a home that cannot be written to: said at each load
    print(line, file=sys.stderr)


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
