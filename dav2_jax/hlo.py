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
_FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "partition-id", "after-all"}


@dataclass(frozen=True)
class Traffic:
    """Bytes read from and written to HBM by one run of a program, by stage, and its operations between chips.

    The rules: an operation reads each of its operands once and writes its results once, with the padding of their
    layouts; what lies in the core's own memory costs nothing; a slice costs its own size.
    """

    by_stage: Counter[str]
    collectives: int

    @property
    def total(self) -> int:
        return self.by_stage.total()


def traffic(text: str, stages: tuple[str, ...]) -> Traffic:
    """`text` of `compiled.as_text()`; stages: names given by `jax.named_scope`, of which the innermost counts."""
    computations, entry = _read(text)
    by_stage = Counter()

    def visit(name: str, times: int) -> int:
        types, collectives = {}, 0
        for instruction, rest in computations[name]:
            kind, operation, operands, attributes = _split(rest)
            types[instruction] = kind
            if operation == "while":
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', attributes)
                collectives += visit(_called(attributes, "body"), times * int(trips[1]) if trips else times)
            elif operation in ("call", "conditional"):
                collectives += sum(visit(called, times) for called in re.findall(r"to_apply=%?([\w.\-]+)", attributes))
            elif operation not in _FREE and not operation.endswith(("-done", "-update")):
                collectives += operation.startswith(COLLECTIVES)
                path = re.search(r'op_name="([^"]*)"', attributes)
                words = path[1].split("/")[::-1] if path else []
                stage = next((word for word in words if word in stages), "other" if path else "prefetched weights")
                by_stage[stage] += times * _moved(
                    operation, kind, [types.get(one, "") for one in dict.fromkeys(operands)]
                )
        return collectives

    return Traffic(by_stage, visit(entry, 1))


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
    dimensions = [int(number) for number in shape.split(",") if number]
    order, _, tiles = (layout or "").partition(":")
    minor_first = [dimensions[int(axis)] for axis in order.split(",") if axis] or dimensions[::-1]
    tile = re.match(r"T\(([\d,]+)\)", tiles)
    tile = [int(number) for number in tile[1].split(",")][::-1] if tile and dimensions else []
    padded = [-(-length // side) * side for length, side in zip_longest(minor_first, tile, fillvalue=1)]
    return math.prod(padded) * BYTES.get(kind, 0)


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
