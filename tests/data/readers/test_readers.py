"""What holds for every reader."""

import subprocess
import sys


def test_readers_import_no_jax():
    """Loader workers import them, one process each."""
    names = ["sintel", "diode", "scannet", "da2k", "images", "sa1b", "own", "eth3d"]
    code = f"import sys; from dav2_jax.data.readers import {', '.join(names)}; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
