"""Scores of the model that comes along on scenes that it was not trained on, for its card: one row for each size.

python tests/benchmarks/nano.py
python tests/benchmarks/nano.py --whole --sizes 126 154 168 182 196 210 224 238 252 280 308
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import dav2_jax as dav2
from dav2_jax import sharding
from dav2_jax.data.sources import open_source
from dav2_jax.evaluation import metrics
from dav2_jax.training.validate import Validation

PARTS = ("", "plain/", "glass/", "mirror/", "thin/")


def scores(model: dav2.Model, size: int, width: int, scenes: int) -> dict[str, float]:
    """Of scenes of 4 : 3, or of their middle square, after affine alignment in disparity of each image."""
    source = open_source(f"procedural?count={scenes}&seed=7001&height={size}&width={round(size * 4 / 3)}")
    mesh = sharding.make_mesh(jax.devices())
    validation = Validation(model.config, mesh, (source,), size, scenes, batch_size=16, width=width)
    return validation(jax.tree.map(jnp.asarray, model.params))


def whole(model: dav2.Model, sizes: list[int], scenes: int) -> None:
    """As `dav2 predict` sees images of 252 x 336; then a constant and a ramp from top to bottom, as well aligned."""
    source = open_source(f"procedural?count={scenes}&seed=7001&height=252&width=336")
    examples = [source[index] for index in range(scenes)]
    images, depth, valid = (np.stack([e[name] for e in examples]) for name in ("image", "depth", "valid"))

    def row(name: str, prediction: np.ndarray) -> None:
        aligned = metrics.align_affine(jnp.asarray(prediction), depth, valid)
        d1 = np.asarray(metrics.image_metrics(aligned, depth, valid)["d1"])
        print(f"| {name} | {d1.mean():.3f} | {np.quantile(d1, 0.05):.2f} to {np.quantile(d1, 0.95):.2f} |", flush=True)

    print("| shorter side | d1 | of 90 % of the images |\n|---|---|---|")
    ramp = np.linspace(0, 1, depth.shape[1], dtype=np.float32)[:, None]
    row("constant", np.ones(depth.shape, np.float32))
    row("ramp", np.broadcast_to(ramp, depth.shape))
    for size in sizes:
        row(str(size), np.stack([np.asarray(one) for one in model.predict(list(images), input_size=size)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--sizes", type=int, nargs="+", default=[252])
    parser.add_argument("--scenes", type=int, default=256)
    parser.add_argument("--whole", action="store_true", help="as dav2 predict sees them, at many sizes")
    options = parser.parse_args()
    model = dav2.load(options.model)
    if options.whole:
        return whole(model, options.sizes, options.scenes)
    print("| size | " + " | ".join(f"{part or 'all/'}d1, abs_rel" for part in PARTS) + " |")
    print("|---" * (1 + len(PARTS)) + "|")
    for size in options.sizes:
        for width in (size, size * 4 // 3 // 14 * 14):
            found = scores(model, size, width, options.scenes)
            cells = (f"{found[part + 'd1']:.3f}, {found[part + 'abs_rel']:.3f}" for part in PARTS)
            print(f"| {size} x {width} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
