"""Your own photos with depth, sparse or dense, on one device: relative depth, fine-tuned from the released small model.

For depth in metres: own_metric.

    dav2 train own_data --train own:mine.csv --validate own:held_out.csv --out runs/mine

mine.csv has the columns image and depth (and scale, as 0.001 for 16-bit PNG in millimetres); `dav2 data check
own:mine.csv` says whether it is fit. Without a network, give --weights the path of a .pth.

The first half of the encoder is frozen: a few hundred photos are enough to adapt the rest, and too few to improve
features learned from 62 million. No published numbers exist for this; compare the validation at
step 0, before training, with that at the end. Two CPU cores take about a minute a step at this size; --size 252 is a
quarter of that and for a first try enough.
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="small",
    weights="small",
    train=("own:mine.csv",),
    size=518,
    batch_size=4,
    steps=2000,
    encoder_lr=5e-6,
    head_factor=10.0,
    schedule="cosine",
    warmup=100,
    clip=1.0,
    freeze="6",
    validate_every=200,
    save_every=200,
)
