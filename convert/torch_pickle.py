"""The pickle inside a torch zip: protocols 2 to 4 as torch.save writes them, and nothing that could run.

The pickle says which tensor views which storage. It is interpreted here, by a machine that knows the opcodes torch.save
writes and the functions that rebuild tensors. Nothing is imported and no code of the file runs: every other object
(argparse.Namespace, Counter, torch.device, NumPy scalars and arrays, classes of someone's own) becomes an `Opaque`,
which holds its class name and none of its content. Python's own unpickler is not used: behind an allow-list it still
lets a file set attributes on the allowed classes, reserve 64 GB with one memo opcode, and crash the process by hashing
a nested tuple.
"""

import re
import struct
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from dav2_jax.convert.stored_tensor import DOWNLOAD_AGAIN, TORCH_STORAGES, Storage, StoredTensor, shown
from dav2_jax.convert.torch_zip import Archive
from dav2_jax.errors import Dav2Error

_DEPTH_LIMIT = 64  # dicts and lists inside each other
# Bounds time and memory: a pickle may be long where it holds text or arrays, but each opcode may make an object.
_OPCODE_LIMIT = 1 << 20  # 750 tensors and their AdamW state take 97,000; the worst million took 12 s and 160 MiB


@dataclass(frozen=True)
class _Global:
    """A class or function the pickle names. It stays a name: nothing is imported."""

    name: str


@dataclass(frozen=True, eq=False)
class Opaque:
    """An object of the file that was skipped, not built: `name` is its class, or the function that would build it.

    Hashed by identity, so that it can stand for a dict key of any type.
    """

    name: str

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor of a kind that is not read: sparse, quantized, complex, distributed."""
        return bool(re.match(r"tensor |torch\._utils\._rebuild|torch\.distributed\.|torch\.\w+ tensor$", self.name))


# The only names that mean anything here. `torch.Tensor` and `torch.nn.parameter.Buffer` are arguments, never called.
_CALLS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "torch.Size",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch._tensor._rebuild_from_type_v2",
}
# torch._utils._rebuild_tensor_v3 views untyped bytes as one of these; others stay opaque.
_VIEWED_AS = {
    "torch.uint16": np.dtype(np.uint16),
    "torch.uint32": np.dtype(np.uint32),
    "torch.uint64": np.dtype(np.uint64),
    "torch.float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "torch.float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}

# A file that names one of these wants to do something, and is refused whole. It is a warning to its reader, not what
# keeps them safe: nothing named by a file is ever called.
_HARMFUL_MODULES = {
    "os", "posix", "nt", "subprocess", "sys", "shutil", "runpy", "importlib", "pty", "socket", "ctypes", "code",
    "codeop", "pdb", "bdb", "timeit", "pickle", "_pickle", "marshal", "webbrowser", "pip", "operator", "_operator",
    "functools", "types", "builtins", "io", "_io",
}  # fmt: skip
_HARMLESS_BUILTINS = {
    "set", "frozenset", "bytes", "bytearray", "complex", "slice", "range", "xrange", "list", "tuple", "dict", "int",
    "long", "float", "bool", "str", "unicode", "object", "Ellipsis", "NotImplemented",
    "getattr",  # how Python 3.11 pickles a member of an Enum
}  # fmt: skip
_HARMLESS = {f"builtins.{name}" for name in _HARMLESS_BUILTINS} | {
    "functools.partial",
    "types.SimpleNamespace",
    "io.BytesIO",
    "_io.BytesIO",
    "io.StringIO",
    "_io.StringIO",
}


def unpickle_archive(archive: Archive) -> dict:
    """What the data.pkl of the archive describes: dicts, lists and plain values, with StoredTensor leaves.

    Whatever else it holds is an Opaque. Raises Dav2Error if it is damaged, is no dict at its top, or names a function
    that does harm.
    """
    data = archive.small("data.pkl")
    try:
        content = _Machine(data, archive).run()
        _check_tree(content)
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        reason = shown(str(error)) if type(error) is ValueError else f"{type(error).__name__} in it"
        raise Dav2Error(f"{archive.path}: its data.pkl is damaged or forged ({reason}); {DOWNLOAD_AGAIN}") from error
    if not isinstance(content, dict):
        raise Dav2Error(f"{archive.path}: holds {described(content)}, not a dict of tensors: save model.state_dict()")
    return content


def described(value: object) -> str:
    """What a value of a file is, for people: 'a list', 'an argparse.Namespace', 'a tensor'."""
    if isinstance(value, _Global):
        return f"the name {shown(value.name)[1:-1]}"
    if isinstance(value, Opaque):
        name = shown(value.name)[1:-1]
    else:
        name = "tensor" if isinstance(value, StoredTensor) else type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


_CONTAINERS = (dict, list, tuple)


def _check_tree(content: object) -> None:
    """ValueError if containers nest deeper than any checkpoint, or inside themselves. Level by level: no recursion."""
    level = [content]
    for _ in range(_DEPTH_LIMIT):
        children: dict[int, object] = {}  # by id: a container that is in many places is looked at once a level
        for item in level:
            if isinstance(item, _CONTAINERS):
                inside = item.values() if isinstance(item, dict) else item
                children.update((id(child), child) for child in inside if isinstance(child, _CONTAINERS))
        level = list(children.values())
        if not level:
            return
    raise ValueError(f"it nests deeper than {_DEPTH_LIMIT} levels")


class _Machine:
    """A stack machine for one pickle. Its values are None, bool, int, float, str, tuple, list, dict, _Global, Opaque,
    Storage and StoredTensor; no opcode can make, call or change anything else. Malformed input raises one of the
    exceptions that unpickle_archive turns into a message."""

    def __init__(self, data: bytes, archive: Archive):
        self.data, self.at, self.archive = data, 0, archive
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict = {}
        self.storages: dict[tuple, Storage] = {}

    def run(self) -> object:
        """The pickled object."""
        stack, memo, push = self.stack, self.memo, self.stack.append
        for _ in range(_OPCODE_LIMIT):
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
                case b"\x8b":  # LONG4: of more digits than any weight needs
                    self.take(self.number("<I"))
                    push(Opaque("int"))
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
                case b"R" | b"\x81":  # REDUCE, NEWOBJ
                    arguments = stack.pop()
                    push(self.call(stack.pop(), arguments))
                case b"\x92":  # NEWOBJ_EX
                    _, _, made = stack.pop(), stack.pop(), stack.pop()
                    push(Opaque(self.name_of(made)))
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
                    state = stack.pop()
                    if type(stack[-1]) is not Opaque and not (type(state) is dict and type(stack[-1]) is dict):
                        raise ValueError("it sets attributes on something that is not a dict")
                case b"c":  # GLOBAL
                    module, name = self.line(), self.line()
                    push(self.find_global(module, name))
                case b"\x93":  # STACK_GLOBAL
                    name, module = stack.pop(), stack.pop()
                    push(self.find_global(module, name))
                case b"\x8c":  # SHORT_BINUNICODE
                    push(self.take(self.number("B")).decode("utf-8"))
                case b"\x8d":  # BINUNICODE8
                    push(self.take(self.number("<Q")).decode("utf-8"))
                case b"C" | b"B" | b"\x8e" | b"\x96":  # SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
                    self.take(self.number({b"C": "B", b"B": "<I"}.get(opcode, "<Q")))
                    push(Opaque("bytearray" if opcode == b"\x96" else "bytes"))
                case b"\x8f":  # EMPTY_SET
                    push(Opaque("set"))
                case b"\x90":  # ADDITEMS
                    self.since_mark()
                case b"\x91":  # FROZENSET
                    self.since_mark()
                    push(Opaque("frozenset"))
                case b"0":  # POP
                    stack.pop()
                case b"1":  # POP_MARK
                    self.since_mark()
                case b"2":  # DUP
                    push(stack[-1])
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
        raise ValueError(f"it has more than {_OPCODE_LIMIT} opcodes")

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
        if type(target) is Opaque:
            return
        if type(target) is not dict:
            raise ValueError("it sets an item of something that is not a dict")
        # Any other key could be a tuple so deep that hashing it ends Python; it keeps its place and not its value.
        keys = [key if type(key) in _KEYS else Opaque(type(key).__name__) for key in items[::2]]
        target.update(zip(keys, items[1::2], strict=True))

    def extend(self, items: list) -> None:
        if type(self.stack[-1]) is Opaque:
            return
        if type(self.stack[-1]) is not list:
            raise ValueError("it appends to something that is not a list")
        self.stack[-1].extend(items)

    def find_global(self, module: object, name: object) -> _Global:
        if type(module) is not str or type(name) is not str:
            raise ValueError("it asks for a name that is not text")
        # Pickle protocols up to 2 spell Python's builtins as Python 2 did.
        module = "builtins" if module == "__builtin__" else module
        full = f"{module}.{name}"
        if module.partition(".")[0] in _HARMFUL_MODULES and full not in _HARMLESS:
            raise Dav2Error(
                f"{self.archive.path}: asks to run {shown(full)[1:-1]}; a checkpoint of tensors does not; refused. "
                "If you trust it, save its tensors alone with torch.save(model.state_dict(), ...)"
            )
        return _Global(full.replace("torch.cuda.", "torch.", 1) if name.endswith("Storage") else full)

    def name_of(self, value: object) -> str:
        if type(value) is not _Global:
            raise ValueError("it calls something that is not a function")
        return value.name

    def find_storage(self, wanted: object) -> Storage | Opaque:
        """The zip entry of a persistent id ('storage', class, key, device, element count)."""
        tag, kind, key, _, count = wanted
        if tag != "storage" or type(kind) is not _Global or type(key) is not str or type(count) is not int:
            raise ValueError("it refers to something that is not a storage")
        if not kind.name.endswith("Storage"):
            raise ValueError("it refers to something that is not a storage")
        if kind.name not in TORCH_STORAGES:  # complex or quantized
            return Opaque(kind.name)
        storage = self.storages.get((key, kind))
        if storage is None:
            storage = self.storages[key, kind] = self.archive.storage(f"data/{key}", TORCH_STORAGES[kind.name])
        if storage.count != count:
            raise ValueError(f"storage {shown(key)} has {storage.count} elements, not {shown(count)}")
        return storage

    def call(self, function: object, arguments: object) -> object:
        """What the call gives where it rebuilds a tensor or a dict; an Opaque for everything else."""
        name = self.name_of(function)
        if type(arguments) is not tuple:
            raise ValueError("it calls with something that is not arguments")
        if name not in _CALLS:
            return Opaque(name)
        match name.rpartition(".")[2], arguments:  # _CALLS has no last part twice
            case "OrderedDict", ():
                return {}
            case "defaultdict", () | (_,):
                return {}
            case "Size", (tuple() as shape,):
                return shape
            # then requires_grad, hooks and perhaps metadata: {"neg": True} where values are stored negated
            case "_rebuild_tensor_v2", (_, _, _, _, _, _, dict() as metadata) if metadata:
                return Opaque("tensor with its sign or conjugation pending")
            case "_rebuild_tensor_v2", (Storage() | Opaque() as storage, offset, shape, strides, _, _, *_):
                return self.tensor(storage, offset, shape, strides)
            case "_rebuild_tensor", (Storage() | Opaque() as storage, offset, shape, strides):
                return self.tensor(storage, offset, shape, strides)
            case "_rebuild_tensor_v3", (
                Storage() | Opaque() as storage, offset, shape, strides, _, _, _Global() as dtype, *_
            ):  # fmt: skip
                if dtype.name not in _VIEWED_AS or type(storage) is Opaque:
                    return Opaque(f"{dtype.name} tensor")
                return self.tensor(storage.viewed_as(_VIEWED_AS[dtype.name]), offset, shape, strides)
            case "_rebuild_parameter", (StoredTensor() | Opaque() as tensor, _, _):
                return tensor
            case "_rebuild_parameter_with_state", (StoredTensor() | Opaque() as tensor, _, _, _):
                return tensor
            case "_rebuild_device_tensor_from_cpu_tensor", (StoredTensor() | Opaque() as tensor, _, _, _):
                return tensor
            case "_rebuild_from_type_v2", (_Global() as rebuild, _Global(), tuple() as inner, _):
                if rebuild.name.endswith("_rebuild_from_type_v2"):
                    raise ValueError("it nests tensor subclasses")
                return self.call(rebuild, inner)
        raise ValueError(f"it calls {name} with other arguments than torch.save does")

    def tensor(self, storage: Storage | Opaque, offset: object, shape: object, strides: object) -> object:
        if type(shape) is not tuple or type(strides) is not tuple:
            raise ValueError("a tensor has an impossible shape")
        if type(storage) is Opaque:
            return Opaque(f"tensor in a {storage.name}")
        return storage.tensor(shape, strides, offset)


_KEYS = (str, int, float, bool, type(None), Opaque)
