"""Compiling the kernels: once a machine, and without them where that cannot be."""

import os
import stat
import subprocess
import sys

import pytest

CODE = """
import sys
import numpy as np
from dav2_jax.kernels import cpu as native
from dav2_jax.model import ops
x, kernel = np.ones((2, 40), np.float32), np.full((40, 3), 0.5, np.float32)
print(native.available(), np.asarray(ops.linear(x, kernel, np.ones(3, np.float32))).tolist())
"""


def available(folder, **environment) -> tuple[bool, str]:
    """What a new process says, and its warnings; the numbers are right in any case."""
    environment = os.environ | {"DAV2_CACHE": str(folder)} | environment
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    answer, numbers = done.stdout.split(" ", 1)
    assert numbers.strip() == str([[21.0] * 3] * 2)
    return answer == "True", done.stderr


def test_compiled_once_and_for_the_owner_alone(tmp_path):
    # What takes so long is the optimizer; a compiler called so is another one, with a library of its own.
    quick = {"CXX": "c++ -O0"}
    assert available(tmp_path, **quick)[0]
    (library,) = (tmp_path / "native").iterdir()
    assert library.suffix == ".so"
    assert stat.S_IMODE(library.parent.stat().st_mode) == 0o700
    before = library.stat().st_mtime_ns
    assert available(tmp_path, **quick)[0]
    assert library.stat().st_mtime_ns == before
    assert list(library.parent.iterdir()) == [library]


@pytest.mark.parametrize("environment", [{"DAV2_NATIVE": "0"}, {"PATH": "/nowhere"}])
def test_not_asked_for_or_no_compiler(tmp_path, environment):
    found, said = available(tmp_path, CXX="", **environment)
    assert not found
    assert "kernels" not in said
    assert not (tmp_path / "native").exists()


@pytest.mark.parametrize("compiler", ["/nowhere/c++", "false"])
def test_a_compiler_that_fails_is_one_warning(tmp_path, compiler):
    found, said = available(tmp_path, CXX=compiler)
    assert not found
    assert said.count("the kernels for this CPU cannot be built") == 1
    assert "XLA's operations are used" in said


def test_a_compiler_that_fails_in_the_middle_leaves_nothing(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\nfor last; do :; done\necho half > "$last"\nexit 1\n'
    )
    compiler.chmod(0o755)
    found, said = available(tmp_path, CXX=str(compiler))
    assert not found
    assert "cannot be built" in said
    assert not list((tmp_path / "native").iterdir())


def test_a_library_that_others_could_have_written_is_not_loaded(tmp_path):
    (tmp_path / "native").mkdir()
    (tmp_path / "native").chmod(0o777)
    found, said = available(tmp_path, CXX="c++ -O0")
    assert not found
    assert f"others may write in {tmp_path / 'native'}" in said
