"""The pages name what exists: files, links, headings, flags; their Python parses. The README stays short."""

import ast
import re
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from dav2_jax.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "CHANGELOG.md", ROOT / "dav2_jax" / "assets" / "nano.md"]
ON_DISK = re.compile(r"`((?:dav2_jax|convert|configs|tests|docs)/[\w/.]*)`")


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request) -> Path:
    return request.param


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_and_files(page):
    text = page.read_text("utf-8")
    missing = [name for name in ON_DISK.findall(text) if not (ROOT / name).exists()]
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        file, _, heading = target.partition("#")
        other = page.parent / file if file else page
        if not other.exists() or (heading and heading not in anchors(other)):
            missing.append(target)
    assert not missing


def test_python_parses(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S):
        ast.parse(block)


@cache
def flags(verb: str) -> set[str]:
    with redirect_stdout(StringIO()) as out:
        main([*verb.split(), "--help"])
    return set(re.findall(r"--[a-z][\w-]*", out.getvalue()))


def test_flags(page):
    """Of each command `dav2 VERB ...`, in the lines and code spans of the page."""
    spans = re.findall(r"^    (.*)$|`([^`\n]+)`", page.read_text("utf-8"), re.M)
    commands = (re.match(rf"dav2 ({'|'.join(COMMANDS)})\b([^#]*)", line or span) for line, span in spans)
    for verb, rest in (command.groups() for command in commands if command):
        assert set(re.findall(r"--[a-z][\w-]*", rest)) <= flags(verb) | {"--help", "--debug"}, (verb, rest)


def test_the_readme_is_short():
    lines = PAGES[0].read_text("utf-8").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 120
