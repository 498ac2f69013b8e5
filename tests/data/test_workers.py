"""Worker processes end, whatever ends the program that started them: real programs, real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, sys, threading, time
from numbered_source import read_for_ever, toy
from dav2_jax.data.augment import Geometry
from dav2_jax.data.loader import Loader

held = []  # to the end of the program, as JAX holds what it was given

def report(workers):
    while len(multiprocessing.active_children()) < workers:
        time.sleep(0.01)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)

def main(workers, way):
    settings = {"transform": Geometry(14), "workers": workers, "process_index": 0, "process_count": 1}
    if way == "hang":
        threading.Thread(target=report, args=(workers,), daemon=True).start()
        with Loader([toy(99, reader=read_for_ever)], 4, **settings) as loader:
            next(loader)
    loader = Loader([toy(99)], 4, **settings)
    held.append(next(loader))
    report(workers)
    if way == "raise":
        raise ValueError("of the program")
    if way == "end":
        return
    print("now", flush=True)
    for batch in loader:
        time.sleep(0.01)

if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
"""


def state(pid: int) -> str | None:
    """R, S, Z (a zombie), ... of a process; None if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def run(folder: Path, workers: int, way: str) -> tuple[subprocess.Popen, list[int]]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(folder)}
    job = subprocess.Popen(
        [sys.executable, str(program), str(workers), way],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of processes of its own, as a terminal would make
    )
    pids = [int(pid) for pid in job.stdout.readline().split()]
    assert len(pids) == workers, job.communicate()
    return job, pids


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc, which Linux has")
@pytest.mark.parametrize(
    ("way", "workers", "code"),
    [("Ctrl-C", 8, -signal.SIGINT), ("hang", 2, -signal.SIGINT), ("raise", 2, 1), ("end", 2, 0)],
)
def test_no_worker_and_no_zombie_is_left(tmp_path, way, workers, code):
    job, pids = run(tmp_path, workers, way)
    if way == "hang":
        while not (tmp_path / "hangs").exists():
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGINT)
    elif code < 0:
        assert job.stdout.readline() == "now\n"
        os.killpg(job.pid, signal.SIGINT)
    try:
        _, err = job.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        assert way == "Ctrl-C"  # pressed again: Python drops the one that falls into a finaliser
        os.killpg(job.pid, signal.SIGINT)
        _, err = job.communicate(timeout=60)
    assert [state(pid) for pid in pids] == [None] * workers
    assert job.returncode == code
    assert err.count("Traceback") == (code != 0), err  # of the program itself: workers say nothing
    assert "leaked" not in err  # shared memory
    assert not list(tmp_path.glob("dav2-loader-*"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc, which Linux has")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_workers_do_not_outlive_a_program_that_is_killed(tmp_path, end):
    job, pids = run(tmp_path, 2, "loop")
    assert job.stdout.readline() == "now\n"
    os.kill(job.pid, end)
    job.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while any(state(pid) not in (None, "Z") for pid in pids):  # who collects orphans is the system's matter
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list(tmp_path.glob("dav2-loader-*"))
