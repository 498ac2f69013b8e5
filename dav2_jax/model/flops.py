"""How much arithmetic the model needs: the multiplications and additions of its matmuls and convolutions."""

from dav2_jax.model.config import PATCH, ModelConfig


def model_flops(config: ModelConfig, height: int, width: int) -> int:
    """Floating point operations for one image of height x width pixels, multiples of 14, through the whole network.

    A multiply-add is two. Norms, activations and resizes are left out: below 1 % at the released sizes.
    """
    h, w = height // PATCH, width // PATCH
    d, n, patches = config.width, h * w + 1, h * w
    matrices = 3 if config.ffn == "swiglu" else 2  # of width x hidden
    block = n * (4 * d * d + matrices * d * config.hidden) + 2 * n * n * d  # projections, scores and mixed values
    encoder = patches * 3 * PATCH * PATCH * d + config.depth * block
    if config.kind == "encoder":
        return 2 * encoder

    f, c = config.features, config.out_channels
    half = -(-h // 2) * -(-w // 2)  # of the coarsest map
    areas = (16 * patches, 4 * patches, patches, half)
    reassembled = patches * d * sum(c) + 16 * patches * c[0] ** 2 + 4 * patches * c[1] ** 2 + half * 9 * c[3] ** 2
    projected = sum(9 * area * channels * f for area, channels in zip(areas, c, strict=True))
    fused = sum(area * (units * 2 * 9 + 1) * f * f for area, units in zip(areas, (2, 2, 2, 1), strict=True))
    last = 64 * patches * 9 * f * (f // 2) + height * width * (9 * (f // 2) * 32 + 32)
    return 2 * (encoder + reassembled + projected + fused + last)
