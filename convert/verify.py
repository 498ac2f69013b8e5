"""Parity, stage by stage: this network against PyTorch on the same weights and photo, or against stored numbers.

Stored references are `.npz` files with `raw_shape`, `input_shape` and `stride`; `input`, `net` and `depth`, every
`stride`-th row and column; and, under `stage_NAME`, tokens [:, ::37, ::5] or maps [:, ::7, ::11, ::11], channels first.
"""

import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax import assets
from dav2_jax.convert.torch_reference import torch_reference
from dav2_jax.convert.weights import Weights
from dav2_jax.errors import Dav2Error, InvalidValueError, NotFoundError
from dav2_jax.files import atomic
from dav2_jax.image.preprocess import postprocess, preprocess
from dav2_jax.image.read import read_image
from dav2_jax.image.resize import network_size
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig

STRIDE = 4  # of the files that `save` writes


def verify(
    weights: Weights,
    *,
    name: str = "weights",
    against: Path | None = None,
    image: Path | None = None,
    save: Path | None = None,
    input_size: int | None = None,
    tolerance: float = 1e-5,
) -> tuple[str, bool]:
    """A table with the relative L2 error |ours - reference| / |reference| of every stage, and whether all pass.

    weights:    of `weights.load.load_weights`
    name:       of the weights, for the title of the table
    against:    a stored reference in place of PyTorch
    image:      the photo; the bundled sample if None
    save:       write PyTorch's numbers there, for `against` on a machine without it
    input_size: 518, or what the stored reference was made with, if None
    Raises Dav2Error when there is nothing to compare with.
    """
    if against is not None and save is not None:
        raise InvalidValueError(
            f"against={against} compares with stored numbers and save={save} stores PyTorch's: give one of them"
        )
    if save is not None and not save.absolute().parent.is_dir():
        raise NotFoundError(f"{save}: the folder does not exist: create it first")
    photo = read_image(image or assets.SAMPLE)[0]
    stored = _load(against) if against is not None else None
    input_size = input_size or (min(stored["input_shape"][2:].tolist()) if stored else 518)
    if stored:
        _check_shapes(against, stored, photo, input_size)

    config = weights.config
    x = preprocess(photo, input_size)
    ours = _ours(weights, x, photo.shape[:2])
    if stored:
        rows = _against_stored(ours, stored)
        if not rows:
            raise Dav2Error(f"{against}: holds no stage of a {config.encoder} {config.kind} model")
    else:
        reference = torch_reference(weights, x, photo, input_size)
        rows = [
            (name, ours[name].shape, *_errors(value, reference[name]))
            for name, value in ours.items()
            if name in reference
        ]
        if save is not None:
            _save(save, reference, photo.shape, x.shape)
    sizes = f"photo {photo.shape[1]} x {photo.shape[0]}, network {x.shape[1]} x {x.shape[0]}"
    title = f"{name}: {config.encoder} {config.kind}, {sizes}"
    passed = all(error <= tolerance for _, _, error, _ in rows)
    return _table(title, rows, tolerance, passed), passed


def _ours(weights: Weights, x: np.ndarray, photo_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """All stages in PyTorch's layout: tokens [1, N, D], maps [1, C, h, w]; and input, net, depth, channels last."""
    config = weights.config
    run = jax.jit(lambda params, images: depth_anything.stages(config, params, images))
    stages = {name: np.asarray(value) for name, value in run(weights.arrays(), jnp.asarray(x[None])).items()}
    result = {"input": x}
    for name in _order(config):  # jit returns a dict sorted by name
        value = stages[name]
        if name == "depth":
            result |= {"net": value[0], "depth": postprocess(value[0], *photo_size)}
        elif name == "output_conv2":
            result[name] = value[:, None]
        else:
            result[name] = value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
    return result


def _order(config: ModelConfig) -> list[str]:
    """Names of the stages in the order of computation."""
    encoder = ["patch_embed", "tokens", *(f"block{b:02}" for b in range(config.depth)), *(f"tap{k}" for k in range(4))]
    if config.kind == "encoder":
        return encoder
    reassembled = [f"{part}{k}" for k in range(4) for part in ("project", "resize")]
    reassembled += [f"layer{k}_rn" for k in (1, 2, 3, 4)]
    return [*encoder, *reassembled, *(f"refinenet{k}" for k in (4, 3, 2, 1)), "output_conv1", "output_conv2", "depth"]


def _load(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        raise Dav2Error(f"{file}: not a stored reference (no readable .npz): write one with save=FILE") from None
    if missing := {"raw_shape", "input_shape", "stride"} - arrays.keys():
        raise Dav2Error(f"{file}: not a stored reference (no {', '.join(sorted(missing))}): write one with save=FILE")
    if arrays["raw_shape"].shape != (3,) or arrays["input_shape"].shape != (4,) or not arrays["stride"].item(0) > 0:
        raise Dav2Error(f"{file}: not a stored reference (impossible shapes): write one with save=FILE")
    return arrays


def _check_shapes(file: Path, stored: dict, photo: np.ndarray, input_size: int) -> None:
    made, found = stored["raw_shape"].tolist(), list(photo.shape)
    if made != found:
        raise Dav2Error(
            f"{file}: made from a photo of {made[1]} x {made[0]}, and this one is {found[1]} x {found[0]}: "
            "pass image=PHOTO"
        )
    made, found = stored["input_shape"][2:].tolist(), list(network_size(*photo.shape[:2], input_size))
    if made != found:
        raise Dav2Error(f"{file}: made at network size {made}, not {found}: leave input_size out")


def _against_stored(ours: dict, stored: dict) -> list[tuple]:
    stride, rows = int(stored["stride"]), []
    for name, value in ours.items():
        if name in ("input", "net", "depth") and name in stored:
            rows.append((name, value.shape, *_errors(value[::stride, ::stride], stored[name])))
        elif f"stage_{name}" in stored:
            rows.append((name, value.shape, *_errors(_thin(value), stored[f"stage_{name}"])))
    return rows


def _thin(stage: np.ndarray) -> np.ndarray:
    """The part of a stage that is stored."""
    return stage[:, ::37, ::5] if stage.ndim == 3 else stage[:, ::7, ::11, ::11]


def _save(file: Path, reference: dict, raw_shape, x_shape) -> None:
    """Writes a reference as this file's docstring describes it."""
    plain = {name: reference[name][::STRIDE, ::STRIDE] for name in ("input", "net", "depth") if name in reference}
    thinned = {f"stage_{name}": _thin(value) for name, value in reference.items() if name not in plain}
    shapes = {"raw_shape": raw_shape, "input_shape": (1, 3, *x_shape[:2]), "stride": STRIDE}
    with atomic(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **shapes, **plain, **thinned)


def _errors(value: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """(relative L2 error, largest absolute difference), in float64; infinite for different shapes or NaN."""
    if value.shape != reference.shape:
        return float("inf"), float("inf")
    difference = value.astype(np.float64) - reference
    norm = np.linalg.norm(reference.astype(np.float64))
    relative = np.linalg.norm(difference) / norm if norm else float(difference.any())
    if not np.isfinite(relative):  # a NaN on either side compares with nothing
        return float("inf"), float("inf")
    return float(relative), float(np.abs(difference).max())


def _table(title: str, rows: list[tuple], tolerance: float, passed: bool) -> str:
    lines = [title, f"{'stage':14} {'shape':22} {'relative L2':>12} {'largest difference':>19}"]
    for name, shape, relative, largest in rows:
        size = " x ".join(map(str, shape[1:] if len(shape) > 3 or name[0] in "tbp" else shape))
        flag = "" if relative <= tolerance else "   <-- over the tolerance"
        lines.append(f"{name:14} {size:22} {relative:12.1e} {largest:19.1e}{flag}")
    worst = max(rows, key=lambda row: row[2])
    verdict = "passed" if passed else "FAILED"
    return "\n".join(
        [*lines, f"{verdict}: the worst stage is {worst[0]}, {worst[2]:.1e} with a tolerance of {tolerance:.0e}"]
    )
