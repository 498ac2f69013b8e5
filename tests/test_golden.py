"""Stored outputs of the official code, through the real door: official `.pth`, convert, load, predict.

The giant's 4.5 GB take the same way without the files.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import seeded
import torch

import dav2_jax as dav2
from dav2_jax.convert.keymap import entries
from dav2_jax.convert.read import map_tensors
from dav2_jax.convert.stored_tensor import StoredTensor
from dav2_jax.convert.verify import verify
from dav2_jax.convert.weights import Weights, nested
from dav2_jax.image.preprocess import preprocess
from dav2_jax.model import ops
from dav2_jax.model.config import PRESETS
from dav2_jax.weights.convert import convert
from dav2_jax.weights.load import load_weights

GOLDEN = Path(__file__).parent / "golden"
ENCODERS = {"vits": "small", "vitb": "base", "vitl": "large", "vitg": "giant"}
FLAGS = {  # kind in the file's name -> released file name, and what it does not say
    "relative": ("depth_anything_v2_{}.pth", {}),
    "metric20": ("depth_anything_v2_metric_hypersim_{}.pth", {}),
    "v1": ("depth_anything_{}14.pth", {}),
}
TOLERANCE = 1e-5


def relative_l2(value, reference) -> float:
    value, reference = np.float64(value), np.float64(reference)
    return np.linalg.norm(value - reference) / np.linalg.norm(reference)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """official(encoder, kind) -> a seeded `.pth`, as torch.save writes it; only the last encoder stays on disk."""
    folder, made = tmp_path_factory.mktemp("pth"), {}

    def make(vit: str, kind: str) -> Path:
        if vit not in made:
            for path in made.values():
                path.unlink()
            made.clear()
            path = made[vit] = folder / f"{vit}.pth"
            torch.save(
                {name: torch.from_numpy(array) for name, array in seeded.state_dict(ENCODERS[vit]).items()}, path
            )
        link = folder / FLAGS[kind][0].format(vit)
        link.unlink(missing_ok=True)
        link.symlink_to(made[vit])
        return link

    return make


def in_memory(vit: str) -> dav2.Model:
    """The seeded relative model, with tensors that are drawn when they are read."""
    config = PRESETS[ENCODERS[vit]]
    drawn = {
        e.official: StoredTensor(
            e.torch_shape, np.dtype(np.float32), partial(seeded.tensor, e.official, e.torch_shape, 0)
        )
        for e in entries(config)
    }
    tensors = map_tensors("seeded", drawn, config, "official")
    return dav2.Model(Weights(config, nested(tensors)))


def converted(source: Path, checkpoint: Path) -> dav2.Model:
    """The model of a `.pth`, through a folder of ours; converting is a process of its own, to see its memory alone."""
    code = (
        "import resource, sys; from dav2_jax.weights.convert import convert; import jax; jax.devices();"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; convert(*sys.argv[1:]);"
        "print(base, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    out = subprocess.run([sys.executable, "-c", code, source, checkpoint], check=True, capture_output=True, text=True)
    base, peak = (1024 * int(field) for field in out.stdout.split())
    assert peak - base < 1.3 * source.stat().st_size + 200e6
    return dav2.load(checkpoint)


@pytest.mark.parametrize(
    "file", sorted(GOLDEN.glob("*.npz"), key=lambda file: file.name[3]), ids=lambda file: file.stem
)
def test_golden(file, official, tmp_path):
    vit, kind, _, size, name = file.stem.split("_")
    height, width = map(int, name.removeprefix("seeded").split("x"))
    photo, input_size = seeded.photo(height, width), int(size)
    with np.load(file) as stored:
        reference = dict(stored)
    stride = int(reference["stride"])

    model = in_memory(vit) if vit == "vitg" else converted(official(vit, kind), tmp_path / "model.ckpt")
    x = preprocess(photo, input_size)
    net = model.fn(model.params, x[None])[0] if vit == "vits" else jax.jit(model.fn)(model.params, x[None])[0]
    if vit in ("vitl", "vitg"):  # what follows the network is the same for all sizes: no second compilation for it
        depth = ops.resize_bilinear(net[None, ..., None], height, width)[0, ..., 0]
    else:
        depth = model.predict(photo, input_size=input_size)
        assert depth.unit == ("metres" if kind.startswith("metric") else "disparity")
    assert (1, 3, *x.shape[:2]) == tuple(reference["input_shape"])
    assert relative_l2(x[::stride, ::stride], reference["input"]) < 1e-6
    assert relative_l2(net[::stride, ::stride], reference["net"]) < TOLERANCE
    assert relative_l2(np.asarray(depth)[::stride, ::stride], reference["depth"]) < TOLERANCE
    assert np.asarray(depth).mean(dtype=np.float64) == pytest.approx(float(reference["depth_mean"]), rel=1e-6)


def test_golden_stages(official, tmp_path):
    from PIL import Image

    Image.fromarray(seeded.photo(200, 300)).save(tmp_path / "photo.png")
    file = GOLDEN / "vits_relative_seed0_252_seeded200x300.npz"
    table, passed = verify(
        load_weights(official("vits", "relative")), against=file, image=tmp_path / "photo.png", tolerance=TOLERANCE
    )
    assert passed, table
    assert table.count("\n") > 35  # all stages were compared

    # The same weights with V1's taps are another network: the comparison must notice.
    wrong = tmp_path / "wrong.ckpt"
    (tmp_path / "weights.pth").symlink_to(official("vits", "relative").resolve())
    convert(tmp_path / "weights.pth", wrong, kind="relative", taps="v1")
    table, passed = verify(load_weights(wrong), against=file, image=tmp_path / "photo.png")
    assert not passed
    assert "over the tolerance" in table
