"""nano, stage 2 of 4: 2,500 steps more at 98 pixels.

    dav2 train nano_98 --out runs/nano-98       # `make nano` runs all stages

Continues runs/nano-70 (configs/nano.py has the data and the cost).
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="nano",
    weights="runs/nano-70",
    train=("scenes/clean", "scenes/more", "scenes/worn"),
    validate=("scenes/held-out",),
    size=98,
    cache=True,
    loss="fixed_scale",
    gradient_weight=0.2,
    steps=2500,
    batch_size=16,
    encoder_lr=7e-4,
    head_factor=1.0,
    schedule="cosine",
    warmup=100,
    b2=0.99,
    matrices="muon",
    weight_decay=0.05,
    decay="matrices",
    clip=1.0,
    freeze="positions",
    ema=0.995,
    validate_every=500,
    save_every=250,
    validate_examples=256,
)
