"""Bytes of a compiled program, on a program written by hand."""

import pytest

from dav2_jax.bench import hlo


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
  %y = f32[8,128]{1,0:T(8,128)S(1)} fusion(%x, %done, %x), kind=kOutput, metadata={op_name="jvp(head)/jvp(inner)/dot"}
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


EXCHANGES = """HloModule jit_step, is_scheduled=true, num_partitions=8

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[16,128]) -> f32[4,128] {
  %p = f32[16,128]{1,0:T(8,128)} parameter(0)
  %r = f32[16,128]{1,0:T(8,128)} all-reduce(%p), channel_id=3, replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %d = f32[4,128]{1,0:T(4,128)} dynamic-slice(%r), dynamic_slice_sizes={4,128}
}

%async_collective_fusion.1 (p: bf16[4,128]) -> bf16[16,128] {
  %p = bf16[4,128]{1,0} parameter(0)
  ROOT %g = bf16[16,128]{1,0} all-gather(%p), replica_groups=mesh['a'=2,'b'=4] {'b'}, frontend_attributes={chain_id="7"}
}

%async_collective_fusion.2 (p: bf16[4,128]) -> bf16[16,128] {
  %p = bf16[4,128]{1,0} parameter(0)
  ROOT %h = bf16[16,128]{1,0} all-gather(%p), replica_groups=mesh['a'=2,'b'=4] {'b'}, frontend_attributes={chain_id="7"}
}

%body (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %q = f32[4]{0} all-reduce(%p), channel_id=5, replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%sum
}

ENTRY %main (x: f32[16,128], k: bf16[4,128]) -> f32[4] {
  %x = f32[16,128]{1,0:T(8,128)} parameter(0)
  %k = bf16[4,128]{1,0} parameter(1)
  %e = f32[4,128]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %f = bf16[16,128]{1,0} fusion(%k), kind=kLoop, calls=%async_collective_fusion.1
  %i = bf16[16,128]{1,0} fusion(%f), kind=kLoop, calls=%async_collective_fusion.2
  %c = ((f32[4,128]{1,0}), f32[16,128]{1,0}) all-gather-start(%e), channel_id=6, replica_groups=[2,4]<=[8]
  %j = f32[16,128]{1,0} all-gather-done(%c)
  %t = (f32[3]{0}, f32[5]{0}) all-reduce(%x, %x), channel_id=1, to_apply=%sum
  %u = (f32[3]{0}, f32[5]{0}) all-reduce(%x, %x), channel_id=1, to_apply=%sum
  %v = f32[2]{0} reduce-scatter(%x), channel_id=8, replica_groups=[1,8]<=[8], to_apply=%sum
  ROOT %r = f32[4] while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"10"}}
}
"""


def test_collectives():
    found = {(one.kind, one.chips): (one.count, one.bytes) for one in hlo.collectives(EXCHANGES)}
    assert found == {
        ("reduce-scatter", 4): (1, 16 * 128 * 4),
        ("all-gather", 4): (2, 16 * 128 * 2 + 16 * 128 * 4),  # a chain of two fusions, and one that starts and is done
        ("all-reduce", 2): (10, 10 * 16),
        ("all-reduce", 8): (2, 64),
        ("reduce-scatter", 8): (1, 64),
    }


@pytest.mark.parametrize(
    ("kind", "sent"), [("all-gather", 75), ("reduce-scatter", 75), ("all-reduce", 150), ("collective-permute", 100)]
)
def test_sent(kind, sent):
    assert hlo.Collective(kind, chips=4, count=1, bytes=100).sent == sent
