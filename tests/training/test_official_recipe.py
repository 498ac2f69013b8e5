"""Twenty steps of the official metric fine-tuning, in PyTorch and here, on the same weights and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from seeded import flatten

from dav2_jax import sharding
from dav2_jax.convert.torch_reference import _official_positions
from dav2_jax.training.optimizer import OptimizerConfig, make_optimizer
from dav2_jax.training.step import init_state, make_step
from dav2_jax.weights.load import load_weights

STEPS, LR = 20, 1e-4  # twenty times the official rate, so that twenty steps go somewhere
FLIPS = [0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1]  # of whole batches, as the script decides them


def batches() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    result = []
    for _ in range(STEPS):
        size = (2, 56, 70)
        image = rng.standard_normal((*size, 3), dtype=np.float32)
        depth = rng.uniform(0, 25, size).astype(np.float32)  # some beyond max_depth
        result.append({"image": image, "depth": depth, "valid": rng.random(size) < 0.8})
    return result


def in_pytorch(folder, out) -> list[float]:
    """What metric_depth/train.py does, step by step; the trained model is saved to `out`."""
    model = transformers.DepthAnythingForDepthEstimation.from_pretrained(folder, dtype=torch.float32).train()
    model.backbone.embeddings.interpolate_pos_encoding = _official_positions(torch, model.backbone.embeddings)
    named = list(model.named_parameters())
    encoder = [p for name, p in named if name.startswith("backbone.")]
    head = [p for name, p in named if not name.startswith("backbone.")]
    optimizer = torch.optim.AdamW(
        [{"params": encoder, "lr": LR}, {"params": head, "lr": LR * 10.0}], lr=LR, betas=(0.9, 0.999), weight_decay=0.01
    )
    losses = []
    for number, (batch, flip) in enumerate(zip(batches(), FLIPS, strict=True)):
        image = torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy())
        depth, valid = torch.from_numpy(batch["depth"]), torch.from_numpy(batch["valid"])
        if flip:
            image, depth, valid = image.flip(-1), depth.flip(-1), valid.flip(-1)
        mask = valid & (depth >= 0.001) & (depth <= 20)
        optimizer.zero_grad()
        g = torch.log(depth[mask]) - torch.log(model(image).predicted_depth[mask])
        loss = torch.sqrt((g**2).mean() - 0.5 * g.mean() ** 2)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        rate = LR * (1 - number / STEPS) ** 0.9
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, rate * 10.0
    model.save_pretrained(out)
    return losses


def silog(prediction, batch):
    depth = batch["depth"]
    mask = batch["valid"] & (depth >= 0.001) & (depth <= 20)
    g = jnp.where(mask, jnp.log(jnp.where(mask, depth, 1)) - jnp.log(jnp.where(mask, prediction, 1)), 0)
    count = mask.sum()
    return jnp.sqrt((g**2).sum() / count - 0.5 * (g.sum() / count) ** 2), {}


def test_twenty_steps_are_those_of_the_official_script(tiny_hf, tmp_path):
    folder = tiny_hf("metric")
    weights = load_weights(folder)
    start = jax.tree.map(np.array, weights.arrays())
    config = weights.config

    optimizer = make_optimizer(OptimizerConfig(steps=STEPS, encoder_lr=LR), config)
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = init_state(config, optimizer, mesh, jax.random.key(0), start)
    step = make_step(silog, config, optimizer, mesh)
    losses = []
    for batch, flip in zip(batches(), FLIPS, strict=True):
        state, metrics = step(state, {name: array[:, :, ::-1] if flip else array for name, array in batch.items()})
        losses.append(float(metrics["loss"]))

    expected = in_pytorch(folder, tmp_path / "trained")
    np.testing.assert_allclose(losses, expected, rtol=1e-4)

    # Where each parameter went, and not where it is: wrong rates, groups or decay would hardly show there.
    theirs, ours = flatten(load_weights(tmp_path / "trained").arrays()), flatten(state.params)
    # Of one parameter it says little: where a gradient is nearly 0, Adam enlarges its rounding.
    far = np.sqrt(sum(np.sum((theirs[name] - before) ** 2) for name, before in flatten(start).items()))
    apart = np.sqrt(sum(np.sum((theirs[name] - after) ** 2) for name, after in ours.items()))
    assert apart <= 1e-3 * far
