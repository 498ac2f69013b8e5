"""Compiling the kernels: once a machine, and without them where that cannot be."""

import os
import re
import stat
import subprocess
import sys
from subprocess import PIPE

import pytest

from dav2_jax.kernels.cpu import build

CODE = """
import sys
import numpy as np
from dav2_jax.kernels import cpu as native
from dav2_jax.model import ops
x, kernel = np.ones((2, 40), np.float32), np.full((40, 3), 0.5, np.float32)
print(native.available(), np.asarray(ops.linear(x, kernel, np.ones(3, np.float32))).tolist())
"""


SAID = r"compiling the kernels for this CPU, once a machine \.\.\. \d+ s\n"


def start(folder, **environment) -> subprocess.Popen:
    environment = os.environ | {"DAV2_CACHE": str(folder)} | environment
    return subprocess.Popen([sys.executable, "-c", CODE], env=environment, text=True, stdout=PIPE, stderr=PIPE)


def answer_of(process: subprocess.Popen) -> tuple[bool, str]:
    """What a new process says, and its warnings; the numbers are right in any case."""
    out, said = process.communicate()
    assert process.returncode == 0, said
    answer, numbers = out.split(" ", 1)
    assert numbers.strip() == str([[21.0] * 3] * 2)
    return answer == "True", said


def available(folder, **environment) -> tuple[bool, str]:
    return answer_of(start(folder, **environment))


def script(path, *lines: str) -> str:
    """A compiler: a shell script that knows its version and then runs `lines`; $out is the file to write."""
    path.write_text("\n".join(["#!/bin/sh", '[ "$1" = --version ] && exit 0', "for out; do :; done", *lines]) + "\n")
    path.chmod(0o755)
    return str(path)


def test_compiled_once_and_for_the_owner_alone(tmp_path):
    cache = tmp_path / "cache"
    built = build.library()._name  # by the tests' own process; copied in place of 20 s of work
    both = f"[ $(ls {tmp_path} | grep -c on) = 2 ]"  # have begun
    waits = f"touch {tmp_path}/$$.on; for i in $(seq 600); do {both} && break; sleep 0.1; done"
    compiler = script(tmp_path / "c++", f"[ -e {cache}/native/*.so ] || {{ {waits}; }}", f'cp {built} "$out"')
    at_once = [start(cache, CXX=compiler) for _ in range(2)]
    for process in at_once:  # each compiles its own file, and they take the same place
        found, said = answer_of(process)
        assert found
        assert re.fullmatch(SAID, said)
    (library,) = (cache / "native").iterdir()
    assert library.suffix == ".so"
    assert stat.S_IMODE(library.parent.stat().st_mode) == 0o700
    before = library.stat().st_mtime_ns
    assert available(cache, CXX=compiler) == (True, "")
    assert library.stat().st_mtime_ns == before
    assert list(library.parent.iterdir()) == [library]


def test_a_compiler_with_new_warnings_compiles(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path / "cache"))
    compiler = script(tmp_path / "c++", 'case "$*" in *-Werror*) exit 1;; *) echo done > "$out";; esac')
    assert build._compiled([compiler]).read_text() == "done\n"
    assert re.fullmatch(SAID, capfd.readouterr().err)


@pytest.mark.parametrize("environment", [{"DAV2_NATIVE": "0"}, {"PATH": "/nowhere"}])
def test_not_asked_for_or_no_compiler(tmp_path, environment):
    found, said = available(tmp_path, CXX="", **environment)
    assert not found
    assert "kernels" not in said
    assert not (tmp_path / "native").exists()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/c++", "[Errno 2] No such file or directory: '/nowhere/c++'"),
        (
            ['echo half > "$out"', "echo In file included from here: >&2", "echo 'a.h:3: error: no' >&2", "exit 1"],
            "a.h:3: error: no",
        ),
    ],
    ids=["absent", "fails in the middle"],
)
def test_a_compiler_that_fails_is_one_warning_and_leaves_nothing(tmp_path, compiler, reason):
    if isinstance(compiler, list):
        compiler = script(tmp_path / "c++", *compiler)
    found, said = available(tmp_path, CXX=compiler)
    assert not found
    (warning,) = [line for line in said.splitlines() if "Warning" in line]
    assert f"the kernels for this CPU cannot be built ({reason}): XLA's operations are used" in warning
    assert not (tmp_path / "native").exists() or not list((tmp_path / "native").iterdir())


def test_a_library_that_others_could_have_written_is_not_loaded(tmp_path):
    (tmp_path / "native").mkdir()
    (tmp_path / "native").chmod(0o777)
    found, said = available(tmp_path, CXX="c++ -O0")
    assert not found
    assert f"others may write in {tmp_path / 'native'}" in said
