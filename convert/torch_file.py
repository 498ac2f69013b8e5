"""PyTorch and safetensors weights without torch: lazily, one tensor at a time, and without running a line of the file.

    weights = open_weights("depth_anything_v2_vits.pth")     # a file, or a folder as Hugging Face lays it out
    weights["pretrained.cls_token"].read()                   # the first time that more than headers is read

Every file is treated as a stranger's. This is the door: which kind of file, which of its entries, which files of a
folder. The kinds are read by torch_zip and torch_pickle (`.pth`), and by safetensors_file.
"""

import os
import pickletools
from pathlib import Path

from dav2_jax.convert.safetensors_file import json_object, open_safetensors
from dav2_jax.convert.stored_tensor import DOWNLOAD_AGAIN, HEADER_LIMIT, StoredTensor, shown
from dav2_jax.convert.torch_pickle import unpickle_archive
from dav2_jax.convert.torch_zip import Archive
from dav2_jax.errors import Dav2Error


def open_weights(path: str | os.PathLike) -> dict[str, StoredTensor]:
    """The named tensors of a weights file or folder, in stored order; reads headers only.

    A file is a torch zip (`.pth .pt .bin .ckpt`) or safetensors, told by its content. Of a training checkpoint the
    `model` or else `state_dict` entry counts, and a `module.` in front of every name is dropped. A folder holds
    `model.safetensors` or `pytorch_model.bin`, or one of these in shards with its `.index.json`.
    Raises Dav2Error, one line with the path, for everything else.
    """
    path = Path(path).absolute()
    try:
        return _open_folder(path) if path.is_dir() else _open_file(path)
    except OSError as error:
        raise Dav2Error(f"{path}: cannot be read ({error.strerror or error})") from error


def read_torch_file(path: str | os.PathLike) -> dict:
    """What torch.save stored (torch 1.6 or newer): nested dicts, lists and plain values, with StoredTensor leaves.

    Raises Dav2Error if the file is damaged, is not such a file, or asks for anything but tensors.
    """
    path = Path(path).absolute()
    try:
        if _kind(path) != "torch":
            raise Dav2Error(f"{path}: is a safetensors file, not one of torch.save; use open_weights")
        return unpickle_archive(Archive(path))
    except OSError as error:
        raise Dav2Error(f"{path}: cannot be read ({error.strerror or error})") from error


def _kind(path: Path) -> str:
    """'torch' or 'safetensors' by the first bytes. The usual wrong files get an error that says what they are."""
    if not path.exists():
        raise Dav2Error(f"{path}: no such file or folder")
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


def _open_file(path: Path) -> dict[str, StoredTensor]:
    if _kind(path) == "safetensors":
        return open_safetensors(path)
    return _state_dict(path, unpickle_archive(Archive(path)))


def _state_dict(path: Path, stored: dict) -> dict[str, StoredTensor]:
    for entry in ("model", "state_dict"):
        if isinstance(stored.get(entry), dict):
            stored = stored[entry]
            break
    if not any(isinstance(value, StoredTensor) for value in stored.values()):
        names = ", ".join(shown(name) for name in list(stored)[:8]) or "nothing"
        raise Dav2Error(
            f"{path}: holds {names}; expected named tensors, or a checkpoint with them under 'model' or 'state_dict'"
        )
    for name, value in stored.items():
        if not isinstance(name, str) or not isinstance(value, StoredTensor):
            raise Dav2Error(
                f"{path}: {shown(name)} is no named tensor but a {type(value).__name__} under a "
                f"{type(name).__name__}; save the model's state_dict() alone"
            )
    if all(name.startswith("module.") for name in stored):  # what DistributedDataParallel adds
        stored = {name.removeprefix("module."): tensor for name, tensor in stored.items()}
    return dict(stored)


def _open_folder(folder: Path) -> dict[str, StoredTensor]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return _open_file(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            return _open_shards(index)
    raise Dav2Error(
        f"{folder}: holds no weights; expected model.safetensors or pytorch_model.bin, or one of them in shards "
        "with its .index.json; or give the file itself"
    )


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
    stored = {shard: _open_file(index.parent / shard) for shard in shards}
    wrong = [name for name, shard in shard_of.items() if name not in stored[shard]]
    wrong += [name for shard in shards for name in stored[shard] if shard_of.get(name) != shard]
    if wrong:
        names = ", ".join(map(shown, sorted(set(wrong))[:4]))
        raise Dav2Error(
            f"{index}: the index and the shards disagree about {len(set(wrong))} tensors ({names}); "
            "they are of different releases, download the folder again"
        )
    return {name: stored[shard][name] for name, shard in shard_of.items()}
