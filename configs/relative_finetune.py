"""Relative depth, fine-tuned from a released model on data of another domain: dense labels that can be trusted.

    dav2 train relative_finetune --train own:mine.csv --validate own:held_out.csv --out runs/domain
    dav2 train relative_finetune --train 'procedural?count=20000' --out runs/try      # no data needed

Small steps over all layers keep what the model knows: a tenth of the published rates, warm-up, an average of the
parameters. Sharp labels matter more than many: of real sensors' depth the edges are wrong, and the paper found that 5 %
of such labels destroy fine detail (section B.9). For those, own_data, which freezes the first blocks, is safer.

Expected: no published numbers; compare the first and the last validation. Cost of S (estimate: 0.34 TFLOP an image and
step): 0.03 EFLOP, minutes on one H100, about two days on two CPU cores.
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="small",
    weights="small",
    train=("own:mine.csv",),
    size=518,
    loss="relative",
    gradient_weight=2.0,
    steps=5_000,
    batch_size=16,
    encoder_lr=5e-7,
    head_factor=10.0,
    schedule="cosine",
    warmup=250,
    decay="matrices",
    clip=1.0,
    ema=0.999,
    validate_every=500,
    save_every=500,
)
