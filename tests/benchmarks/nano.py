"""Scores of the model that comes along on scenes that it was not trained on, for its card: one row for each size.

python tests/benchmarks/nano.py
python tests/benchmarks/nano.py --model runs/nano-182 --sizes 98 182
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp

import dav2_jax as dav2
from dav2_jax import sharding
from dav2_jax.data.sources import open_source
from dav2_jax.training.validate import Validation

PARTS = ("", "plain/", "glass/", "mirror/", "thin/")


def scores(model: dav2.Model, size: int, scenes: int) -> dict[str, float]:
    """Of the middle square of scenes of 4 : 3, after affine alignment in disparity of each image."""
    source = open_source(f"procedural?count={scenes}&seed=7001&height={size}&width={round(size * 4 / 3)}")
    mesh = sharding.make_mesh(jax.devices())
    validation = Validation(model.config, mesh, (source,), size, scenes, batch_size=16)
    return validation(jax.tree.map(jnp.asarray, model.params))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--sizes", type=int, nargs="+", default=[98, 126, 182, 252])
    parser.add_argument("--scenes", type=int, default=256)
    options = parser.parse_args()
    model = dav2.load(options.model)
    print("| size | " + " | ".join(f"{part or 'all/'}d1, abs_rel" for part in PARTS) + " |")
    print("|---" * (1 + len(PARTS)) + "|")
    for size in options.sizes:
        found = scores(model, size, options.scenes)
        cells = (f"{found[part + 'd1']:.3f}, {found[part + 'abs_rel']:.3f}" for part in PARTS)
        print(f"| {size} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
