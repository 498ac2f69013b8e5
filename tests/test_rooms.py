"""Arrows between the rooms point one way: a table of which room may import which, and nothing else does."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EVERYWHERE = {"dav2_jax", "errors", "files"}  # "dav2_jax": its version
ROOMS = {
    "errors": set(),
    "files": set(),
    "sharding": set(),
    "assets": set(),
    "image": set(),
    "scenes": set(),
    "kernels": {"image"},
    "model": {"image", "kernels"},
    "convert": {"assets", "image", "model"},
    "weights": {"convert", "model"},
    "inference": {"convert", "image", "kernels", "model", "sharding", "weights"},
    "video": {"image", "inference"},
    "data": {"image", "scenes", "sharding"},
    "evaluation": {"data"},
    # Validation during training takes the metrics of `evaluation`, which knows no training.
    "training": {"convert", "data", "evaluation", "image", "kernels", "model", "sharding", "weights"},
    "configs": {"training"},
    "bench": {"image", "kernels", "model", "sharding", "training"},
    "cli": {
        "bench", "convert", "data", "image", "inference", "model", "sharding", "training", "video", "weights",
    },
    "__main__": {"cli"},
}  # fmt: skip
LAZY = "dav2_jax"  # the package itself imports public names from anywhere, when they are asked for


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    found = {}
    for folder, package in (("dav2_jax", "dav2_jax"), ("convert", "dav2_jax.convert"), ("configs", "dav2_jax.configs")):
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


MODULES = modules()


def imported(file: Path, *, types: bool = True) -> set[str]:
    """The modules of this package that a file imports, anywhere in it: also inside functions.

    types: those too that only a type checker imports
    """
    names, tree = set(), ast.parse(file.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not types and node in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in MODULES else node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.partition(".")[0] == "dav2_jax"}


def room(module: str) -> str:
    return [*module.split("."), module][1]


@pytest.mark.parametrize("name", sorted({room(module) for module in MODULES} - {LAZY}))
def test_arrows(name):
    allowed = ROOMS[name] | EVERYWHERE | {name}
    wrong = {
        f"{module} -> {target}"
        for module, file in MODULES.items()
        if room(module) == name
        for target in imported(file)
        if room(target) not in allowed
    }
    assert not wrong


def test_the_table_has_no_circle():
    order: list[str] = []
    while len(order) < len(ROOMS):
        ready = [name for name, below in ROOMS.items() if name not in order and below <= set(order)]
        assert ready, f"a circle among {ROOMS.keys() - set(order)}"
        order += ready


def test_no_module_imports_itself_through_others():
    graph = {module: imported(file, types=False) - {module} for module, file in MODULES.items() if module != LAZY}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_only_the_command_line_knows_its_parser():
    users = {module for module, file in MODULES.items() if "import argparse" in file.read_text()}
    assert {room(module) for module in users} <= {"cli"}
