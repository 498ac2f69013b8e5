"""The model that comes with this package: relative depth from scratch, on nothing but procedural scenes.

    dav2 data prepare 'procedural?count=9000&seed=1&height=126&width=168' scenes/clean             # 10 minutes, 2 cores
    dav2 data prepare 'procedural?count=4000&seed=2&height=126&width=168&style=worn' scenes/worn
    dav2 data prepare 'procedural?count=256&seed=7001&height=126&width=168' scenes/held-out
    dav2 train nano --train scenes/clean scenes/worn --validate scenes/held-out --out runs/nano

The scenes are made once, because a network this small learns faster than a CPU draws.
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="nano",
    train=("scenes/clean", "scenes/worn"),
    validate=("scenes/held-out",),
    size=126,
    loss="relative",
    gradient_weight=2.0,
    steps=4_000,
    batch_size=16,
    encoder_lr=1e-3,
    head_factor=1.0,
    schedule="cosine",
    warmup=200,
    weight_decay=0.05,
    decay="matrices",
    clip=1.0,
    ema=0.998,
    validate_every=500,
    save_every=250,
    validate_examples=256,
)
