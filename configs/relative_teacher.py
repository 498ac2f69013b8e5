"""The teacher: relative depth from five synthetic datasets, sections 4 and 7.1 of the Depth Anything V2 paper.

    dav2 train relative_teacher --out runs/teacher --train blendedmvs:/data/blendedmvs hypersim:/data/hypersim \\
        irs:/data/irs tartanair:/data/tartanair vkitti2:/data/vkitti2

Data: 595,000 images, simply one after another and shuffled (no weights), sky as disparity 0. `dav2 data prepare` each
set first: then it is one random read an image.

As published: DINOv2 encoder and a fresh head, squares of 518, batch 64, 160,000 steps, 5e-6 and ten times that for the
head, L_ssi + 2 L_gm on disparity, flips only. Not published, and our choice: AdamW with decay 0.01 on matrices, linear
decay of the rate (V1's), clipping at 1, bfloat16.

Expected, abs_rel / d1 zero-shot, from Table 5 of the paper (trained on labeled synthetic images alone):
    S  KITTI .104/.889  NYU .084/.928       L  KITTI .081/.937  NYU .048/.976
    B  KITTI .094/.912  NYU .062/.963       G  KITTI .075/.947  NYU .044/.979

Cost of G (estimate: 3 x 4.5 TFLOP an image, 40 % of the peak): 138 EFLOP; 8 hours on v5e-64, 100 of one H100.
"""

from dav2_jax.training.recipe import Recipe

recipe = Recipe(
    encoder="giant",
    weights="dinov2-giant",
    head="fresh",
    train=("blendedmvs:blendedmvs", "hypersim:hypersim", "irs:irs", "tartanair:tartanair", "vkitti2:vkitti2"),
    validate=("hypersim:hypersim?split=val",),
    size=518,
    loss="relative",
    gradient_weight=2.0,
    steps=160_000,
    batch_size=64,
    encoder_lr=5e-6,
    head_factor=10.0,
    schedule="linear",
    weight_decay=0.01,
    decay="matrices",
    clip=1.0,
    dtype="bfloat16",
    remat="blocks",
    validate_every=5_000,
    save_every=2_000,
)
