"""Recipes: every one that ships can be built, and says what its fields are."""

import dataclasses

import pytest

from dav2_jax.training import recipe as recipes
from dav2_jax.training.objective import make_loss, optimization
from dav2_jax.training.optimizer import make_optimizer
from dav2_jax.training.recipe import Recipe


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_be_built(name):
    recipe = recipes.load(name)
    recipe.check()
    make_loss(recipe)
    make_optimizer(optimization(recipe), recipe.model_config())
    assert recipes.from_json(recipes.to_json(recipe)) == recipe


def test_every_field_has_a_group_and_a_help_text():
    found = recipes.fields()
    assert [name for name, _, _ in found] == [field.name for field in dataclasses.fields(Recipe)]
    assert list(dict.fromkeys(group for _, group, _ in found)) == ["network", "data", "loss", "optimization", "run"]
    assert all(text.endswith(".") and len(text) > 20 for _, _, text in found)
