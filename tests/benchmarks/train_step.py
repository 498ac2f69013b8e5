"""A training step on this machine's CPU, with the kernels in C++ and with XLA's operations alone, taking turns.

python tests/benchmarks/train_step.py nano:182:16 small:518:1 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def measure(case: str) -> None:
    """In a process of its own: compiles a step, then times one for each line read; prints seconds."""
    import jax
    import numpy as np

    from dav2_jax import sharding
    from dav2_jax.training import objective, optimizer, recipe, step

    name, size, batch_size = case.split(":")
    given = recipe.Recipe(encoder=name, size=int(size), batch_size=int(batch_size), loss="relative", clip=1.0)
    config, mesh = given.model_config(), sharding.make_mesh(jax.devices())
    optimizer = optimizer.make_optimizer(objective.optimization(given), config)
    state = step.init_state(config, optimizer, mesh, jax.random.key(0))
    rng, shape = np.random.default_rng(0), (given.batch_size, given.size, given.size)
    batch = {"image": rng.standard_normal((*shape, 3), np.float32), "disparity": rng.random(shape, np.float32)}
    batch |= {"valid": np.ones(shape, bool)}
    take = step.make_step(objective.make_loss(given), config, optimizer, mesh)
    print(json.dumps(0), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        state, metrics = take(state, batch)
        jax.block_until_ready((state, metrics))
        print(json.dumps(time.perf_counter() - start), flush=True)


def start(case: str, native: str) -> subprocess.Popen:
    environment = os.environ | {"DAV2_NATIVE": native, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, case, "--measure"]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def seconds(process: subprocess.Popen) -> float:
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", help="encoder:size:batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.cases[0])
    print("| step | with kernels, s | XLA alone, s | ratio |\n|---|---|---|---|")
    for case in options.cases:
        both = [start(case, native) for native in ("1", "0")]
        for process in both:
            process.stdout.readline()
            seconds(process)  # compiles
        rounds = [[seconds(process) for process in both] for _ in range(options.rounds)]
        for process in both:
            process.communicate()
        ours, plain = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {case} | {ours:.3f} | {plain:.3f} | {plain / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
