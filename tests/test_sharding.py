"""Several processes share a job, on the real distributed runtime: two processes of four CPU devices each."""

import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest
import seeded
from PIL import Image

from dav2_jax import sharding
from dav2_jax.errors import Dav2Error


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def predict(folder: Path, out: str, *options: str) -> subprocess.Popen:
    line = f"predict in --model nano --input-size 28 --format npy --out {out}"
    program = "import sys; from dav2_jax.cli.main import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *line.split(), *options],
        cwd=folder,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def two_processes(folder: Path, out: str = "shared") -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each."""
    where = f"--coordinator=127.0.0.1:{free_port()}"
    jobs = [predict(folder, out, where, "--processes=2", f"--process={number}") for number in range(2)]
    shown = [job.communicate(timeout=240) for job in jobs]
    return [(job.returncode, *texts) for job, texts in zip(jobs, shown, strict=True)]


def test_two_processes_do_the_work_of_one(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.fromarray(seeded.photo(40, 60, seed=number)).save(tmp_path / f"in/{number}.png")
    (tmp_path / "in/5.png").write_bytes(b"no image")  # falls to process 1
    (code, out, err), (other_code, other_out, other_err) = two_processes(tmp_path)
    assert "5 written, 0 skipped, 1 failed; outputs are in shared" in out.splitlines()  # of both together
    assert (code, other_code) == (1, 1)
    assert "written" not in other_out  # one process speaks
    assert "5.png: not an image" in other_err
    assert "5.png" not in err

    alone = predict(tmp_path, "alone")
    alone.communicate(timeout=240)
    assert alone.returncode == 1
    names = sorted(path.name for path in (tmp_path / "shared").iterdir())
    assert names == [f"{number}.png.npy" for number in range(5)]
    for name in names:
        ours, expected = np.load(tmp_path / "shared" / name), np.load(tmp_path / "alone" / name)
        assert np.ptp(expected) > 0
        assert np.linalg.norm(ours - expected) <= 1e-6 * np.linalg.norm(expected)


def test_processes_that_see_different_photos_stop(tmp_path):
    for number in range(2):
        folder = tmp_path / str(number) / "in"
        folder.mkdir(parents=True)
        Image.fromarray(seeded.photo(40, 60)).save(folder / f"{number}.png")
    where = f"--coordinator=127.0.0.1:{free_port()}"
    jobs = [predict(tmp_path / str(n), "out", where, "--processes=2", f"--process={n}") for n in range(2)]
    for job in jobs:
        _, err = job.communicate(timeout=240)
        assert job.returncode == 2
        assert "dav2: error: the processes of this run see different photos: give all of them the same files" in err


def test_a_mesh_has_two_axes_and_batches_use_both():
    mesh = sharding.make_mesh(jax.devices(), fsdp=2)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2}
    batch = jax.device_put(np.arange(16).reshape(16, 1), sharding.batch_sharding(mesh))
    assert sorted(shard.data.shape for shard in batch.addressable_shards) == [(2, 1)] * 8
    whole = jax.device_put(np.arange(16), sharding.replicated(mesh))
    assert [shard.data.shape for shard in whole.addressable_shards] == [(16,)] * 8


def test_a_lone_process_needs_nobody():
    assert sharding.gather({"a": 1}) == [{"a": 1}]
    assert sharding.my_share([1, 2, 3]) == [1, 2, 3]
    assert sharding.is_first()
    sharding.check_same("photos", ["a", "b"])
    assert sharding.inference_devices() == jax.devices()[:1]  # virtual CPU devices share their cores


def test_half_an_address_is_refused():
    with pytest.raises(Dav2Error, match="give all three, or none"):
        sharding.initialize("localhost:1234")
    with pytest.raises(Dav2Error, match="numbered from 0 to 1"):
        sharding.initialize("localhost:1234", 2, 2)


def test_a_gpu_that_is_left_out_is_said(monkeypatch, capsys):
    versions = {"jaxlib": "0.10.2", "jax-cuda12-plugin": "0.9.1"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    sharding._say_if_a_gpu_is_left_out.__wrapped__()
    assert "jax-cuda12-plugin 0.9.1 does not go with jaxlib 0.10.2: pip install" in capsys.readouterr().err
    versions["jax-cuda12-plugin"] = "0.10.2"
    sharding._say_if_a_gpu_is_left_out.__wrapped__()
    assert not capsys.readouterr().err
