"""What the benchmarks start from: one set of seeded weights in the form that each peer reads, made once and kept.

FOLDER/input.npy         float32 [1, 518, 518, 3], normalized
FOLDER/official.pth      tests/seeded.py as an official checkpoint
FOLDER/dav2.ckpt         `dav2 convert official.pth dav2.ckpt`
FOLDER/hf                `dav2 convert dav2.ckpt hf --to hf`: read by transformers and KerasHub
FOLDER/model.onnx, openvino.xml    made from hf by export_peers.py, in the environment of the peers
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # tests/seeded.py

import seeded  # noqa: E402

from dav2_jax.convert.stored_tensor import StoredTensor  # noqa: E402
from dav2_jax.convert.torch_writer import write_torch_file  # noqa: E402
from dav2_jax.image.preprocess import preprocess  # noqa: E402

SIDE = 518


def make_weights(folder: Path, encoder: str) -> Path:
    """Fills `folder` with what is missing of our own part, and returns the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "input.npy").exists():
        np.save(folder / "input.npy", preprocess(seeded.photo(SIDE, SIDE), SIDE)[None])
    if not (folder / "dav2.ckpt").exists():
        tensors = {name: StoredTensor.of(array) for name, array in seeded.state_dict(encoder).items()}
        write_torch_file(folder / "official.pth", tensors)
        _dav2("convert", folder / "official.pth", folder / "dav2.ckpt", "--kind", "relative", "--taps", "v2")
    if not (folder / "hf").exists():
        _dav2("convert", folder / "dav2.ckpt", folder / "hf", "--to", "hf")
    return folder / "dav2.ckpt"


def make_exports(folder: Path, python: Path) -> str | None:
    """Adds what is missing of the peers' part. python: theirs. Returns what went wrong, in a line, or None."""
    if (folder / "model.onnx").exists() and (folder / "openvino.xml").exists():
        return None
    return run(python, HERE / "export_peers.py", folder)


def _dav2(*arguments) -> None:
    command = [sys.executable, "-m", "dav2_jax", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run(*command) -> str | None:
    """Runs a command; None when it went well, else the last line that it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode == 0:
        return None
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said[-1] if said else f"exit code {done.returncode}"
