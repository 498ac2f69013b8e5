"""Metric depth of rooms, as the official training on Hypersim: `metric_depth/dist_train.sh` of Depth Anything V2.

    dav2 train metric_hypersim --out runs/h \\
        --train hypersim:/data/hypersim --validate 'hypersim:/data/hypersim?split=val'
    dav2 train metric_hypersim ... --encoder small --weights small           # or base; large is the official one

Data: Hypersim as unpacked by its authors (`dav2_jax/data/readers/hypersim.py` has the tree); `dav2 data prepare` once
makes reading faster. The official script takes fixed cameras; with the camera table in the folder, depth is exact for
tilted cameras too.

As there: the encoder of the relative model under a fresh head, SiLog, AdamW with decay on all parameters, 5e-6 and ten
times that, poly 0.9, no warm-up, no clipping, batch 32, 120 epochs over 59,543 images, depth to 20 m, float32.
Different: each image is flipped by its own chance (there the whole batch), hosts see one global order.

Expected: no number was published for this script. Table 4 of the paper is on NYU Depth V2 with ZoeDepth's pipeline
(L: d1 .984, abs_rel .056), which is another recipe.

Cost (estimate: 3 x the forward's 1.29 TFLOP an image, 40 % of the peak in bfloat16): 28 EFLOP; 100 hours of one v5e
chip or 20 of one H100, so 3 hours on v5e-32. --dtype bfloat16 is a departure from the official float32.
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="large",
    kind="metric",
    max_depth=20.0,
    weights="large",
    head="fresh",
    train=("hypersim:hypersim",),
    validate=("hypersim:hypersim?split=val",),
    size=518,
    loss="silog",
    steps=223_200,  # 120 epochs of 1,860 batches
    batch_size=32,
    encoder_lr=5e-6,
    head_factor=10.0,
    schedule="poly",
    weight_decay=0.01,
    validate_every=1_860,
    save_every=1_860,
)
