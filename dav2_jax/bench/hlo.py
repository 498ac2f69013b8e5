"""What a program compiled for a TPU moves: read from XLA's text of it, in which every array has its layout.

A layout such as {3,0,2,1:T(8,128)(2,1)S(1)} names the dimensions from minor to major, the tiles that the minor ones
are padded to, and the memory: S(1) is the core's own, no S the HBM outside.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "s64": 8}
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_BARE = re.compile(r"(?:\w+\()*(.*?)\)*$")  # "transpose(jvp(head))" of a gradient is of the stage "head"
_FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "partition-id", "after-all"}


@dataclass(frozen=True)
class Traffic:
    """Bytes read from and written to HBM by one run of a program, by stage.

    The rules: an operation reads each of its operands once and writes its results once, with the padding of their
    layouts; what lies in the core's own memory costs nothing; a slice costs its own size.
    """

    by_stage: Counter[str]

    @property
    def total(self) -> int:
        return self.by_stage.total()


@dataclass(frozen=True)
class Collective:
    """Operations between chips of one kind, within groups of one size, in one run of a program.

    bytes: of the arrays as they are when nothing is split, without padding: what is added up by an all-reduce, what
           an all-gather makes, what a reduce-scatter begins with
    """

    kind: str
    chips: int  # of a group
    count: int
    bytes: int

    @property
    def sent(self) -> float:
        """The least that a chip sends to others, in bytes; an all-reduce is a reduce-scatter and an all-gather."""
        if self.kind == "collective-permute":
            return self.bytes
        return self.bytes * (2 if self.kind == "all-reduce" else 1) * (self.chips - 1) / self.chips


def traffic(text: str, stages: tuple[str, ...]) -> Traffic:
    """`text` of `compiled.as_text()`; stages: names given by `jax.named_scope`, of which the innermost counts."""
    computations, entry = _read(text)
    by_stage = Counter()

    def visit(name: str, times: int) -> None:
        types = {}
        for instruction, rest in computations[name]:
            kind, operation, operands, attributes = _split(rest)
            types[instruction] = kind
            if operation == "while":
                visit(_called(attributes, "body"), times * _trips(attributes))
            elif operation in ("call", "conditional"):
                for called in re.findall(r"to_apply=%?([\w.\-]+)", attributes):
                    visit(called, times)
            elif operation not in _FREE and not operation.endswith(("-done", "-update")):
                path = re.search(r'op_name="([^"]*)"', attributes)
                words = [_BARE.match(word)[1] for word in path[1].split("/")[::-1]] if path else []
                stage = next((word for word in words if word in stages), "other" if path else "prefetched weights")
                by_stage[stage] += times * _moved(
                    operation, kind, [types.get(one, "") for one in dict.fromkeys(operands)]
                )

    visit(entry, 1)
    return Traffic(by_stage)


def collectives(text: str) -> list[Collective]:
    """All operations between chips in `text` of `compiled.as_text()`, the largest kind first.

    Also those in fusions. One that is spread over a chain of fusions, to run beside them, is one; what XLA calls an
    all-reduce-scatter is a reduce-scatter.
    """
    computations, entry = _read(text)
    partitions = re.search(r"num_partitions=(\d+)", text)
    everyone = int(partitions[1]) if partitions else 1
    counts, sizes, seen = Counter(), Counter(), set()

    def visit(name: str, times: int) -> None:
        for _, rest in computations.get(name, ()):
            if "(" not in rest:
                continue
            kind, operation, _, attributes = _split(rest)
            if operation == "while":
                visit(_called(attributes, "body"), times * _trips(attributes))
                continue
            for called in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", attributes):
                visit(called, times)
            collective = next((one for one in COLLECTIVES if operation in (one, f"{one}-start")), None)
            if collective is None:
                continue
            if chain := re.search(r'chain_id="(\d+)"', attributes):
                if chain[1] in seen:
                    continue
                seen.add(chain[1])
            chips = _group(attributes) or everyone
            arrays = [_dense(*match.groups()[:2]) for match in _ARRAY.finditer(kind)]
            if operation == "collective-permute-start":
                arrays = arrays[1:2]
            elif operation == "all-gather-start":
                arrays = arrays[len(arrays) // 2 :]
            if collective == "reduce-scatter":
                arrays = [array * chips for array in arrays]
            elif name.startswith("all-reduce-scatter"):
                collective = "reduce-scatter"
            counts[collective, chips] += times
            sizes[collective, chips] += times * sum(arrays)

    visit(entry, 1)
    return [Collective(*key, counts[key], size) for key, size in sizes.most_common()]


def _group(attributes: str) -> int | None:
    """The number of chips that take part together; None where it is all of them.

    Written as {{0,1},{2,3}}, as [groups,chips]<=[...], or as axes of a mesh: mesh['a'=2,'b'=4] {'b'}.
    """
    if groups := re.search(r"replica_groups=\[(?:\d+,)*(\d+)\]<=", attributes):
        return int(groups[1])
    if groups := re.search(r"replica_groups=mesh\[([^\]]*)\](?:[^{]*) \{([^}]*)\}", attributes):
        axes = dict(re.findall(r"'(\w+)'=(\d+)", groups[1]))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", groups[2])
        return math.prod(int(part or axes[axis]) for axis, part in parts)
    if groups := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return groups[1].count(",") + 1
    return None


def _trips(attributes: str) -> int:
    """How often a loop runs, 1 where the compiler does not say."""
    trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', attributes)
    return int(trips[1]) if trips else 1


def _moved(operation: str, kind: str, operands: list[str]) -> int:
    """Bytes of HBM that one instruction reads and writes."""
    if operation.endswith("-start"):  # ((sources), result, ...): a copy in the background, of the size of its result
        arrays = [match[0] for match in _ARRAY.finditer(kind)]
        result = arrays[0] if operation == "copy-start" else arrays[-2 if arrays[-1].startswith(("u32", "s32")) else -1]
        sources = [array for array in arrays if array is not result][:1]
        return size(result) * (_in_hbm(result) + all(map(_in_hbm, sources)))
    arrays = [match[0] for text in (kind, *operands) for match in _ARRAY.finditer(text)]
    if operation in ("slice", "dynamic-slice", "gather"):
        return size(arrays[0]) * (_in_hbm(arrays[0]) + _in_hbm(arrays[1]))
    return sum(size(array) for array in arrays if _in_hbm(array))


def size(array: str) -> int:
    """Bytes of an array such as "bf16[8,148,148,64]{3,0,2,1:T(8,128)(2,1)}", with the padding of its tiles."""
    kind, shape, layout = _ARRAY.match(array).groups()
    dimensions = _dimensions(shape)
    order, _, tiles = (layout or "").partition(":")
    minor_first = [dimensions[int(axis)] for axis in order.split(",") if axis] or dimensions[::-1]
    tile = re.match(r"T\(([\d,]+)\)", tiles)
    tile = [int(number) for number in tile[1].split(",")][::-1] if tile and dimensions else []
    padded = [-(-length // side) * side for length, side in zip_longest(minor_first, tile, fillvalue=1)]
    return math.prod(padded) * BYTES.get(kind, 0)


def _dense(kind: str, shape: str) -> int:
    """Bytes of an array without padding."""
    return math.prod(_dimensions(shape)) * BYTES.get(kind, 0)


def _dimensions(shape: str) -> list[int]:
    return [int(number) for number in shape.split(",") if number]


def _in_hbm(array: str) -> bool:
    return "S(" not in array


def _called(attributes: str, role: str) -> str:
    return re.search(rf"{role}=%?([\w.\-]+)", attributes)[1]


def _read(text: str) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """The instructions of every computation, and the name of the first one to run."""
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            current.append(instruction.groups())
    return computations, entry


def _split(instruction: str) -> tuple[str, str, list[str], str]:
    """ "f32[2]{0} add(%a, %b), metadata={...}" as its type, operation, operands and attributes."""
    kind, rest = _first_word(instruction, " ")
    operation, rest = rest.split("(", 1)
    operands, attributes = _first_word(rest, ")")
    return kind, operation, re.findall(r"%([\w.\-]+)", operands), attributes


def _first_word(text: str, end: str) -> tuple[str, str]:
    """`text` before and after the first `end` outside of brackets."""
    depth = 0
    for place, character in enumerate(text):
        if character == end and depth == 0:
            return text[:place], text[place + 1 :]
        depth += (character in "([{") - (character in ")]}")
    return text, ""
