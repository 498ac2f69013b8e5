"""Pickles that mean harm or are damaged run nothing, cost nothing, and end in one Dav2Error line."""

import collections
import os
import random

import numpy as np
import pytest
import torch
from torch_forger import Payload, Reference, forge, opcode_text, pickled, tensor
from weight_checks import assert_refused, assert_same, outcome, read_all

from dav2_jax.convert.torch_file import read_content
from dav2_jax.errors import Dav2Error


@pytest.mark.parametrize("protocol", [3, 4])
def test_newer_pickle_protocols(tmp_path, protocol):
    torch.save({"a": torch.arange(4.0), "long" * 100: torch.ones(1)}, tmp_path / "a.pth", pickle_protocol=protocol)
    assert_same(tmp_path / "a.pth", {"a": torch.arange(4.0), "long" * 100: torch.ones(1)})


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("function", ["system", "eval", "exec", "open"])
def test_no_code_runs(tmp_path, function, protocol):
    proof = tmp_path / "proof"
    payload, name = {
        "system": (Payload(os.system, f"touch {proof}"), f"{os.name}.system"),
        "eval": (Payload(eval, f"open({str(proof)!r}, 'w')"), "builtins.eval"),
        "exec": (Payload(exec, f"open({str(proof)!r}, 'w')"), "builtins.exec"),
        "open": (Payload(open, str(proof), "w"), ".open"),
    }[function]
    torch.save({"a": torch.ones(2), "b": payload}, tmp_path / "a.pth", pickle_protocol=protocol)
    assert_refused(tmp_path / "a.pth", f"asks to run {'' if name[0] == '.' else name}", name, "refused")
    assert not proof.exists()


def test_the_forger_makes_good_files(tmp_path):
    path = forge(tmp_path / "a.pth", {"a": tensor((3, 2), (1, 3)), "b": tensor((2,), (0,), offset=5)})
    weights = read_all(path)
    assert weights["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert weights["b"].tolist() == [5, 5]


@pytest.mark.parametrize(
    "forged",
    [
        tensor((7,), (1,)),  # longer than its storage
        tensor((2,), (6,)),
        tensor((6,), (1,), offset=1),
        tensor((1,), (1,), offset=6),
        tensor(((64 << 20) // 4 + 1,), (0,)),  # of one number, which is fine up to 64 MiB
        tensor((1 << 40,), (0,)),
        tensor((1 << 20, 1 << 20), (0, 0)),
        tensor((0, 1 << 62, 1 << 62), (1, 1, 1)),
        tensor((1,) * 65, (1,) * 65),
        tensor((-1,), (1,)),
        tensor((-2, -3), (3, 1)),
        tensor((2,), (-1,), offset=5),
        tensor((2,), (1,), offset=-1),
        tensor((2,), (1, 1)),
        tensor((2.0,), (1,)),
        tensor((True,), (1,)),
        tensor(("ab",), (1,)),
        tensor(((2,),), (1,)),
        tensor([2], [1]),
        tensor((2,), (1,), offset=None),
        tensor((2,), (1,), extra=()),
        tensor((6,), (1,), count=5),
        tensor((6,), (1,), count=7),
        tensor((6,), (1,), kind=torch.DoubleStorage),  # 24 bytes hold three
        tensor((6,), (1,), count="6"),
        tensor((6,), (1,), key="1"),
        tensor((6,), (1,), key=0),
        tensor((6,), (1,), kind=collections.OrderedDict),
        tensor((6,), (1,), kind="FloatStorage"),
        Reference("module", torch.FloatStorage, "0", "cpu", 6),
        Reference("storage", torch.FloatStorage, "0", "cpu"),
        Payload(torch._utils._rebuild_parameter, 1, True, None),
        Payload(torch._utils._rebuild_tensor_v2, 1, 0, (1,), (1,), False, None),
        Payload(collections.OrderedDict, [("a", 1)]),
        Payload(torch.Size, 5),
    ],
)
def test_forged_tensors(tmp_path, forged):
    assert_refused(forge(tmp_path / "a.pth", {"good": tensor((6,), (1,)), "bad": forged}))


CYCLE = b"\x80\x02}q\x00" + opcode_text("a") + b"h\x00s."
LAUGHS = b"\x80\x02)" + b"".join(b"q\x00h\x00\x86" for _ in range(200)) + b"."  # a tree of 2**200 leaves


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b".",
        b"\x80\x02",
        b"\x80\x02}",
        b"\x80",
        b"\x80\x02t.",
        b"\x80\x02(((.",
        b"\x80\x02h\x05.",
        b"\x80\x02R.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02}K\x01K\x02e.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02K\x01K\x02K\x03s.",
        b"\x80\x02X\xff\xff\xff\xff.",
        b"\x80\x02X\x02\x00\x00\x00\xc3\x28.",
        b"\x80\x02}r\xff\xff\xff\xff" + b"Nb.",
        b"\x80\x02N}b.",
        b"\x80\x02ccollections\nOrderedDict\n}" + opcode_text("x") + b"K\x01sb.",  # attributes on a class
        b"\x80\x02ccollections\nOrderedDict",
        b"\x80\x02" + opcode_text("builtins.eval") + opcode_text("1") + b"\x85R.",
        b"\x80\x04})\x93.",
        b"\x80\x04)" + b"\x85" * 200_000 + opcode_text("x") + b"\x93.",  # printing this name would recurse
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BYTEARRAY8 of 2**63 bytes
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # LONG4
        b"(I1\nos\n.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02)" + b"\x85" * 200_000 + b".",
        CYCLE,
        LAUGHS,
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)" + b"\x85" * 9999 + b"R.",
        b"\x80\x02)" + b"\x85" * 9999 + b"Q.",
    ],
)
def test_forged_pickles(tmp_path, forged):
    path = forge(tmp_path / "a.pth", forged)
    assert_refused(path, "data.pkl is damaged or forged")
    with pytest.raises(Dav2Error, match="damaged or forged"):
        read_content(path)


def test_names_in_messages_are_short_and_printable(tmp_path):
    path = forge(tmp_path / "a.pth", b"\x80\x04" + opcode_text("os\n\x1b[2J") + opcode_text("x" * 10_000) + b"\x93.")
    assert_refused(path, r"holds the name os\n\x1b[2J.xxx")
    path = forge(tmp_path / "b.pth", {"a\n" * 1000: 1})
    assert_refused(path, r"holds a\na\n", "...; expected")


def test_damaged_pickles_with_right_checksums(tmp_path):
    path, chance = tmp_path / "a.pth", random.Random(2)
    content = pickled({"model": {"a": tensor((3, 2), (1, 3)), "b": tensor((2,), (1,))}, "list": [1, 2.5]})
    for _ in range(3000):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 5])):
            at = chance.randrange(len(content))
            damaged[at : at + chance.choice([0, 1, 1, 1, 3])] = chance.randbytes(1)
        outcome(forge(path, bytes(damaged)))


def test_keys_are_never_hashed_by_what_they_hold(tmp_path):
    path = forge(tmp_path / "a.pth", b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.")  # hashing it ends Python
    assert_refused(path, "holds tuple (a NoneType); expected named tensors")


def test_too_many_opcodes(tmp_path, monkeypatch):
    monkeypatch.setattr("dav2_jax.convert.torch_pickle._OPCODE_LIMIT", 100)
    assert_refused(forge(tmp_path / "a.pth", b"\x80\x02" + b"N0" * 50 + b"."), "more than 100 opcodes")


def test_text_beside_the_tensors_may_be_long(tmp_path):
    """A NumPy array lies in the pickle itself, as text."""
    content = {"a": torch.ones(2), "history": np.arange(1 << 20)}
    torch.save(content, tmp_path / "a.pth")
    assert read_all(tmp_path / "a.pth")["a"].tolist() == [1, 1]
