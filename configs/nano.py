"""nano, stage 1 of 4: relative depth from scratch, on nothing but procedural scenes, at 70 pixels.

    make nano       # makes the scenes and trains all stages: by estimate five hours on two cores; stopped, it goes on

17,500 scenes are drawn once, because a network this small learns faster than a CPU draws. Most of what can be learnt
comes from small images, at a fraction of the cost: 70 pixels here, then nano_98, nano_182 and nano_252. The scenes
take 12 GB of memory (`cache`). Result: dav2_jax/assets/nano.md.
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
