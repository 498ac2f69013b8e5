"""The model that comes with this package: relative depth from scratch, on nothing but procedural scenes.

    make nano       # makes the scenes and trains: by estimate five hours on two cores; stopped, it goes on

The Makefile has its commands: 17,500 scenes, drawn once, because a network this small learns faster than a CPU draws;
then this recipe, with images of 70 pixels; a while with 98; with 182 and the loss `aligned`; and with whole images of
four sizes, up to 252 x 336. Most of what there is to learn is learnt from small images, at a fraction of the cost. The
scenes take 12 GB of memory (`cache`). What came of it: dav2_jax/assets/nano.md.
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="nano",
    train=("scenes/clean", "scenes/more", "scenes/worn"),
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
    matrices="muon",
    weight_decay=0.05,
    decay="matrices",
    clip=1.0,
    freeze="positions",
    ema=0.995,
    validate_every=1000,
    save_every=250,
    validate_examples=256,
)
