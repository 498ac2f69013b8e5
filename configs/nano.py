"""The model that comes with this package: relative depth from scratch, on nothing but procedural scenes.

    make nano       scenes and all, some hours on two cores; it goes on where it was stopped

which is, one after the other:

    dav2 data prepare 'procedural?count=9000&seed=1&height=126&width=168' scenes/clean             # 10 minutes, 2 cores
    dav2 data prepare 'procedural?count=4000&seed=2&height=126&width=168&style=worn' scenes/worn
    dav2 data prepare 'procedural?count=256&seed=7001&height=126&width=168' scenes/held-out
    dav2 train nano --out runs/nano-70                                      # small images: most of the learning
    dav2 train nano --out runs/nano-98 --weights runs/nano-70 --size 98 --steps 4000
    dav2 train nano --out runs/nano --weights runs/nano-98 --size 126 --steps 2000 --loss relative --gradient-weight 2

The scenes are made once, because a network this small learns faster than a CPU draws.
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="nano",
    train=("scenes/clean", "scenes/worn"),
    validate=("scenes/held-out",),
    size=70,
    cache=True,
    loss="fixed_scale",
    gradient_weight=0.2,
    steps=10_000,
    batch_size=16,
    encoder_lr=1.5e-3,
    head_factor=1.0,
    schedule="cosine",
    warmup=300,
    b2=0.99,
    weight_decay=0.05,
    decay="matrices",
    clip=1.0,
    freeze="positions",
    ema=0.995,
    validate_every=1000,
    save_every=250,
    validate_examples=256,
)
