"""The forward of Depth Anything V2 on this CPU, side by side with every other way to run it on one.

    python tests/benchmarks/cpu_peers.py                                        # S, B and L: about an hour on two cores
    python tests/benchmarks/cpu_peers.py --encoders small --peers openvino torch --rounds 5
    python tests/benchmarks/cpu_peers.py --json cpu.json --markdown cpu.md      # cpu.md: for docs/performance.md

Run it with the Python that has dav2_jax, on a machine that does nothing else. The peers (requirements.txt; 4 GB) are
installed once into an environment of their own (--env), weights and exported files are made once (--work, 7 GB).

All see the same seeded weights and the same input, 1 x 518 x 518 x 3; "difference" is that of each output from ours in
float32, relative L2. Each peer is a process of its own, loaded and warmed up, and idle while another one runs. They
take turns: round 1 all peers once, then round 2. Timed is the forward alone, from an input that stands ready to an
output in NumPy, on all cores. Where memory does not hold all peers at once, they run in groups, each with ours among
them, and the ratio is within the group. A peer that fails has the reason in its row, and the others go on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import artifacts
import numpy as np
from worker import PEERS

REPOSITORY = artifacts.HERE.parent.parent
OURS = {"float32": "dav2", "bfloat16": "dav2-bf16"}
PAUSE = 0.3  # seconds before each timed run, in which the threads of the one before stop spinning
IDLE_SHARE = 0.02  # of one core: what a process may use while it should be idle before we say so


class Failed(Exception):
    """Why a peer has no numbers, in one line."""


class Worker:
    """A peer in its process, ready when the constructor returns. Raises Failed."""

    def __init__(self, name: str, folder: Path, python: Path, threads: int):
        self.name, self.log = name, folder / f"log-{name}.txt"
        ours = name in OURS.values()
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",  # also where there is something faster
            "HF_HUB_OFFLINE": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable if ours else python, artifacts.HERE / "worker.py", name, folder, str(threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip
        self.ready = self._answer()

    def run(self) -> dict:
        try:
            self.process.stdin.write("run\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died; _answer says of what
        return self._answer()

    def cpu_seconds(self) -> float:
        """User and system time of all its threads until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        said = [text for text in self.log.read_text(errors="replace").splitlines() if text.strip()]
        reason = "killed, out of memory?" if code == -9 else said[-1].strip() if said else f"exit code {code}"
        raise Failed(textwrap.shorten(reason, 160).replace("|", "/"))


def environment(folder: Path) -> Path:
    """The Python of the peers' environment, made and filled when it is not there."""
    python, requirements = folder / "bin" / "python", artifacts.HERE / "requirements.txt"
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return python
    print(f"installing the peers into {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [python, "-m", "pip", "install", "--quiet"]
    if artifacts.run(*install, "-r", requirements):  # something has no wheel here: take what there is, one by one
        wanted = [line for line in requirements.read_text().splitlines() if line and not line.startswith("#")]
        for one in wanted:
            if reason := artifacts.run(*install, one):
                print(f"{one} cannot be installed: {reason}", file=sys.stderr)
    else:
        stamp.write_text(requirements.read_text())
    return python


def memory_available() -> int:
    """Bytes."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def groups(names: list[str], folder: Path) -> list[list[str]]:
    """The peers in as few groups as fit into memory, each led by ours of the same precisions."""
    weights = (folder / "official.pth").stat().st_size
    need = 4 * weights + 1_000_000_000  # a peer: its file, the model, the model once more in another layout, work space
    fit = max(2, int(0.9 * memory_available() / need))
    others = [name for name in names if name not in OURS.values()]
    result: list[list[str]] = []
    for name in others:
        ours = OURS[PEERS[name].precision]
        group = result[-1] if result else []
        if not group or len({*group, ours, name}) > fit:
            group = []
            result.append(group)
        group += [one for one in (ours, name) if one not in group]
    alone = [name for name in names if name in OURS.values() and not any(name in group for group in result)]
    if alone and (not result or len(result[-1]) + len(alone) > fit):
        result.append([])
    if alone:
        result[-1] += alone
    return result


def measure(names: list[str], folder: Path, python: Path, threads: int, rounds: int) -> list[dict]:
    """One row a peer."""
    rows: dict[str, dict] = {}
    workers: list[Worker] = []
    try:
        for name in names:
            rows[name] = {"peer": name, "seconds": [], "cpu_seconds": []}
            print(f"  loading {name}", file=sys.stderr)
            try:
                workers.append(Worker(name, folder, python, threads))
                rows[name] |= workers[-1].ready
            except Failed as error:
                rows[name]["failed"] = str(error)
        for turn in range(rounds):
            for worker in list(workers):
                time.sleep(PAUSE)
                others = {other.name: other.cpu_seconds() for other in workers if other is not worker}
                start = time.perf_counter()
                try:
                    answer = worker.run()
                except Failed as error:
                    rows[worker.name]["failed"] = str(error)
                    workers.remove(worker)
                    continue
                elapsed = time.perf_counter() - start
                rows[worker.name]["seconds"].append(answer["seconds"])
                rows[worker.name]["cpu_seconds"].append(answer["cpu_seconds"])
                rows[worker.name]["peak_bytes"] = answer["peak_bytes"]
                for other in workers:
                    used = other.cpu_seconds() - others.get(other.name, np.inf)
                    if used > max(0.02, IDLE_SHARE * elapsed):  # the clock ticks in hundredths
                        print(f"  {other.name} used {used:.2f} s while {worker.name} ran", file=sys.stderr)
            print(f"  round {turn + 1} of {rounds}: " + ", ".join(
                f"{name} {row['seconds'][-1]:.3f}" for name, row in rows.items() if row["seconds"]
            ), file=sys.stderr)  # fmt: skip
    finally:
        for worker in workers:
            worker.close()
    for name, row in rows.items():
        ours = rows[OURS[PEERS[name].precision]]
        if row["seconds"]:
            row["median"], row["min"] = statistics.median(row["seconds"]), min(row["seconds"])
            if ours["seconds"]:
                row["ratio"] = row["median"] / statistics.median(ours["seconds"])
    return list(rows.values())


def difference(folder: Path, name: str) -> float | None:
    """Relative L2 of the output of a peer from ours in float32."""
    ours, theirs = folder / "output-dav2.npy", folder / f"output-{name}.npy"
    if not (ours.exists() and theirs.exists()):
        return None
    a, b = np.load(ours).astype(np.float64).squeeze(), np.load(theirs).astype(np.float64).squeeze()
    return float(np.linalg.norm(a - b) / np.linalg.norm(a)) if a.shape == b.shape else None


def markdown(results: dict[str, list[dict]], about: dict) -> str:
    """The table for docs/performance.md."""
    lines = [
        f"{about['date']}, {about['cpu']}, {about['threads']} cores, {about['system']}.",
        f"Medians and minima of {about['rounds']} alternating rounds: `{about['command']}`.",
        f"Versions: {', '.join(f'{package} {version}' for package, version in sorted(about['versions'].items()))}.",
    ]
    for encoder, rows in results.items():
        lines += [
            "",
            f"### {encoder}",
            "",
            "| | precision | median, s | min, s | theirs / ours | difference | peak memory, GB | load and compile, s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            peer = PEERS[row["peer"]]
            if "failed" in row:
                lines.append(f"| {peer.title} | {peer.precision} | failed: {row['failed']} | | | | | |")
                continue
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
            apart = "" if row["difference"] is None else f"{row['difference']:.1e}"
            lines.append(
                f"| {peer.title} | {peer.precision} | {row['median']:.3f} | {row['min']:.3f} | {ratio} | {apart} "
                f"| {row['peak_bytes'] / 1e9:.1f} | {row['load_seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["small", "base", "large"], metavar="NAME")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS, metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--env", type=Path, default=REPOSITORY / ".venv-benchmarks", help="environment of the peers")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "benchmarks", help="where files are kept")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    arguments = parser.parse_args()

    threads = len(os.sched_getaffinity(0))
    python = environment(arguments.env.resolve())
    results: dict[str, list[dict]] = {}
    versions: dict[str, str] = {}
    for encoder in arguments.encoders:
        folder = arguments.work.resolve() / encoder
        print(f"{encoder}: weights and files", file=sys.stderr)
        artifacts.make_weights(folder, encoder)
        if reason := artifacts.make_exports(folder, python):
            print(f"  not exported: {reason}", file=sys.stderr)
        for stale in folder.glob("output-*.npy"):
            stale.unlink()
        rows: dict[str, dict] = {}
        for group in groups(arguments.peers, folder):
            for row in measure(group, folder, python, threads, arguments.rounds):
                rows.setdefault(row["peer"], row)  # ours leads every group: its first row stands
        for row in rows.values():
            row["difference"] = difference(folder, row["peer"])
            versions |= row.get("versions", {})
        results[encoder] = sorted(rows.values(), key=lambda row: list(PEERS).index(row["peer"]))
    about = {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "threads": threads,
        "rounds": arguments.rounds,
        "command": shlex.join(["python", "tests/benchmarks/cpu_peers.py", *sys.argv[1:]]),
        "versions": versions,
    }
    table = markdown(results, about)
    print(table)
    if arguments.markdown:
        arguments.markdown.write_text(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
