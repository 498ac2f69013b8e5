"""The C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer, without a warning of the compiler."""

import os
import shutil
import subprocess
import sys

import pytest

from dav2_jax.kernels.cpu import build

COMPILER = "g++ -O0 -Werror -fsanitize=address,undefined -fno-sanitize-recover=undefined"  # -O1 compiles for minutes

# Called outside of jit, so that each operand, result and scratch is an allocation of its own.
CODE = """
import jax
import numpy as np
from dav2_jax.kernels.cpu import build, operations as cpu

assert build.library() is not None

def full(*shape):
    return np.full(shape, 0.5, np.float32)

def finite(y, *shape):
    assert y.shape == shape and np.isfinite(y).all(), (y.shape, shape)

for rows, depth, columns in [(0, 2, 3), (1, 1, 1), (7, 5, 33), (130, 400, 97)]:
    x, kernel, bias = full(rows, depth), full(depth, columns), full(columns)
    finite(cpu.linear(x, kernel, bias, then_gelu=True), rows, columns)
    finite(cpu.linear_residual(x, full(rows, columns), kernel, bias, bias), rows, columns)
for rows, width in [(0, 32), (65, 96)]:
    finite(cpu.layer_norm(full(rows, width), full(width), full(width), eps=1e-6), rows, width)
for batch, n, heads, channels in [(1, 0, 2, 3), (1, 1, 1, 1), (2, 97, 3, 5), (1, 515, 1, 20)]:
    finite(cpu.attention(full(batch, n, 3 * heads * channels), heads=heads), batch, n, heads * channels)
for batch, height, width, inputs, outputs in [(0, 2, 2, 3, 4), (1, 1, 1, 1, 1), (2, 3, 5, 7, 33), (1, 3, 101, 32, 33)]:
    x, kernel, bias = full(batch, height, width, inputs), full(3, 3, inputs, outputs), full(outputs)
    for stride in (1, 2, 3):
        to = batch, -(-height // stride), -(-width // stride), outputs
        finite(cpu.conv(x, kernel, bias, stride=stride, relu=False, add=False), *to)
        finite(cpu.conv(x, full(*to), kernel, bias, stride=stride, relu=True, add=True), *to)
    finite(cpu.conv_kernel_gradient(x, full(batch, height, width, outputs)), 3, 3, inputs, outputs)
    for height, width in [(1, 1), (7, 9)]:
        finite(cpu.resize_conv(x, kernel, bias, height=height, width=width), batch, height, width, outputs)
        last = full(1, 1, outputs, 1), full(1)
        finite(cpu.resize_conv(x, kernel, bias, *last, height=height, width=width), batch, height, width)
finite(cpu.optimization_barrier(full(3, 5)), 3, 5)

# Beyond the largest allocation that ASAN_OPTIONS leaves: three rows of the map, in the memory of a thread.
x, kernel = full(1, 1, 6_000_000, 1), full(3, 3, 1, 1)
try:
    jax.block_until_ready(cpu.conv(x, kernel, full(1), stride=1, relu=False, add=False))
except jax.errors.JaxRuntimeError as error:
    assert "RESOURCE_EXHAUSTED" in str(error) and "dav2_conv: not enough memory" in str(error), error
else:
    raise AssertionError("72 MB were allocated")
finite(cpu.conv(full(1, 4, 4, 1), kernel, full(1), stride=1, relu=False, add=False), 1, 4, 4, 1)
print("done")
"""


def test_odd_shapes_and_too_little_memory(tmp_path, monkeypatch, capfd):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    runtimes = [_output("g++", f"-print-file-name={name}") for name in ("libasan.so", "libstdc++.so")]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(runtimes),  # in this order: where the process has not begun with them they find fault
        "ASAN_OPTIONS": "detect_leaks=0:max_allocation_size_mb=64:allocator_may_return_null=1",
        "DAV2_CACHE": str(tmp_path),
        "CXX": COMPILER,
    }
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path))
    build._compiled(COMPILER.split())  # here: under LD_PRELOAD, the compiler would be slow
    assert capfd.readouterr().err.count("compiling the kernels for this CPU, once a machine ... ") == 1
    run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr[:4000]
    assert "compiling" not in run.stderr


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
