"""Compiled programs: each shape once, and kept from one process to the next."""

import os
import subprocess
import sys

import jax
import numpy as np
import seeded
from PIL import Image

from dav2_jax.inference.programs import keep_programs

PROGRAM = "import sys; from dav2_jax.cli.main import main; sys.exit(main())"


def test_programs_are_kept_for_the_next_process(tmp_path):
    environment = os.environ | {
        "DAV2_CACHE": str(tmp_path / "cache"),
        "XLA_FLAGS": "--xla_backend_optimization_level=1",
    }
    del environment["JAX_COMPILATION_CACHE_DIR"]
    line = "predict in.png --model nano --input-size 28 --format npy"
    Image.fromarray(seeded.photo(40, 60)).save(tmp_path / "in.png")
    results = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *line.split()],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        # At first how long the kernels took, and the license; a kept program is loaded without a word.
        assert done.stderr.count("\n") == (0 if results else 2)
        assert ("for compiling (programs: 1)" in done.stdout) == (not results)
        assert " s on CPU" in done.stdout
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache/programs").glob("jit_apply-*-cache")}
        results.append((kept, np.load(tmp_path / "depth/in.png.npy")))
    (kept, depth), (kept_again, depth_again) = results
    assert kept
    assert kept == kept_again
    assert np.ptp(depth) > 0
    np.testing.assert_array_equal(depth, depth_again)
    assert (tmp_path / "cache/programs").stat().st_mode & 0o077 == 0  # programs run: nobody else may write them


def test_where_no_folder_can_be_made_nothing_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    (tmp_path / "file").touch()
    try:
        keep_programs(tmp_path / "file" / "programs")
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    said = capsys.readouterr().err
    assert said.endswith("programs: cannot be made (Not a directory), so compiled programs are not kept\n")
