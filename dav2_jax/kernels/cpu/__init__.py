"""Kernels for CPUs in C++, compiled once by the machine's own compiler, for its own processor.

XLA multiplies matrices on a CPU at three quarters of what the processor can do, writes what attention could keep in the
cache, and passes over memory once more for every bias, activation and residual. These kernels do not; where there is no
compiler, XLA's operations do the work, and the numbers are the same to rounding.
"""

from dav2_jax.kernels.cpu.build import available

__all__ = ["available"]
