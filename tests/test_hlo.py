"""Bytes of a compiled program, on a program written by hand."""

import pytest

from dav2_jax import hlo


@pytest.mark.parametrize(
    ("array", "size"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 4096),
        ("bf16[8,148,148,64]{3,0,2,1:T(8,128)(2,1)}", 148 * 148 * 8 * 128 * 2),  # 64 channels take 128 lanes
        ("bf16[8,148,148,64]{2,3,1,0:T(8,128)(2,1)S(1)}", 8 * 148 * 64 * 256 * 2),  # 148 columns take 256
        ("f32[100]{0:T(128)}", 512),
        ("f32[3,5]{1,0}", 60),
        ("f32[]", 4),
        ("token[]", 0),
    ],
)
def test_size(array, size):
    assert hlo.size(array) == size


PROGRAM = """
%body (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %twice = f32[8,128]{1,0:T(8,128)} fusion(%p), kind=kLoop, metadata={op_name="jit(f)/head/while/body/mul"}
}

ENTRY %main (x: f32[8,128], w: f32[64,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %w = f32[64,128]{1,0:T(8,128)} parameter(1)
  %start = ((f32[64,128]{1,0:T(8,128)}), f32[32,128]{1,0:T(8,128)S(1)}, s32[]{:T(128)}) slice-start(%w), slice={[0:32]}
  %done = f32[32,128]{1,0:T(8,128)S(1)} slice-done(%start)
  %y = f32[8,128]{1,0:T(8,128)S(1)} fusion(%x, %done, %x), kind=kOutput, metadata={op_name="jit(f)/head/inner/dot"}
  %gathered = f32[16,128]{1,0:T(8,128)S(1)} all-gather(%y), metadata={op_name="jit(f)/y"}
  %z = f32[8,128]{1,0:T(8,128)} add(%y, %y), metadata={op_name="jit(f)/add"}
  ROOT %r = f32[8,128]{1,0:T(8,128)} while(%z), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_traffic():
    moved = hlo.traffic(PROGRAM, ("head", "inner"))
    assert moved.by_stage == {
        "prefetched weights": 32 * 512,  # the slice, not all of it
        "inner": 4096,  # x, once; the rest is on the chip
        "other": 4096,  # z; what was gathered stays on the chip
        "head": 5 * 2 * 4096,
    }
    assert moved.total == sum(moved.by_stage.values())
    assert moved.collectives == 1
