"""Sources by name, path and options; and the verbs of `dav2 data`, through the command line."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dav2_jax.cli import main as cli
from dav2_jax.data.sources import DATASETS, open_source
from dav2_jax.errors import Dav2Error

STEPS = (np.arange(1, 7, dtype=np.uint16).reshape(2, 3) * 1000).repeat(8, 0).repeat(8, 1)


@pytest.fixture
def own(tmp_path):
    """Three photos with depth in millimetres, in a folder of two trees and in a CSV file."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        for kind in ("images", "depth"):
            (tmp_path / "own" / kind).mkdir(parents=True, exist_ok=True)
        photo = rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(photo).save(tmp_path / "own" / "images" / f"{name}.png")
        Image.fromarray(STEPS).save(tmp_path / "own" / "depth" / f"{name}.png")
    with (tmp_path / "own.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "depth", "scale"])
        rows.writerows([f"own/images/{name}.png", f"own/depth/{name}.png", "0.001"] for name in "abc")
    return tmp_path


def test_every_name_of_the_table_leads_to_a_function_with_a_docstring():
    for name, dataset in DATASETS.items():
        assert dataset.function().__doc__, name


def test_a_name_with_a_path_and_typed_options(own):
    source = open_source(f"own:{own}/own?scale=0.001&invalid=2000")
    depth = source[0]["depth"]
    np.testing.assert_allclose(depth[::8, ::8], [[1, 0, 3], [4, 5, 6]])
    np.testing.assert_array_equal(open_source(f"own:{own}/own", scale=0.001, invalid=2000)[0]["depth"], depth)
    assert open_source(f"own:{own}/own?scale=1", scale=0.001)[0]["depth"][0, 0] == 1  # a keyword wins


def test_a_path_alone_is_recognized(own, capsys):
    assert open_source(str(own / "own.csv")).name == "own"
    assert open_source(str(own / "own" / "images")).unit == "none"
    assert cli.main(["data", "prepare", str(own / "own.csv"), str(own / "kept")]) == 0
    assert "3 examples in 1 shards" in capsys.readouterr().out
    kept = open_source(str(own / "kept"))
    assert len(kept) == 3
    for ours, theirs in zip(kept, open_source(str(own / "own.csv")), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        np.testing.assert_array_equal(ours["depth"], theirs["depth"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "hypersin:/x",
            r"hypersin:/x: is neither .* nor a known source \(did you mean hypersim\?\): dav2",
        ),
        ("/no/where", "/no/where: is neither a file nor a folder, nor a known source: dav2 data sources lists them"),
        ("hypersim", "hypersim: where is it? Write hypersim:PATH"),
        ("procedural:here", "procedural: takes no path; options go behind a question mark"),
        ("own:x?scal=1", r"own has no option 'scal' \(did you mean scale\?\): it has scale, unit"),
        ("own:x?scale", "own: 'scale' is no option: write key=value"),
        ("own:x?scale=far", "own: scale=far: give a number"),
        ("own:x?unit=feet", "own: unit=feet: give one of metres, disparity"),
        ("vkitti2:x?cameras=0,left", "vkitti2: cameras=left: give a whole number"),
        ("nyu:x?eigen-crop=maybe", "nyu: eigen_crop=maybe: give true or false"),
    ],
)
def test_what_cannot_be_is_one_line(text, message):
    message = message if "\\" in message or ".*" in message else message.replace("?", r"\?")
    with pytest.raises(Dav2Error, match=f"^{message}"):
        open_source(text)


def test_preview_and_check_as_a_user_runs_them(own, capsys, monkeypatch):
    monkeypatch.chdir(own)
    assert cli.main(["data", "preview", "own.csv", "--out", "new/sheet.png", "--height", "40"]) == 0
    with Image.open("new/sheet.png") as sheet:
        assert f"new/sheet.png: {sheet.width} x {sheet.height}" in capsys.readouterr().out
        assert (np.asarray(sheet).reshape(-1, 3).std(0) > 10).all()
    assert cli.main(["data", "check", "own.csv"]) == 0
    shown = capsys.readouterr().out
    assert "own: 3 examples, 3 read, 0 broken" in shown
    assert "depth, metres 1 to 6" in shown
    Path("own/depth/b.png").write_bytes(b"no picture")
    assert cli.main(["data", "check", "own.csv"]) == 1
    assert "b.png: damaged or unreadable" in capsys.readouterr().out
    assert cli.main(["data", "check", "own:own?scale=1"]) == 1
    assert "are these millimetres or steps?" in capsys.readouterr().out
    for line in ("preview own.csv --out a.gif", "preview own.csv --count 0", "check own.csv --limit 0"):
        assert cli.main(["data", *line.split()]) == 2
    assert cli.main(["data", "prepare", "own.csv", "kept", "--jpeg", "101"]) == 2


def test_a_damaged_shard_is_told_by_check(own, capsys):
    assert cli.main(["data", "prepare", str(own / "own.csv"), str(own / "kept")]) == 0
    assert cli.main(["data", "check", str(own / "kept")]) == 0
    shard = next((own / "kept").glob("*.array_record*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    capsys.readouterr()
    assert cli.main(["data", "check", f"records:{own}/kept"]) == 1
    assert f"problem: {shard}: " in capsys.readouterr().out


def test_sources_lists_all_names_and_options(capsys, monkeypatch):
    assert cli.main(["data", "sources"]) == 0
    shown = capsys.readouterr().out
    for name in DATASETS:
        assert f"\n{name} " in f"\n{shown}"
    assert "split=train, cameras=None" in shown
