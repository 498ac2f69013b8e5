"""Where files lie in a .tar, against the tar files of Python and of other programs, and hostile ones."""

import io
import tarfile

import pytest

from dav2_jax.data import tar_index
from dav2_jax.errors import Dav2Error

NAMES = ["a.jpg", "./b.json", "d/" + "long" * 30 + "/" + "name" * 20 + ".jpg", "ü €.jpg", "../outside.jpg", "empty"]


def write(path, names=NAMES, **options):
    with tarfile.open(path, "w", **options) as archive:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname, link.size = tarfile.SYMTYPE, "a.jpg", 999  # which is nobody's
        archive.addfile(link)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 0 if name == "empty" else 511 + number  # around the size of a block
            archive.addfile(info, io.BytesIO(bytes([number]) * info.size))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_format_gives_the_same_files(tmp_path, format):
    path = tmp_path / "x.tar"
    write(path, format=format)
    found = list(tar_index.members(path))
    assert [member.name for member in found] == [name.removeprefix("./") for name in NAMES]
    for number, member in enumerate(found):
        size = 0 if member.name == "empty" else 511 + number
        assert tar_index.read(path, *member) == bytes([number]) * size
    with tarfile.open(path) as archive:
        assert [(m.offset_data, m.size) for m in archive if m.isfile()] == [tuple(member[1:]) for member in found]


def test_sizes_beyond_the_octal_field(tmp_path):
    """GNU writes a binary size, pax a record; both hold for that one file only."""
    path = tmp_path / "x.tar"
    for format, headers in ((tarfile.GNU_FORMAT, None), (tarfile.PAX_FORMAT, {"size": "600"})):
        info = tarfile.TarInfo("big")
        info.size = 600
        info.pax_headers = headers or {}
        data = info.tobuf(format)
        if format == tarfile.GNU_FORMAT:
            head = bytearray(data)
            head[124:136] = b"\x80" + (600).to_bytes(11, "big")
            head[148:156] = b"        "
            head[148:156] = b"%06o\0 " % sum(head)
            data = bytes(head)
        after = tarfile.TarInfo("after")
        after.size = 1
        path.write_bytes(data + b"x" * 1024 + after.tobuf() + b"y" * 512 + bytes(1024))
        assert [(m.name, m.size) for m in tar_index.members(path)] == [("big", 600), ("after", 1)]


def test_what_cannot_be_read_says_so_in_one_line(tmp_path):
    path = tmp_path / "x.tar"

    def refused(data, why):
        path.write_bytes(data)
        with pytest.raises(Dav2Error, match=rf"x\.tar: {why}") as error:
            list(tar_index.members(path))
        assert "\n" not in str(error.value)

    write(path)
    whole = path.read_bytes()
    refused(b"not a tar file at all" * 60, "is no .tar file")
    refused(b"short", "is cut off at byte 5")
    refused(whole[:700], "is cut off at byte 700, within a header")
    refused(whole[:2000], "is cut off: 'a.jpg' should end at byte")
    refused(whole[:512] + b"\1" + whole[513:], "damaged: no header at byte 512")
    for kind, program in (("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")):
        with tarfile.open(path, f"w:{kind}"):
            pass
        refused(path.read_bytes(), f"is compressed with {program}")


def header(kind, size, name="x"):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_claims_of_a_hostile_file_are_not_believed(tmp_path):
    path = tmp_path / "x.tar"
    for data, why in (
        (header(b"0", 2**70), "is cut off"),
        (header(b"0", -(2**60)), "is no .tar file"),  # would lead backwards, and round and round
        (header(b"L", 2**21) + bytes(2**21), "damaged: a name of 2,097,152 bytes"),
        (header(b"x", 512) + b"99 path=x\n".ljust(512, b" "), "damaged: no pax header"),
        (header(b"x", 512) + b"0 path=x\n".ljust(512, b"\0"), "damaged: no pax header"),
        (header(b"x", 512) + b"20 size=-9999999999\n".ljust(512, b"\0") + header(b"0", 1), "is no .tar file"),
        (header(b"S", 512) + bytes(512), "holds a sparse file"),
    ):
        path.write_bytes(data)
        with pytest.raises(Dav2Error, match=rf"x\.tar: {why}"):
            list(tar_index.members(path))
    path.write_bytes((header(b"L", 512) + b"n" * 512) * 5000 + header(b"0", 0))  # would nest tarfile 5,000 deep
    assert [member.name for member in tar_index.members(path)] == ["n" * 512]


def test_a_tar_that_has_become_shorter(tmp_path):
    path = tmp_path / "x.tar"
    write(path)
    member = list(tar_index.members(path))[3]
    path.write_bytes(path.read_bytes()[: member.offset + 5])
    with pytest.raises(Dav2Error, match=r"x\.tar: has changed: ü €\.jpg is no longer whole in it"):
        tar_index.read(path, *member)
