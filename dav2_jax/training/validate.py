"""Validation: the nine metrics on held-out examples, and by tag where a source has tags."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dav2_jax import sharding
from dav2_jax.data import strong
from dav2_jax.data.augment import Geometry
from dav2_jax.data.loader import Loader
from dav2_jax.data.prefetch import prefetch_to_device
from dav2_jax.data.source import Source
from dav2_jax.evaluation import metrics
from dav2_jax.model import depth_anything
from dav2_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Validation:
    """Scores of parameters on sources: call it with parameters as the training state has them.

    Center crop at the training resolution, square unless there is a width: for comparing the steps of a run, and not
    comparable across resolutions or with published numbers. Predictions of relative models are aligned to each image,
    affinely in disparity; metric ones are scored from `near` to the model's max_depth, not aligned and not clipped.
    """

    config: ModelConfig
    mesh: jax.sharding.Mesh
    sources: tuple[Source, ...]
    size: int
    examples: int
    batch_size: int
    dtype: Any = jnp.float32
    near: float = 0.001
    width: int | None = None

    def __call__(self, params) -> dict[str, float]:
        """{"d1": .., "abs_rel": .., ..}, and "glass/d1" and the like; of several sources "NAME/d1" too."""
        found: dict[str, float] = {}
        everything: dict[str, Any] | None = None
        for source in self.sources:
            total = None
            with self._batches(source) as batches:
                for batch in batches:
                    # Not two at once: on several devices of one CPU each can hold the thread that the other waits for.
                    new = jax.block_until_ready(self._score(params, batch))
                    total = new if total is None else jax.tree.map(jnp.add, total, new)
            if total is None:
                continue
            everything = total if everything is None else _added(everything, total)
            if len(self.sources) > 1:
                found |= {f"{source.name}/{name}": value for name, value in metrics.mean(total["all"]).items()}
        for part, total in (everything or {}).items():
            prefix = "" if part == "all" else f"{part}/"
            if float(total["images"]):
                found |= {f"{prefix}{name}": value for name, value in metrics.mean(total).items()}
        return found

    def _batches(self, source: Source):
        some = spread(source, self.examples)
        tagged = "tag" in some[0]
        split = sharding.batch_sharding(self.mesh)
        geometry = Geometry(self.size, "depth", random=False, extra=("tag",) * tagged, width=self.width)
        loader = Loader(
            [some], self.batch_size, transform=geometry,
            shuffle=False, epochs=1, drop_remainder=False, workers=0, sharding=split,
        )  # fmt: skip
        return prefetch_to_device(loader, split)

    @functools.cached_property  # compiled once
    def _score(self) -> Callable:
        shardings = sharding.state_sharding(self.mesh, depth_anything.abstract_params(self.config))

        def share(params, images):
            return depth_anything.apply(
                self.config, sharding.collect(params, shardings, self.dtype), images, self.dtype
            )

        forward = sharding.over_batch(share, self.mesh, shardings)

        @jax.jit
        def score(params, batch):
            prediction = forward(params, strong.network_input(batch["image"]))
            depth, valid = batch["depth"], batch["valid"]
            if self.config.kind == "metric":
                valid = valid & (depth >= self.near) & (depth <= self.config.max_depth)
            else:
                prediction = metrics.align_affine(prediction, depth, valid)
            parts = {"all": metrics.image_metrics(prediction, depth, valid)}
            if "tag" in batch:
                parts |= metrics.tag_metrics(prediction, depth, valid, batch["tag"])
            return {name: metrics.totals(part) for name, part in parts.items()}

        return score


def spread(source: Source, count: int) -> Source:
    """The same source with `count` of its examples, at equal distances."""
    count = min(count, len(source))
    items: Sequence[Any] = [source.items[place * len(source) // count] for place in range(count)]
    return dataclasses.replace(source, items=items)


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Sums of two sources, of which one may have no tags."""
    both = {name: jax.tree.map(jnp.add, one[name], other[name]) for name in one.keys() & other.keys()}
    return one | other | both
