"""The package as it is installed: cheap to import, silent about devices, whole."""

import shutil
import subprocess
import sys
from pathlib import Path

import dav2_jax


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_is_cheap_and_touches_nothing():
    heavy = [
        "jax",
        "numpy",
        "flax",
        "orbax",
        "torch",
        "PIL",
        "matplotlib",
        "argparse",
        "huggingface_hub",
        "tqdm",
        "OpenEXR",
    ]
    code = f"import dav2_jax, sys; print([name for name in {heavy} if name in sys.modules])"
    assert run(code).strip() == "[]"


def test_import_of_all_public_names_initializes_no_device():
    code = (
        "import dav2_jax; [getattr(dav2_jax, name) for name in dav2_jax.__all__];"
        "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    )
    assert run(code).strip() == "False"


def test_public_names():
    assert dav2_jax.load.__module__ == "dav2_jax.inference.load"
    assert dav2_jax.PRESETS["small"].width == 384
    assert set(dav2_jax.__all__) == set(dir(dav2_jax))
    assert dav2_jax.__version__ in (Path(__file__).parents[1] / "pyproject.toml").read_text()


def test_convert_and_configs_ship_inside_the_package(tmp_path):
    """A built wheel holds every module, and nobody's site-packages gets a module called `convert`."""
    import zipfile

    root = Path(__file__).parents[1]
    source = tmp_path / "source"
    for name in ("dav2_jax", "convert", "configs"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        file.relative_to(root)
        for folder in ("dav2_jax", "convert", "configs")
        for file in (root / folder).rglob("*.py")
    }
    expected = {str(file) if file.parts[0] == "dav2_jax" else f"dav2_jax/{file}" for file in modules}
    assert expected <= names
    assets = [file for file in (root / "dav2_jax/assets").rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert {str(file.relative_to(root)) for file in assets} <= names
    assert {"dav2_jax/assets/room.jpg", "dav2_jax/assets/nano.ckpt/config.json", "dav2_jax/assets/nano.md"} <= names
    assert {f"dav2_jax/kernels/cpu/{file.name}" for file in (root / "dav2_jax/kernels/cpu").glob("*.*")} <= names
    assert not [name for name in names if name.startswith(("convert/", "configs/", "tests/"))]
