"""The ONE table of accelerators: what a chip can do, from its maker's data sheet."""

from dataclasses import dataclass, field

_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_DEEP = {1: "1x1x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8"}


@dataclass(frozen=True)
class Chip:
    """One chip.

    kind:      how `jax.Device.device_kind` begins
    flops:     FLOP/s of dense products in bfloat16
    bandwidth: of HBM, bytes/s
    memory:    of HBM, bytes
    links:     bytes/s that it can send to other chips
    shapes:    of TPU slices, number of chips -> arrangement; a slice can be compiled for ahead of time

    Sources: the tables "System architecture" of https://cloud.google.com/tpu/docs/v4, .../v5e, .../v5p and .../v6e,
    which give the interconnect in both directions together, over all links of a chip (400, 1200 and 800 GB/s for the
    last three); NVIDIA's data sheets of A100, H100 and H200 (SXM), without sparsity.
    """

    kind: str
    flops: float
    bandwidth: float | None = None
    memory: float | None = None
    links: float | None = None
    shapes: dict[int, str] = field(default_factory=dict)


CHIPS = {
    "v4": Chip("TPU v4", 275e12),
    "v5e": Chip("TPU v5 lite", 197e12, 819e9, 16e9, 200e9, _FLAT),
    "v5p": Chip("TPU v5", 459e12, 2765e9, 95e9, 600e9, _DEEP),
    "v6e": Chip("TPU v6 lite", 918e12, 1640e9, 32e9, 400e9, _FLAT),
    "A100": Chip("NVIDIA A100", 312e12),
    "H100": Chip("NVIDIA H100", 989e12),
    "H200": Chip("NVIDIA H200", 989e12),
}
SLICES = {name: chip for name, chip in CHIPS.items() if chip.shapes}  # what `bench --aot` compiles for


def peak_flops(device_kind: str) -> float | None:
    """FLOP/s of a device by its `device_kind`; None where it is not known, as of CPUs."""
    return next((chip.flops for chip in CHIPS.values() if device_kind.startswith(chip.kind)), None)
