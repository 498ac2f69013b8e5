"""`dav2 predict` on a folder of photos of 30 sizes: what it costs beyond the network itself.

    python tests/benchmarks/folder.py                                          # 100 photos: 15 minutes on two cores
    python tests/benchmarks/folder.py --input-size 252 --photos 30 --rounds 1  # a quick look

Seeded photos (photos.py) and seeded weights (artifacts.py) are made once in --work. Then, each in a process of its own:

    end to end    `dav2 predict` on all photos, decoding and writing included, less what it says it spent on compiling;
                  loading the model and Python are outside its count
    pure model    for the same photos, the sum of the times of the forward alone, input ready, programs compiled
    compilations  programs that XLA compiled in `dav2 predict`, counted by JAX, against the different network sizes
    peak memory   of `dav2 predict` on a quarter of the photos and on all of them
    difference    largest relative L2 between `predict(list)`, in batches as well, and photos predicted one by one

End to end and pure model alternate, --rounds times; the medians count. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import artifacts
import numpy as np
import photos

COMPILED = "/jax/core/compile/backend_compile_duration"  # of jax.monitoring: one event for each program
REPOSITORY = artifacts.HERE.parent.parent


def end_to_end(arguments: argparse.Namespace) -> dict:
    """`dav2 predict`, watched: its seconds, what was compiled (name -> count), the peak of its memory in bytes."""
    import contextlib
    import io

    import jax

    from dav2_jax.cli import main as cli

    compiled: Counter[str] = Counter()

    def listen(event: str, _seconds: float, **about) -> None:
        if event == COMPILED:
            compiled[about.get("fun_name", "?")] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    chosen = arguments.work / f"first-{arguments.photos}.txt"
    chosen.write_text("".join(f"{path}\n" for path in photos.make(arguments.work / "photos", arguments.photos)))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        command = ["predict", chosen, "--model", arguments.model, "--out", arguments.work / "depth", "--format"]
        options = ["--input-size", arguments.input_size, "--dtype", arguments.dtype]
        code = cli.main([str(part) for part in [*command, *arguments.format, *options]])
    took = re.search(r"^([\d.]+) s, of which ([\d.]+) s for compiling", said.getvalue(), re.MULTILINE)
    if code or not took:
        sys.exit(f"dav2 predict ended with {code} and said {said.getvalue()!r}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": float(took[1]), "compile_seconds": float(took[2]), "compiled": compiled, "peak_bytes": peak}


def pure_model(arguments: argparse.Namespace) -> dict:
    """Sum of the seconds of the forward for every photo, and how many sizes the network saw."""
    model = _load(arguments)
    from dav2_jax.image.preprocess import preprocess

    warm, total = set(), 0.0
    for path in photos.make(arguments.work / "photos", arguments.photos):
        x = preprocess(_pixels(path), arguments.input_size)[None]
        if x.shape not in warm:
            warm.add(x.shape)
            np.asarray(model.programs(model.fn, x))
        start = time.perf_counter()
        np.asarray(model.programs(model.fn, x))
        total += time.perf_counter() - start
    return {"seconds": total, "buckets": len(warm)}


def difference(arguments: argparse.Namespace) -> dict:
    """Largest relative L2 of photos predicted together from the same predicted alone."""
    model = _load(arguments)
    paths = photos.make(arguments.work / "photos", arguments.photos)
    alone = [np.asarray(model.predict(path, input_size=arguments.input_size)) for path in paths]

    def largest(**options) -> float:
        together = model.predict(paths, input_size=arguments.input_size, **options)
        return max(
            float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)) for a, b in zip(together, alone, strict=True)
        )

    return {"as given": largest(), "in batches of 4": largest(batch_size=4)}


def _load(arguments: argparse.Namespace):
    import dav2_jax

    return dav2_jax.load(arguments.model, dtype=arguments.dtype)


def _pixels(path: Path) -> np.ndarray:
    from dav2_jax.image.read import read_image

    return read_image(path)[0]


PARTS = {part.__name__: part for part in (end_to_end, pure_model, difference)}


def in_process(part, arguments: argparse.Namespace, **changes) -> dict:
    """One part in a fresh process, so that its memory and its compilations are its own, with no cache of programs."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part.__name__]
    for name, value in (vars(arguments) | changes).items():
        if name not in ("part", "json"):
            values = value if isinstance(value, list) else [value]
            command += [f"--{name.replace('_', '-')}", *map(str, values)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    )
    if done.returncode:
        sys.exit(f"{part.__name__} failed: see above")
    return json.loads(done.stdout.splitlines()[-1])


def report(arguments: argparse.Namespace) -> dict:
    arguments.work = arguments.work.resolve()
    arguments.model = arguments.model or str(artifacts.make_weights(arguments.work / "small", "small"))
    photos.make(arguments.work / "photos", arguments.photos)
    whole, pure = [], []
    for _ in range(arguments.rounds):
        whole.append(in_process(end_to_end, arguments))
        pure.append(in_process(pure_model, arguments))
    quarter = in_process(end_to_end, arguments, photos=max(1, arguments.photos // 4))
    outside = [one["seconds"] - one["compile_seconds"] for one in whole]
    result = {
        "end_to_end": outside,
        "pure_model": [one["seconds"] for one in pure],
        "ratio": statistics.median(outside) / statistics.median(one["seconds"] for one in pure),
        "compile_seconds": whole[0]["compile_seconds"],
        "compiled": whole[0]["compiled"],
        "buckets": pure[0]["buckets"],
        "peak_bytes": {"quarter": quarter["peak_bytes"], "all": max(one["peak_bytes"] for one in whole)},
        "difference": in_process(difference, arguments),
    }
    names = ", ".join(f"{count} x {name}" for name, count in sorted(result["compiled"].items()))
    print(f"photos          {arguments.photos} of {min(arguments.photos, len(photos.SIZES))} sizes")
    print(f"end to end      {statistics.median(outside):.2f} s without {result['compile_seconds']:.1f} s of compiling")
    print(f"pure model      {statistics.median(result['pure_model']):.2f} s")
    print(f"ratio           {result['ratio']:.3f}")
    print(f"buckets         {result['buckets']}")
    print(f"compilations    {names}")
    print("peak memory     " + ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in result["peak_bytes"].items()))
    print("difference      " + ", ".join(f"{name} {value:.1e}" for name, value in result["difference"].items()))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input-size", type=int, default=518)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--format", nargs="+", default=["png16"])
    parser.add_argument("--model", default="", help="name or path; without it, ViT-S with seeded weights")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "benchmarks", help="where files are kept")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments)))
        return
    result = report(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
