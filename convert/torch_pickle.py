"""The pickle inside a torch zip: protocols 2 to 4 as torch.save writes them, and nothing that could run.

The pickle says which tensor views which storage. It is interpreted here, by a machine that knows the opcodes torch.save
writes and four functions. Python's own unpickler is not used: behind an allow-list it still lets a file set attributes
on the allowed classes, reserve 64 GB with one memo opcode, and crash the process by hashing a nested tuple.
"""

import struct
from dataclasses import dataclass

from dav2_jax.convert.stored_tensor import DOWNLOAD_AGAIN, TORCH_STORAGES, Storage, StoredTensor, shown
from dav2_jax.convert.torch_zip import Archive
from dav2_jax.errors import Dav2Error

_DEPTH_LIMIT = 64  # dicts and lists inside each other


@dataclass(frozen=True)
class _Global:
    """A name the pickle asks for. Only the names below are known, and they stay names: nothing is imported."""

    name: str


_CALLS = {
    "collections.OrderedDict",
    "torch.Size",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
}


def unpickle_archive(archive: Archive) -> dict:
    """What the data.pkl of the archive describes: dicts, lists and plain values, with StoredTensor leaves.

    Raises Dav2Error if it is damaged, is no dict at its top, or asks for anything but tensors.
    """
    data = archive.small("data.pkl")
    try:
        content = _Machine(data, archive).run()
        _check_tree(content)
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        reason = shown(str(error)) if type(error) is ValueError else f"{type(error).__name__} in it"
        raise Dav2Error(f"{archive.path}: its data.pkl is damaged or forged ({reason}); {DOWNLOAD_AGAIN}") from error
    if not isinstance(content, dict):
        raise Dav2Error(f"{archive.path}: holds a {type(content).__name__}, not a dict of tensors; save a state_dict()")
    return content


_CONTAINERS = (dict, list, tuple, _Global, Storage)


def _check_tree(content: object) -> None:
    """ValueError if containers nest deeper than any checkpoint, or inside themselves. Level by level: no recursion."""
    level = [content]
    for _ in range(_DEPTH_LIMIT):
        children: dict[int, object] = {}  # by id: a container that is in many places is looked at once a level
        for item in level:
            if isinstance(item, _Global | Storage):
                raise ValueError("it holds a bare storage or class, not a tensor")
            if isinstance(item, dict | list | tuple):
                inside = item.values() if isinstance(item, dict) else item
                children.update((id(child), child) for child in inside if isinstance(child, _CONTAINERS))
        level = list(children.values())
        if not level:
            return
    raise ValueError(f"it nests deeper than {_DEPTH_LIMIT} levels")


class _Machine:
    """A stack machine for one pickle. Its values are None, bool, int, float, str, tuple, list, dict, _Global, Storage
    and StoredTensor; no opcode can make, call or change anything else. Malformed input raises one of the exceptions
    that unpickle_archive turns into a message."""

    def __init__(self, data: bytes, archive: Archive):
        self.data, self.at, self.archive = data, 0, archive
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict = {}
        self.storages: dict[tuple, Storage] = {}

    def run(self) -> object:
        """The pickled object."""
        stack, memo, push = self.stack, self.memo, self.stack.append
        while True:
            match opcode := self.take(1):
                case b"q":  # BINPUT
                    memo[self.number("B")] = stack[-1]
                case b"h":  # BINGET
                    push(memo[self.number("B")])
                case b"(":  # MARK
                    self.marks.append(len(stack))
                case b"X":  # BINUNICODE
                    push(self.take(self.number("<I")).decode("utf-8"))
                case b"K":  # BININT1
                    push(self.number("B"))
                case b"M":  # BININT2
                    push(self.number("<H"))
                case b"J":  # BININT
                    push(self.number("<i"))
                case b"\x8a":  # LONG1
                    push(int.from_bytes(self.take(self.number("B")), "little", signed=True))
                case b"G":  # BINFLOAT
                    push(self.number(">d"))
                case b"r":  # LONG_BINPUT
                    memo[self.number("<I")] = stack[-1]
                case b"j":  # LONG_BINGET
                    push(memo[self.number("<I")])
                case b"t":  # TUPLE
                    push(tuple(self.since_mark()))
                case b"\x85" | b"\x86" | b"\x87":  # TUPLE1, TUPLE2, TUPLE3
                    push(tuple(reversed([stack.pop() for _ in range(opcode[0] - 0x84)])))
                case b")":  # EMPTY_TUPLE
                    push(())
                case b"}":  # EMPTY_DICT
                    push({})
                case b"]":  # EMPTY_LIST
                    push([])
                case b"N":  # NONE
                    push(None)
                case b"\x88" | b"\x89":  # NEWTRUE, NEWFALSE
                    push(opcode == b"\x88")
                case b"Q":  # BINPERSID
                    push(self.find_storage(stack.pop()))
                case b"R":  # REDUCE
                    arguments = stack.pop()
                    push(self.call(stack.pop(), arguments))
                case b"s":  # SETITEM
                    value, key = stack.pop(), stack.pop()
                    self.set_items([key, value])
                case b"u":  # SETITEMS
                    self.set_items(self.since_mark())
                case b"a":  # APPEND
                    self.extend([stack.pop()])
                case b"e":  # APPENDS
                    self.extend(self.since_mark())
                case b"b":  # BUILD: the attributes of an OrderedDict (_metadata of a state dict), which are not kept
                    if not isinstance(stack.pop(), dict) or not isinstance(stack[-1], dict):
                        raise ValueError("it sets attributes on something that is not a dict")
                case b"c":  # GLOBAL
                    module, name = self.line(), self.line()
                    push(self.find_global(module, name))
                case b"\x93":  # STACK_GLOBAL
                    name, module = stack.pop(), stack.pop()
                    push(self.find_global(module, name))
                case b"\x8c":  # SHORT_BINUNICODE
                    push(self.take(self.number("B")).decode("utf-8"))
                case b"\x94":  # MEMOIZE
                    memo[len(memo)] = stack[-1]
                case b"\x80":  # PROTO
                    self.take(1)
                case b"\x95":  # FRAME
                    self.take(8)
                case b".":  # STOP
                    return stack.pop()
                case _:
                    raise ValueError(f"pickle opcode {opcode!r} at byte {self.at - 1} is none that torch.save writes")

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise ValueError("it ends early")
        self.at += count
        return piece

    def number(self, layout: str):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.data.index(b"\n", self.at)
        text = self.data[self.at : end].decode("utf-8")
        self.at = end + 1
        return text

    def since_mark(self) -> list:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not dict or any(type(key) not in (str, int) for key in items[::2]):
            raise ValueError("it has a dict key that is neither text nor a number")
        target.update(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("it appends to something that is not a list")
        self.stack[-1].extend(items)

    def find_global(self, module: object, name: object) -> _Global:
        if type(module) is not str or type(name) is not str:
            raise ValueError("it asks for a name that is not text")
        # Pickle protocols up to 2 spell Python's builtins as Python 2 did.
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full in _CALLS or full in TORCH_STORAGES:
            return _Global(full)
        raise Dav2Error(
            f"{self.archive.path}: asks to run {shown(full)[1:-1]}; a checkpoint of tensors does not; refused. "
            "If you trust it, save its tensors alone with torch.save(model.state_dict(), ...)"
        )

    def find_storage(self, wanted: object) -> Storage:
        """The zip entry of a persistent id ('storage', class, key, device, element count)."""
        tag, kind, key, _, count = wanted
        if tag != "storage" or type(kind) is not _Global or type(key) is not str or type(count) is not int:
            raise ValueError("it refers to something that is not a storage")
        storage = self.storages.get((key, kind))
        if storage is None:
            storage = self.storages[key, kind] = self.archive.storage(f"data/{key}", TORCH_STORAGES[kind.name])
        if storage.count != count:
            raise ValueError(f"storage {shown(key)} has {storage.count} elements, not {shown(count)}")
        return storage

    def call(self, function: object, arguments: tuple) -> object:
        if type(function) is not _Global or type(arguments) is not tuple:
            raise ValueError("it calls something that is not a function")
        match function.name.rpartition(".")[2], arguments:  # _CALLS has no last part twice
            case "OrderedDict", ():
                return {}
            case "Size", (tuple() as shape,):
                return shape
            # then requires_grad, hooks and perhaps metadata
            case "_rebuild_tensor_v2", (Storage() as storage, offset, tuple() as shape, tuple() as strides, _, _, *_):
                return storage.tensor(shape, strides, offset)
            case "_rebuild_parameter", (StoredTensor() as tensor, _, _):
                return tensor
        raise ValueError(f"it calls {function.name} with other arguments than torch.save does")
