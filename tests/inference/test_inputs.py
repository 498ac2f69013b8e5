"""What arguments name, and where outputs go: the naming rule, and one line for each argument that gives nothing."""

import os
from collections import Counter
from pathlib import Path

import pytest

from dav2_jax.inference.formats import FORMATS
from dav2_jax.inference.inputs import count_by_extension, find_inputs


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A working directory with photos (empty files: their content does not matter here) and other files."""
    for name in (
        "photos/b.png",
        "photos/a.jpg",
        "photos/a.png",
        "photos/A.JPEG",
        "photos/notes.md",
        "photos/data.h5",
        "photos/.hidden.jpg",
        "photos/.thumbnails/t.jpg",
        "photos/sub/deep/a.jpg",
        "photos/sub/c.webp",
        "other/a.jpg",
        "one.tif",
        "no_extension",
        "odd[1].jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*arguments):
    inputs, problems = find_inputs(arguments)
    assert problems == []
    return {item.path.as_posix(): item.relative.as_posix() for item in inputs}


def test_a_folder_gives_its_tree_in_order(tree):
    inputs, problems = find_inputs(["photos"])
    assert problems == []
    assert [item.relative.as_posix() for item in inputs] == [
        "A.JPEG",
        "a.jpg",
        "a.png",
        "b.png",
        "sub/c.webp",
        "sub/deep/a.jpg",
    ]
    assert all(item.path == Path("photos") / item.relative for item in inputs)


def test_a_file_is_taken_whatever_its_name(tree):
    assert found("photos/a.jpg") == {"photos/a.jpg": "a.jpg"}
    assert found("no_extension") == {"no_extension": "no_extension"}
    assert found("photos/.hidden.jpg") == {"photos/.hidden.jpg": ".hidden.jpg"}
    assert found("odd[1].jpg") == {"odd[1].jpg": "odd[1].jpg"}
    assert found(str(tree / "one.tif")) == {f"{tree}/one.tif": "one.tif"}


def test_patterns_mirror_below_their_fixed_part(tree):
    assert found("photos/*.jpg") == {"photos/a.jpg": "a.jpg"}
    assert found("photos/**/*.jpg") == {"photos/a.jpg": "a.jpg", "photos/sub/deep/a.jpg": "sub/deep/a.jpg"}
    assert found("*/a.jpg") == {"other/a.jpg": "other/a.jpg", "photos/a.jpg": "photos/a.jpg"}
    assert found("**/[abc].*[gp]").keys() == {
        "photos/a.jpg",
        "photos/a.png",
        "photos/b.png",
        "photos/sub/c.webp",
        "photos/sub/deep/a.jpg",
        "other/a.jpg",
    }
    assert found(f"{tree}/other/?.jpg") == {f"{tree}/other/a.jpg": "a.jpg"}


def test_several_arguments_mirror_below_their_shared_folder(tree):
    assert found("photos/sub", "other") == {
        "photos/sub/c.webp": "photos/sub/c.webp",
        "photos/sub/deep/a.jpg": "photos/sub/deep/a.jpg",
        "other/a.jpg": "other/a.jpg",
    }
    assert found("photos/a.jpg", "photos/b.png") == {"photos/a.jpg": "a.jpg", "photos/b.png": "b.png"}
    assert found("photos/sub/c.webp", "photos/a.jpg") == {"photos/sub/c.webp": "sub/c.webp", "photos/a.jpg": "a.jpg"}


def test_no_two_photos_share_an_output(tree):
    inputs, _ = find_inputs([".", "photos", "other", "photos/*.png", "no_extension"])
    outputs = [f"{item.relative}{format.suffix}".lower() for item in inputs for format in FORMATS.values()]
    assert len(inputs) == 10
    assert len(set(outputs)) == len(outputs)


def test_outputs_do_not_depend_on_what_else_is_there(tree):
    arguments = ["photos", "other/*.jpg", "empty"]
    before = {item.path: item.relative for item in find_inputs(arguments)[0]}
    for name in ("photos/a.webp", "photos/b.jpg", "photos/sub/new/a.jpg", "other/b.jpg", "empty/a.jpg", "a.jpg"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    after = {item.path: item.relative for item in find_inputs(arguments)[0]}
    assert len(after) == len(before) + 5
    assert {path: after[path] for path in before} == before


def test_an_argument_that_gives_nothing_does_not_move_the_outputs_of_others(tree):
    for argument in ("gone", "empty", "gone/*.jpg"):
        inputs, problems = find_inputs(["photos/sub", argument])
        assert len(problems) == 1
        assert [item.relative.as_posix() for item in inputs] == ["photos/sub/c.webp", "photos/sub/deep/a.jpg"]


def test_a_photo_named_twice_is_taken_once_at_its_first_place(tree):
    inputs, problems = find_inputs(
        ["photos/b.png", "photos/a.jpg", "./photos/../photos/b.png", str(tree / "photos/b.png")]
    )
    assert problems == []
    assert [str(item.path) for item in inputs] == ["photos/b.png", "photos/a.jpg"]


def test_our_own_pictures_are_no_inputs(tree):
    before = found("photos")
    for name, format in FORMATS.items():
        (tree / f"photos/a.jpg{format.suffix}").touch()
        (tree / f"photos/sub/c.webp{format.suffix}").touch()
        assert found("photos") == before, name
        assert found("photos/**/*") == before, name
    (tree / "photos/chart.color.png").touch()  # not ours: there is no photo's extension before
    assert "photos/chart.color.png" in found("photos")
    assert found("photos/a.jpg.color.png") == {"photos/a.jpg.color.png": "a.jpg.color.png"}  # asked for by name


def test_lists_are_relative_to_their_folder_or_else_to_the_working_directory(tree):
    (tree / "photos/list.txt").write_text("# two photos\n\na.jpg\n   sub/c.webp  \nother/a.jpg\n", encoding="utf-8-sig")
    assert found("photos/list.txt") == {
        "photos/a.jpg": "photos/a.jpg",
        "photos/sub/c.webp": "photos/sub/c.webp",
        "other/a.jpg": "other/a.jpg",
    }
    (tree / "photos/list.txt").write_text("sub/deep/a.jpg\n")
    assert found("photos/list.txt") == {"photos/sub/deep/a.jpg": "sub/deep/a.jpg"}


def test_lists_reach_outside_their_folder(tree):
    (tree / "empty/list.txt").write_text(f"../photos/a.jpg\n{tree}/other/a.jpg\n")
    inputs, problems = find_inputs(["empty/list.txt"])
    assert problems == []
    assert [item.relative.as_posix() for item in inputs] == ["photos/a.jpg", "other/a.jpg"]


def test_each_problem_is_one_line_and_the_rest_is_found(tree):
    (tree / "list.txt").write_text("one.tif\nmissing.jpg\nphotos\n")
    (tree / "blank.txt").write_text("# nothing\n")
    (tree / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    arguments = ["gone.jpg", "gone/", "empty", "photos/*.gif", "list.txt", "blank.txt", "binary.txt", "no.txt", "other"]
    inputs, problems = find_inputs(arguments)
    assert [str(item.path) for item in inputs] == ["one.tif", "other/a.jpg"]
    assert problems == [
        "gone.jpg: no such file or folder: check the path",
        "gone/: no such file or folder: check the path",
        "empty: the folder holds no photo that Pillow can open: check the path",
        "photos/*.gif: the pattern matches no photo: check it, and quote it so that the shell leaves it alone",
        "list.txt:2: missing.jpg: no such file: a list names one photo a line",
        "list.txt:3: photos: no such file: a list names one photo a line",
        "blank.txt: the list names no photo that exists: write one path a line",
        "binary.txt: is no text in UTF-8: give a list with one path a line",
        "no.txt: the list cannot be read (No such file or directory): check the path",
    ]


def test_nothing_gives_nothing():
    assert find_inputs([]) == ([], [])


def test_links_are_followed_and_loops_end(tree):
    (tree / "photos/linked").symlink_to(tree / "other")
    (tree / "photos/sub/loop").symlink_to(tree / "photos")
    inputs, problems = find_inputs(["photos"])
    assert problems == []
    assert "linked/a.jpg" in [item.relative.as_posix() for item in inputs]
    assert len(inputs) == 7


def test_a_folder_that_may_not_be_read_is_named(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inputs, problems = find_inputs(["photos"])
    assert len(inputs) == 5
    assert problems == ["photos/sub/deep: Permission denied: check the permissions of the folder"]


def test_what_is_left_out_is_counted_by_extension(tree, monkeypatch):
    monkeypatch.setattr("dav2_jax.inference.inputs.photo_extensions", lambda: {".jpg", ".jpeg", ".png", ".webp"})
    for name in ("photos/x.HEIC", "photos/sub/y.heic", "photos/z.cr2", "photos/clip.mov", "photos/a.jpg.npy",
                 "photos/a.jpg.png16.png.json", "photos/.DS_Store"):  # fmt: skip
        (tree / name).touch()
    for argument in ("photos", "photos/**/*"):
        left_out = Counter()
        inputs, problems = find_inputs([argument], left_out=left_out)
        assert (len(inputs), problems) == (6, [])
        assert left_out == {".heic": 2, ".cr2": 1, ".mov": 1, ".md": 1, ".h5": 1}
    text = "2 .heic (pip install 'dav2-jax[heic]'), 1 .cr2, 1 .mov (dav2 video), 1 .h5, 1 .md"
    assert count_by_extension(left_out) == text
    for argument, count in (("photos/**/*.heic", ": check it"), ("empty", ": check the path")):
        (tree / "empty/only.heic").touch()
        (problem,) = find_inputs([argument])[1]
        assert f".heic (pip install 'dav2-jax[heic]'){count}" in problem


def test_addresses_are_photos_below_their_host(tree):
    (alone,) = find_inputs(["https://host.org/a/b%20c.jpg?size=2"])[0]
    assert alone == ("https://host.org/a/b%20c.jpg?size=2", Path("b c.jpg_size=2"))
    both = ["https://host.org/a/b.jpg", "https://host.org/a/c/b.jpg", "http://host.org/../../b.jpg", "https://h:80/"]
    (tree / "list.txt").write_text("\n".join(both))
    inputs, problems = find_inputs(["list.txt"])
    assert problems == []
    assert [str(item.path) for item in inputs] == both
    names = ["host.org/a/b.jpg", "host.org/a/c/b.jpg", "host.org/b.jpg", "h_80/photo"]
    assert [item.relative.as_posix() for item in inputs] == names
