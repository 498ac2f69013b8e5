"""nano, stage 4 of 4: 2,200 steps on whole images of four sizes, up to 252 x 336.

    dav2 train nano_252 --out runs/nano-252     # `make nano` runs all stages, and converts this one for the package

Continues runs/nano-182 (configs/nano.py has the data and the cost).
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="nano",
    weights="runs/nano-182",
    train=("scenes/clean", "scenes/more", "scenes/worn"),
    validate=("scenes/held-out",),
    size=252,
    cache=True,
    loss="aligned",
    gradient_weight=1.0,
    steps=2200,
    batch_size=16,
    encoder_lr=8e-4,
    head_factor=1.0,
    schedule="linear",
    warmup=40,
    b2=0.99,
    matrices="muon",
    weight_decay=0.05,
    decay="matrices",
    clip=1.0,
    freeze="positions",
    ema=0.996,
    validate_every=400,
    save_every=250,
    validate_examples=256,
    width=336,
    heights=(252, 126, 252, 168, 252, 210),
)
