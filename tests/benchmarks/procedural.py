"""Images a second of the procedural scenes, with the time to compile and the memory: one row for each batch size.

python tests/benchmarks/procedural.py                   # 252 x 252, batches of 1 and 8; on whatever JAX runs on
python tests/benchmarks/procedural.py --threads 2       # two batches at once, as loader workers do
python tests/benchmarks/procedural.py --shares 1000     # the share of pixels and of scenes with each tag
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from dav2_jax.data.example import TAGS
from dav2_jax.data.readers import procedural


def speed(batch: int, options: argparse.Namespace) -> str:
    def draw(first: int) -> None:
        size = {"height": options.size, "width": options.size}
        jax.block_until_ready(procedural.render(0, first + jnp.arange(batch), style=options.style, **size))

    start = time.perf_counter()
    draw(0)
    first = time.perf_counter() - start
    starts = range(0, max(options.images, batch * options.threads), batch)
    begin, busy = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(options.threads) as pool:
        list(pool.map(draw, starts))
    wall, busy = time.perf_counter() - begin, time.process_time() - busy
    images = len(starts) * batch
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cost = 1e3 * busy / images
    return f"| {batch} | {options.threads} | {images / wall:.1f} | {cost:.0f} | {first:.0f} | {memory:.1f} |"


def shares(count: int, options: argparse.Namespace) -> None:
    """Over `count` scenes, at half the size each way, as shares hardly depend on it."""
    pixels, scenes = [], []
    for first in range(0, count, 50):
        size = {"height": options.size // 2, "width": options.size // 2}
        tag = np.asarray(procedural.render(0, first + jnp.arange(50), style=options.style, **size)["tag"])
        part = np.stack([(tag == number).mean(axis=(1, 2)) for number in range(len(TAGS))])
        pixels.append(part.mean(axis=1))
        scenes.append((part > 0.005).mean(axis=1))
    print("| tag | pixels | scenes with more than 0.5 % of it | pixels / such scenes |\n|---|---|---|---|")
    for name, share, often in zip(TAGS, np.mean(pixels, axis=0), np.mean(scenes, axis=0), strict=True):
        print(f"| {name} | {share:.1%} | {often:.0%} | {share / max(often, 1e-9):.1%} |")


def sheet(path: str, options: argparse.Namespace) -> None:
    """Twelve scenes of each style, then four of them with depth, tags and what the sensor measured."""
    from matplotlib import colormaps
    from PIL import Image

    size = {"height": options.size, "width": options.size}
    colors = np.array([[90] * 3, [250, 220, 40], [60, 200, 230], [230, 60, 200], [150, 190, 250]], np.uint8)
    scenes, details = [], []
    for style in ("clean", "worn"):
        many = procedural.render(7, jnp.arange(40) + (0 if style == "clean" else 40), style=style, **size)
        # A row of rooms, then one of three streets and three gardens.
        kind = np.asarray(many["kind"])
        chosen = np.concatenate([np.flatnonzero(kind == number)[:count] for number, count in ((0, 6), (1, 3), (2, 3))])
        batch = {name: np.asarray(values)[chosen] for name, values in many.items()}
        scenes += [np.hstack(batch["image"][:6]), np.hstack(batch["image"][6:])]
        for one in np.argsort(-((batch["tag"] >= 1) & (batch["tag"] <= 3)).mean(axis=(1, 2)))[:2]:
            truth, sensor = batch["disparity"][one], batch["sensor_depth"][one]
            top = np.percentile(truth, 99)
            seen = np.divide(1, sensor, out=np.zeros_like(sensor), where=sensor > 0)
            drawn = [colormaps["inferno"](np.clip(values / top, 0, 1))[..., :3] * 255 for values in (truth, seen)]
            drawn[1][sensor == 0] = (0, 90, 90)
            details.append(
                np.hstack([batch["image"][one], drawn[0], colors[batch["tag"][one]], drawn[1]]).astype(np.uint8)
            )
    margin = ((0, 0), (options.size, options.size), (0, 0))
    picture = Image.fromarray(np.vstack([*scenes, *(np.pad(row, margin, constant_values=255) for row in details)]))
    picture.thumbnail((1200, 4000))
    picture.save(path, quality=82)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, default=252)
    parser.add_argument("--style", default="clean")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shares", type=int, default=0, metavar="SCENES")
    parser.add_argument("--sheet", metavar="PATH")
    options = parser.parse_args()
    if options.sheet:
        return sheet(options.sheet, options)
    device = jax.devices()[0]
    print(f"{device.platform}: {device.device_kind}, jax {jax.__version__}, {options.size} x {options.size}")
    if options.shares:
        return shares(options.shares, options)
    print("| batch | threads | images/s | CPU ms an image | first call, s | peak memory, GB |")
    print("|---|---|---|---|---|---|")
    for batch in options.batches:
        print(speed(batch, options), flush=True)


if __name__ == "__main__":
    main()
