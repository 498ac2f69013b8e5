"""The profile of a run: a few steps after the first ones."""

import subprocess
import sys
import textwrap

from dav2_jax.training import profile

# In a process of its own: where libtpu was loaded before, as by tests that compile for TPUs, JAX's profiler crashes.
PROGRAM = """
    import sys
    from pathlib import Path
    import jax.numpy as jnp
    from dav2_jax.training.profile import Profile

    folder = Path(sys.argv[1])
    profiler = Profile(folder, 10)
    for number in range(11, 25):
        profiler.before(number)
        assert folder.exists() == (number >= 19)
        if line := profiler.after(number, jnp.ones(2) * number):
            print(number, line)
    Profile(None, 10).before(14)
    profiler.close()
"""


def test_a_few_steps_after_the_first_ones_are_traced(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "profile")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{10 + profile.SKIPPED + profile.TRACED} profile of")
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
