"""From the sources beside this file to functions that XLA can call."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax

from dav2_jax.files import atomic, cache_folder

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-w")
FUNCTIONS = (
    "dav2_linear",
    "dav2_linear_residual",
    "dav2_attention",
    "dav2_conv",
    "dav2_conv_resized",
    "dav2_conv_kernel_gradient",
    "dav2_layer_norm",
    "dav2_kept",
)


@functools.cache
def available() -> bool:
    """Whether XLA can call the kernels in this process; the first question compiles them, once a machine.

    $DAV2_NATIVE=0 says no. $CXX names the compiler; otherwise it is c++, g++ or clang++, the first that is there.
    The library lies in $DAV2_CACHE/native, or ~/.cache/dav2_jax/native, readable and writable for its owner alone.
    """
    compiler = _compiler()
    if os.environ.get("DAV2_NATIVE") == "0" or compiler is None:
        return False
    try:
        library = ctypes.CDLL(str(_library(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        warnings.warn(f"the kernels for this CPU cannot be built ({reason}): XLA's operations are used", stacklevel=2)
        return False
    for name in FUNCTIONS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


def _compiler() -> list[str] | None:
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return [found] if found and sys.platform != "win32" else None


def _library(compiler: list[str]) -> Path:
    """The compiled library. Its name depends on all that it was made from, this processor among them."""
    native = "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"
    command = [compiler[0], *FLAGS, native, *compiler[1:]]
    parts = [str(command), jax.lib.__version__, _output(compiler[0], "--version"), _processor()]
    parts += [path.read_text() for path in (*sorted(SOURCES.glob("*.h")), SOURCES / "kernels.cc")]
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = cache_folder() / "native"
    path = folder / f"{name}.so"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise PermissionError(f"others may write in {folder}")  # and what lies there is run
    if not path.exists():
        start = time.perf_counter()
        print("compiling the kernels for this CPU, once a machine ...", end=" ", file=sys.stderr, flush=True)
        try:
            with atomic(path) as temporary:
                _output(*command, f"-I{jax.ffi.include_dir()}", str(SOURCES / "kernels.cc"), "-o", str(temporary))
        finally:
            print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
    return path


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(
        next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags", "Features")
    )
