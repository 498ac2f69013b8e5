"""What a run starts from: its folder, its sources as labeled, and the weights it is given."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dav2_jax import sharding
from dav2_jax.convert.weights import Weights
from dav2_jax.data.example import TAGS, Example
from dav2_jax.data.source import Source
from dav2_jax.data.sources import open_source
from dav2_jax.errors import Dav2Error
from dav2_jax.files import atomic
from dav2_jax.model.config import PRESETS, ModelConfig
from dav2_jax.model.depth_anything import Params
from dav2_jax.training import features
from dav2_jax.training import recipe as recipes
from dav2_jax.training.recipe import Recipe
from dav2_jax.weights.load import load_weights

# Fields that may differ when a run goes on: they change its speed or its reports, and not its result.
FREE = {
    "workers",
    "cache",
    "remat",
    "fsdp",
    "log_every",
    "validate_every",
    "save_every",
    "validate",
    "validate_examples",
}


def sources(recipe: Recipe, texts: tuple[str, ...]) -> tuple[Source, ...]:
    """Opened. Raises Dav2Error for depth without metres where they are to be learnt."""
    opened = tuple(map(open_source, texts))
    for text, source in zip(texts, opened, strict=True):
        if recipe.kind == "metric" and source.unit != "metres":
            raise Dav2Error(f"{text}: kind=metric needs depth in metres, and the unit of these labels is {source.unit}")
    return opened


def labeled_by(label: str, source: Source) -> Source:
    """The source with the labels that `Recipe.label` asks for."""
    if label == "depth":
        return source
    surfaces = None if label == "sensor" else tuple(TAGS.index(name) for name in ("thin", "glass", "mirror"))
    return dataclasses.replace(source, read=functools.partial(_sensed, source.read, surfaces))


def _sensed(read: Callable[[Any], Example], surfaces: tuple[int, ...] | None, item: Any) -> Example:
    """The example with what a depth camera would have measured in place of its depth: on these tags, or everywhere."""
    example = read(item)
    if "sensor_depth" not in example:
        raise Dav2Error(f"{example['id']}: has no sensor_depth: train with label=depth")
    sensor = example["sensor_depth"]
    where = True if surfaces is None else np.isin(example["tag"], surfaces)
    return example | {
        "depth": np.where(where, sensor, example["depth"]),
        "valid": np.where(where, sensor > 0, example["valid"]),
    }


def kept_in_memory(source: Source) -> Source:
    """The same source; an example once read stays in memory, in this process, as far as training needs it.

    For sets that fit and are read many times: decoding 126 x 168 pixels of records takes 3.4 ms, a step of `nano` 10 ms
    an image.
    """
    return dataclasses.replace(source, items=range(len(source)), read=_Kept(source))


_NEEDED = {"id", "image", "depth", "disparity", "valid"}


class _Kept:
    def __init__(self, source: Source):
        self.source, self.seen = source, {}

    def __call__(self, index: int) -> Example:
        if index not in self.seen:
            example = self.source.read(self.source.items[index])
            self.seen[index] = {name: value for name, value in example.items() if name in _NEEDED}
        return self.seen[index]


def settle_folder(run: Path, recipe: Recipe, network: Network) -> None:
    """Makes the folder of a run, or makes sure that it is one of this recipe, unless nothing was saved in it yet."""
    path = run / "recipe.json"
    if run.is_file():
        raise Dav2Error(f"{run}: is a file: name a folder")
    try:
        if path.exists() and any((run / "checkpoints").glob("*")):
            before, now = (dataclasses.asdict(one) for one in (recipes.from_json(path.read_text("utf-8")), recipe))
            differ = [f"{name} was {before[name]!r}" for name in now if name not in FREE and before[name] != now[name]]
            if differ:
                further = f"; weights={run} with another folder trains it further" if "steps was" in str(differ) else ""
                raise Dav2Error(
                    f"{run}: holds a run of another recipe ({'; '.join(differ)}): choose another folder, or delete it"
                    + further
                )
        if sharding.is_first():
            run.mkdir(parents=True, exist_ok=True)
            model = {"model": dataclasses.asdict(network.config), "license": network.license}
            for file, text in (
                (path, recipes.to_json(recipe)),
                (run / "model.json", json.dumps(model, indent=2) + "\n"),
            ):
                with atomic(file) as temporary:
                    temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Dav2Error(f"{run}: cannot be written ({error.strerror}): choose another folder") from error
    except (ValueError, TypeError) as error:
        raise Dav2Error(f"{path}: is not a recipe of this version ({error}): choose another folder") from error


@dataclasses.dataclass(frozen=True)
class Network:
    """What is trained, and from what.

    params: what there is to start from: all parameters, those of the encoder, or none; and a frozen encoder, where the
            recipe names one. Leaves as in `Weights`. Empty for a run that goes on
    """

    config: ModelConfig
    license: str
    params: Params


def network(recipe: Recipe, run: Path) -> Network:
    """From the weights that the recipe names; of a run that goes on, from its own folder, without those weights.

    The encoder's size, and with head="keep" the blocks that feed the head, are those of the weights. Raises Dav2Error
    for weights of another size than the recipe's, and for a head that the weights do not have.
    """
    path = run / "model.json"
    if path.is_file() and any((run / "checkpoints").glob("*")):
        values = json.loads(path.read_text("utf-8"))
        return Network(ModelConfig.from_dict(values["model"]), values["license"], {})
    config, license, params = recipe.model_config(), "yours: trained from random numbers", {}
    if recipe.weights is not None:
        weights = _loaded(recipe.weights, recipe.encoder)
        _check_head(recipe, weights)
        config, license, params = weights.config, weights.license, weights.params
        if recipe.head == "fresh":
            params = {"pretrained": params["pretrained"]}
            if config.encoder in PRESETS:
                config = PRESETS[config.encoder]
        config = config.replace(kind=recipe.kind, max_depth=recipe.max_depth)
    if recipe.features is not None:
        encoder = _loaded(recipe.features, recipe.encoder).params["pretrained"]
        params = features.beside(params, encoder)
    return Network(config, license, params)


def _loaded(name: str, encoder: str) -> Weights:
    weights = load_weights(name)
    if weights.config.encoder != encoder:
        raise Dav2Error(f"{name}: is a {weights.config.encoder} model, and the recipe says encoder={encoder}")
    weights.refuse_nonfinite()
    return weights


def _check_head(recipe: Recipe, weights: Weights) -> None:
    if recipe.head == "fresh":
        return
    if weights.config.kind == "encoder":
        raise Dav2Error(f"{recipe.weights}: is an encoder without a head: train a new one with head=fresh")
    if weights.config.kind != recipe.kind:
        raise Dav2Error(
            f"{recipe.weights}: is a {weights.config.kind} model and the recipe says kind={recipe.kind}: the head must "
            "be trained anew, with head=fresh"
        )
