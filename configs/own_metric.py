"""Your own photos with depth in metres, on one device: metric depth, fine-tuned from a released metric model.

    dav2 data check 'own:mine.csv?scale=0.001'                                        # millimetres: what is in it?
    dav2 train own_metric --train 'own:mine.csv?scale=0.001' --out runs/mine          # rooms, up to 20 m
    dav2 train own_metric --train own:mine.csv --weights metric-outdoor-small --max-depth 80 --out runs/street

mine.csv has the columns image and depth. The loss ignores depth beyond --max-depth and unknown depth (0, NaN), so
sparse depth needs nothing special. For another range, or from the relative model as in the official training:
--weights small --head fresh --max-depth 40; the head then starts from random numbers and needs more photos and steps.

As the official metric training: SiLog, AdamW, 5e-6 and ten times that for the head. Different: fewer steps, warm-up,
clipping, a cosine schedule, and the first half of the encoder frozen, which a few hundred photos would only spoil.

No published numbers exist for this; compare the validation at step 0, before training, with that at the end. Cost as
own_data: two CPU cores take about a minute a step at this size, a quarter of that with --size 252.
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="small",
    kind="metric",
    max_depth=20.0,
    weights="metric-indoor-small",
    train=("own:mine.csv",),
    size=518,
    loss="silog",
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
