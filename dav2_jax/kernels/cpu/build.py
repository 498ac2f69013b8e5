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
import threading
import time
import warnings
from pathlib import Path

import jax

from dav2_jax.files import atomic, cache_folder

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra")
FUNCTIONS = (
    "dav2_linear",
    "dav2_linear_residual",
    "dav2_attention",
    "dav2_conv",
    "dav2_conv_resized",
    "dav2_conv_kernel_gradient",
    "dav2_layer_norm",
    "dav2_optimization_barrier",
)
_lock = threading.Lock()


def available() -> bool:
    """Whether XLA can call the kernels in this process; the first call compiles them, once a machine, and says so."""
    return library() is not None


def library() -> ctypes.CDLL | None:
    """The compiled kernels, registered with XLA, or None where they cannot be used.

    $DAV2_NATIVE=0 says no. $CXX names the compiler; otherwise it is c++, g++ or clang++, the first that is there.
    The library lies in $DAV2_CACHE/native, or ~/.cache/dav2_jax/native, readable and writable for its owner alone.
    """
    with _lock:  # threads that ask at the same time wait for one compilation
        return _library()


@functools.cache
def _library() -> ctypes.CDLL | None:
    compiler = _compiler()
    if os.environ.get("DAV2_NATIVE") == "0" or compiler is None:
        return None
    try:
        kernels = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"the kernels for this CPU cannot be built ({_reason(error)}): XLA's operations are used", stacklevel=4
        )
        return None
    for name in FUNCTIONS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(kernels, name)), platform="cpu")
    return kernels


def _compiler() -> list[str] | None:
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return [found] if found and sys.platform != "win32" else None


def _compiled(compiler: list[str]) -> Path:
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
                paths = ["-isystem", jax.ffi.include_dir(), str(SOURCES / "kernels.cc"), "-o", str(temporary)]
                try:
                    _output(*command, "-Werror", *paths)
                except subprocess.CalledProcessError:
                    _output(*command, *paths)  # newer compilers may have new warnings; an error is one again
        finally:
            print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
    return path


def _output(*command: str) -> str:
    english = os.environ | {"LC_ALL": "C"}
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", env=english).stdout


def _reason(error: Exception) -> str:
    """Its first line that names an error: compilers write pages."""
    lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else type(error).__name__).strip()


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(
        next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags", "Features")
    )
