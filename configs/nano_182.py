"""nano, stage 3 of 4: 3,000 steps at 182 pixels, with the loss of the benchmarks' alignment.

    dav2 train nano_182 --out runs/nano-182     # `make nano` runs all stages

Continues runs/nano-98 (configs/nano.py has the data and the cost).
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="nano",
    weights="runs/nano-98",
    train=("scenes/clean", "scenes/more", "scenes/worn"),
    validate=("scenes/held-out",),
    size=182,
    cache=True,
    loss="aligned",
    gradient_weight=0.2,
    steps=3000,
    batch_size=16,
    encoder_lr=8e-4,
    head_factor=1.0,
    schedule="constant",
    warmup=60,
    b2=0.99,
    matrices="muon",
    weight_decay=0.05,
    decay="matrices",
    clip=1.0,
    freeze="positions",
    ema=0.9975,
    validate_every=500,
    save_every=250,
    validate_examples=256,
)
