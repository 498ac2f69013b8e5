"""Which of a file's tensors are the network, and what the official code would call them.

Checkpoints wrap a network in two ways: in dicts (`model`, `ema`, `teacher.model`, ...) and in a prefix of every name
(`module.`, `_orig_mod.`, `net.`, ...). Neither is looked up in a list: a dict holds a network where its names contain a
patch embedding with what belongs to it, and the prefix is what stands before. One network is taken, with a note on what
was left out; of several, `entry` and `prefix` choose.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from dav2_jax.convert.recognize import other_network
from dav2_jax.convert.stored_tensor import StoredTensor, listed, shown
from dav2_jax.convert.torch_pickle import Opaque, described
from dav2_jax.errors import Dav2Error

# Modules that torch puts around others: DistributedDataParallel, EMA and AveragedModel; compile; FSDP.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
USUAL_ENTRIES = {"", "model", "state_dict"}  # taken without a word
_LEVELS = 6  # of dicts inside each other that are searched for a network

# What every ViT of DINOv2's has, last part of its name first; Hugging Face puts it all under `embeddings.`.
_ANCHORS = ("cls_token", "pos_embed", "patch_embed.proj.weight")
_HF_ANCHORS = ("cls_token", "position_embeddings", "patch_embeddings.projection.weight")
# What the two parts are called: in the official code, or else in Distill-Any-Depth, and in Video Depth Anything.
_ENCODERS, _HEADS = ("pretrained.", "backbone."), ("depth_head.", "head.")


class StateDict(NamedTuple):
    """The tensors of one network.

    tensors: name, without prefix and as the official code or Hugging Face calls it -> tensor
    notes:   what was chosen, left out or filled in, each for people
    entry, prefix: what chooses these tensors of the file again
    """

    tensors: dict[str, StoredTensor]
    notes: list[str]
    entry: str | None
    prefix: str | None


class _Network(NamedTuple):
    """A network among the names of one dict.

    parts: what encoder and head are called there, prefix left out -> in the official code
    whole: an encoder with its head, not an encoder alone
    """

    prefix: str
    parts: tuple[tuple[str, str], ...] = ()
    whole: bool = False

    def owns(self, name: str) -> bool:
        return name.startswith(self.prefix)

    def official(self, name: str) -> str:
        """A name without its prefix, and by the official parts: `backbone.blocks.0.3.` -> `pretrained.blocks.3.`."""
        name = name.removeprefix(self.prefix)
        for theirs, ours in self.parts:
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
                break
        # DINOv2's block_chunks: chunk, then the index among all blocks.
        return re.sub(r"^((?:pretrained\.)?blocks\.)\d+\.(\d+\.)", r"\1\2", name)


def select(where: str, content: dict, entry: str | None = None, prefix: str | None = None) -> StateDict:
    """The tensors of the network in what a file holds: dicts in each other, with StoredTensor leaves.

    entry:  the dict to take, dotted where it lies in others; None where only one holds a network
    prefix: what to take off its names; None where only one network is in it
    Raises Dav2Error where nothing is chosen or several networks are there, and for a network of another kind.
    """
    dicts = dict(_tensor_dicts(where, content, entry))
    found = {path: _networks(names) for path, (names, _) in dicts.items()}
    chosen_prefix = None if prefix is None else _prefix_of(prefix)
    if chosen_prefix is not None:
        found = {path: [n for n in networks if n.prefix == chosen_prefix] for path, networks in found.items()}
    # An encoder of its own beside a whole model is a teacher or a copy: the model is what is wanted.
    if any(network.whole for networks in found.values() for network in networks):
        found = {path: [n for n in networks if n.whole] for path, networks in found.items()}
    fitting = {path: networks for path, networks in found.items() if networks}
    if len(fitting) > 1:
        raise Dav2Error(
            f"{where}: holds {len(fitting)} sets of weights: {listed(fitting, quote=True)}; "
            f"choose one, for example entry={list(fitting)[-1]!r}"
        )
    if not fitting:
        if prefix is not None:
            some = listed(next(iter(dicts.values()))[0])
            raise Dav2Error(f"{where}: no network under the prefix {shown(prefix)} (its tensors: {some})")
        return _unrecognized(where, content, dicts)
    ((path, networks),) = fitting.items()
    names, skipped = dicts[path]
    if len(networks) > 1:
        prefixes = [network.prefix for network in networks]
        raise Dav2Error(
            f"{where}: holds {len(networks)} networks, under the prefixes {listed(prefixes, quote=True)}; "
            f"choose one, for example prefix={prefixes[-1]!r}"
        )
    network = networks[0]
    if other := other_network(name for name in names if prefix is None or network.owns(name)):
        raise Dav2Error(f"{where}: {other}")
    return _weights(where, path, names, skipped, network)


def _weights(where: str, path: str, names: dict[str, StoredTensor], skipped: dict, network: _Network) -> StateDict:
    for name, value in skipped.items():
        if isinstance(value, Opaque) and value.is_tensor and _canonical(name).startswith(network.prefix):
            raise Dav2Error(f"{where}: {shown(name)} is {described(value)}, which is not read: save it as plain floats")
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in names.items():
        if network.owns(name):
            official = network.official(name)
            if official in tensors:
                raise Dav2Error(f"{where}: two of its tensors are {shown(official)} once the prefixes are off")
            tensors[official] = tensor
    notes = []
    if path not in USUAL_ENTRIES:
        notes.append(f"took the weights under {shown(path)}")
    if set(network.prefix.split(".")) - WRAPPERS - {""}:
        notes.append(f"dropped the prefix {shown(network.prefix)}")
    if left_out := [name for name in names if not network.owns(name)]:
        notes.append(f"left out {len(left_out)} tensors beside the network: {listed(left_out)}")
    if skipped:
        each = listed(f"{name} ({described(value)})" for name, value in skipped.items())
        notes.append(f"skipped {len(skipped)} entries that are no tensors: {each}")
    return StateDict(_with_mask_token(tensors, notes), notes, path or None, network.prefix or None)


def _with_mask_token(tensors: dict[str, StoredTensor], notes: list[str]) -> dict[str, StoredTensor]:
    """Zeros where it is missing: DINOv2's training is all that reads it, and some code deletes it."""
    for name, tensor in tensors.items():
        head, _, last = name.rpartition("cls_token")
        if not last and head in ("", "pretrained.", "backbone.embeddings.", "embeddings."):
            mask = f"{head}mask_token"
            if mask not in tensors and tensor.shape:
                notes.append(f"{mask} is missing; filled with zeros, as inference never reads it")
                return tensors | {mask: StoredTensor.of(np.zeros((1, tensor.shape[-1]), tensor.dtype))}
    return tensors


def _tensor_dicts(where: str, content: dict, entry: str | None) -> Iterator[tuple[str, tuple[dict, dict]]]:
    """Dotted path -> (canonical name -> tensor, name -> what is no tensor) of each dict that holds tensors.

    With `entry`, only of the dict of that path and what it holds.
    """
    found: dict[str, tuple[dict, dict]] = {}
    level: list[tuple[str, object]] = [("", content)]
    seen = {id(content)}
    for _ in range(_LEVELS):
        below: list[tuple[str, object]] = []
        for path, container in level:
            items = list(container.items() if isinstance(container, dict) else enumerate(container))
            tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, StoredTensor)}
            if tensors and isinstance(container, dict):
                found[path] = (tensors, {_key(key): value for key, value in items if key not in tensors})
            for key, value in items:
                if isinstance(value, dict | list | tuple) and id(value) not in seen:
                    seen.add(id(value))
                    below.append((f"{path}.{_key(key)}".lstrip("."), value))
        level = below
    if entry is not None:
        inside = {p: v for p, v in found.items() if p == entry or p.startswith(f"{entry}.") or entry == ""}
        if not inside:
            there = listed((path for path in found if path), quote=True) if any(found) else "none"
            raise Dav2Error(f"{where}: no tensors under entry {shown(entry)}; entries with tensors: {there}")
        found = {entry: inside[entry]} if entry in inside else inside
    for path, (tensors, others) in found.items():
        canonical: dict[str, StoredTensor] = {}
        for name, tensor in tensors.items():
            if (short := _canonical(name)) in canonical:
                raise Dav2Error(f"{where}: two of its tensors are {shown(short)} once torch's wrappers are off")
            canonical[short] = tensor
        yield path, (canonical, others)


def _key(key: object) -> str:
    return key if isinstance(key, str) else key.name if isinstance(key, Opaque) else str(key)


def _canonical(name: str) -> str:
    """Without the wrappers inside: `module.pretrained._orig_mod.norm.bias` -> `module.pretrained.norm.bias`."""
    if "_" not in name and "module" not in name:
        return name
    parts = name.split(".")
    lead = 0
    while lead < len(parts) and parts[lead] in WRAPPERS:
        lead += 1
    return ".".join([*parts[:lead], *(part for part in parts[lead:] if part not in WRAPPERS)])


def _prefix_of(prefix: str) -> str:
    """What the caller calls it, in the form that _networks gives: with a dot at its end."""
    return f"{_canonical(prefix.rstrip('.'))}." if prefix.strip(".") else ""


def _networks(names: Mapping[str, StoredTensor]) -> list[_Network]:
    """The networks among the names of a dict, in their order there."""
    roots: dict[tuple[str, bool], None] = {}
    for name in names:
        for anchors, hf in ((_HF_ANCHORS, True), (_ANCHORS, False)):
            for anchor in anchors:
                full = f"embeddings.{anchor}" if hf else anchor
                root = name.removesuffix(full)
                if root != name and (not root or root.endswith(".")) and (hf or not root.endswith("embeddings.")):
                    roots[root, hf] = None
    networks: dict[_Network, None] = {}
    for root, hf in roots:
        if not any(name.startswith(root + ("encoder.layer." if hf else "blocks.")) for name in names):
            continue
        networks[_hf_network(root, names) if hf else _official_network(root, names)] = None
    return list(networks)


def _hf_network(root: str, names: Iterable[str]) -> _Network:
    above = root.removesuffix("backbone.")
    if above != root and any(name.startswith(f"{above}neck.") for name in names):
        return _Network(above, whole=True)
    return _Network(root)


def _official_network(root: str, names: Iterable[str]) -> _Network:
    for encoder in _ENCODERS:
        above = root.removesuffix(encoder)
        if above == root or (above and not above.endswith(".")):
            continue
        for head in _HEADS:
            if any(name.startswith((f"{above}{head}projects.", f"{above}{head}scratch.")) for name in names):
                return _Network(above, ((encoder, "pretrained."), (head, "depth_head.")), whole=True)
    return _Network(root)


def _unrecognized(where: str, content: dict, dicts: dict[str, tuple[dict, dict]]) -> StateDict:
    """Tensors that are no network known here: those of the dict that is meant most likely, for an error by name."""
    if not dicts:
        first = itertools.islice(content.items(), 8)  # of a stranger's million only these are put into words
        held = [f"{_key(name)} ({described(value)})" for name, value in first] + [""] * (len(content) - 8)
        pickled = any(isinstance(value, Opaque) and "." in value.name for value in content.values())
        hint = "; of a pickled model, save model.state_dict()" if pickled else ""
        raise Dav2Error(
            f"{where}: holds {listed(held, most=8) or 'nothing'}; expected named tensors, or a checkpoint with them "
            f"under 'model' or 'state_dict'{hint}"
        )
    path = next((path for path in ("model", "state_dict", "") if path in dicts), next(iter(dicts)))
    names, skipped = dicts[path]
    if other := other_network(names):
        raise Dav2Error(f"{where}: {other}")
    for name, value in skipped.items():
        if isinstance(value, Opaque) and value.is_tensor:
            raise Dav2Error(f"{where}: {shown(name)} is {described(value)}, which is not read: save it as plain floats")
    while names and (first := next(iter(names)).partition(".")[0]) in WRAPPERS:
        if not all(name.startswith(f"{first}.") for name in names):
            break
        names = {name.removeprefix(f"{first}."): tensor for name, tensor in names.items()}
    return StateDict(dict(names), [], path or None, None)
