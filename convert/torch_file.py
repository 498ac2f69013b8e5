"""PyTorch and safetensors weights without torch: lazily, one tensor at a time, and without running a line of the file.

    weights = open_weights("depth_anything_v2_vits.pth")     # a file, or a folder as Hugging Face lays it out
    weights["pretrained.cls_token"].read()                   # the first time that more than headers is read

Every file is treated as a stranger's. This is the door: which kind of file, which files of a folder. The kinds are read
by torch_zip and torch_pickle (`.pth`), and by safetensors_file; state_dict finds the network in what they hold.
"""

import os
import pickletools
from pathlib import Path
from typing import NamedTuple

from dav2_jax.convert.export_record import METADATA_KEY, ZIP_RECORD
from dav2_jax.convert.safetensors_file import json_object, open_safetensors
from dav2_jax.convert.state_dict import StateDict, select
from dav2_jax.convert.stored_tensor import DOWNLOAD_AGAIN, HEADER_LIMIT, StoredTensor, shown
from dav2_jax.convert.torch_pickle import unpickle_archive
from dav2_jax.convert.torch_zip import Archive
from dav2_jax.errors import Dav2Error, NotFoundError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


class Content(NamedTuple):
    """What a file or folder of weights holds.

    content: dicts in each other, with StoredTensor leaves
    record:  what `dav2 convert` wrote into the file about its network; None for a file of anyone else
    """

    content: dict
    record: str | None


def open_weights(
    path: str | os.PathLike, *, entry: str | None = None, prefix: str | None = None
) -> dict[str, StoredTensor]:
    """The named tensors of the network in a weights file or folder, in stored order; reads headers only.

    A file is a torch zip (`.pth .pt .bin .ckpt`) or safetensors, told by its content. A folder holds
    `model.safetensors` or `pytorch_model.bin`, or one of these in shards with its `.index.json`, or one weights file of
    any name; a repository in the cache of huggingface_hub is such a folder too.
    entry, prefix: which dict of the file, and which of its networks; None where there is only one (see `state_dict`)
    Raises Dav2Error, one line with the path, for everything else.
    """
    path = locate(path)
    return select(str(path), read_content(path).content, entry, prefix).tensors


def open_state_dict(path: Path, *, entry: str | None = None, prefix: str | None = None) -> tuple[StateDict, str | None]:
    """The same of a path that `locate` gave, with what was chosen and left out, and the record of our own export."""
    content, record = read_content(path)
    return select(str(path), content, entry, prefix), record


def locate(path: str | os.PathLike) -> Path:
    """The weights file that a path means; of sharded weights, their folder. Raises Dav2Error when there is none."""
    path = Path(path).absolute()
    if not path.is_dir():
        return path
    if (path / "snapshots").is_dir():
        path = _snapshot(path)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).exists():
            return path / name
        if (path / f"{name}.index.json").exists():
            return path
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if len(files) == 1:
        return files[0]
    names = ", ".join(shown(file.name) for file in files[:4])
    found = f"{len(files)} files that could be meant ({names}); give one of them" if files else "no weights"
    raise Dav2Error(
        f"{path}: holds {found}; expected model.safetensors or pytorch_model.bin, or one of them in shards with its "
        ".index.json, or one weights file"
    )


def _snapshot(repository: Path) -> Path:
    """The folder of files of a repository in huggingface_hub's cache: `snapshots/<commit>`, that of `main` if known."""
    snapshots = repository / "snapshots"
    try:
        main = snapshots / (repository / "refs" / "main").read_text().strip()
    except OSError:
        main = snapshots
    if main.parent == snapshots and main.is_dir():
        return main
    folders = [folder for folder in snapshots.iterdir() if folder.is_dir()]
    if len(folders) != 1:
        raise Dav2Error(f"{repository}: holds {len(folders)} snapshots; give one of the folders in {snapshots}")
    return folders[0]


def read_content(path: Path) -> Content:
    """All that a path of `locate` holds, tensors unread. Raises Dav2Error, one line with the path."""
    try:
        if path.is_dir():
            name = "model.safetensors" if (path / "model.safetensors.index.json").exists() else "pytorch_model.bin"
            return Content(_open_shards(path / f"{name}.index.json"), None)
        if _kind(path) == "safetensors":
            tensors, metadata = open_safetensors(path)
            return Content(dict(tensors), metadata.get(METADATA_KEY))
        archive = Archive(path)
        record = archive.small(ZIP_RECORD).decode("utf-8", "replace") if archive.has(ZIP_RECORD) else None
        return Content(unpickle_archive(archive), record)
    except Dav2Error:
        raise
    except OSError as error:
        raise Dav2Error(f"{path}: cannot be read ({error.strerror or error})") from error


def _kind(path: Path) -> str:
    """'torch' or 'safetensors' by the first bytes. The usual wrong files get an error that says what they are."""
    if not path.exists():
        raise NotFoundError(f"{path}: no such file or folder")
    if not path.is_file():
        raise Dav2Error(f"{path}: is not a regular file")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise Dav2Error(f"{path}: is empty; {DOWNLOAD_AGAIN}")
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "torch"
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"version https://git-lfs"):
        raise Dav2Error(f"{path}: is a git-lfs pointer, not the weights; run `git lfs pull` in its repository")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:5].lower() in (b"<!doc", b"<html", b"<head", b"<?xml"):
        raise Dav2Error(
            f"{path}: is a web page saved under this name, not weights; {DOWNLOAD_AGAIN} from the link of the file "
            "itself (on Hugging Face .../resolve/main/..., not .../blob/main/...)"
        )
    if b"l\xfc\x9cF\xf9 j\xa8P\x19" in head[:20]:  # the magic number that torch.save wrote before 1.6
        raise Dav2Error(
            f"{path}: is in the format of torch before 1.6; re-save it with a current torch: "
            "torch.save(torch.load(old, weights_only=True), new)"
        )
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise Dav2Error(
            f"{path}: is a bare Python pickle{_first_call(head)}; loading one can run any code, so it is refused; "
            "have its author save the state_dict() with torch.save"
        )
    raise Dav2Error(f"{path}: is neither a torch (.pth) nor a safetensors file; it starts with {head[:8]!r}")


def _first_call(head: bytes) -> str:
    """What a pickle that begins like this asks to run first, for people: ' that asks to run os.system'."""
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(head):
            if opcode.name == "GLOBAL":
                return f" that asks to run {shown(argument.replace(' ', '.'))}"
            if opcode.name == "STACK_GLOBAL":
                return f" that asks to run {shown('.'.join(strings[-2:]))}"
            if isinstance(argument, str):
                strings.append(argument)
    except Exception:  # cut off, or no pickle after all
        pass
    return ""


def _open_shards(index: Path) -> dict[str, StoredTensor]:
    """The tensors of an index {"weight_map": {tensor: shard}}, which must say exactly what the shards hold."""
    if index.stat().st_size > HEADER_LIMIT:
        raise Dav2Error(f"{index}: is larger than {HEADER_LIMIT} bytes, which no index is")
    shard_of = json_object(index, index.read_bytes()).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of or not all(isinstance(s, str) for s in shard_of.values()):
        raise Dav2Error(f"{index}: has no 'weight_map' of tensor names to shard files; {DOWNLOAD_AGAIN}")
    shards = sorted(set(shard_of.values()))
    for shard in shards:
        if shard in ("", ".", "..") or any(character in shard for character in "/\\:\0"):
            raise Dav2Error(f"{index}: names the shard {shown(shard)}, which is not a plain file name; refused")
    missing = [shard for shard in shards if not (index.parent / shard).exists()]
    if missing:
        raise Dav2Error(
            f"{index}: names {len(missing)} of {len(shards)} shards that are not in the folder: "
            f"{', '.join(map(shown, missing[:4]))}; download them"
        )
    stored = {shard: read_content(index.parent / shard).content for shard in shards}
    wrong = [name for name, shard in shard_of.items() if name not in stored[shard]]
    wrong += [name for shard in shards for name in stored[shard] if shard_of.get(name) != shard]
    if wrong:
        names = ", ".join(map(shown, sorted(set(wrong))[:4]))
        raise Dav2Error(
            f"{index}: the index and the shards disagree about {len(set(wrong))} tensors ({names}); "
            "they are of different releases, download the folder again"
        )
    return {name: stored[shard][name] for name, shard in shard_of.items()}
