"""The count of operations against the program itself."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from dav2_jax.model import depth_anything
from dav2_jax.model.config import PRESETS
from dav2_jax.model.flops import model_flops


def count(jaxpr) -> int:
    """Floating point operations of the matmuls and convolutions; of branches for platforms, the first."""
    total = 0
    for equation in jaxpr.eqns:
        inputs, output = [value.aval.shape for value in equation.invars], equation.outvars[0].aval
        match equation.primitive.name:
            case "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                total += 2 * output.size * math.prod(inputs[0][axis] for axis in contracted)
            case "conv_general_dilated":
                total += 2 * output.size * math.prod(inputs[1][:3])
            case "cpu_kernel_or_plain":
                plain = functools.partial(equation.params["plain"], **dict(equation.params["how"]))
                total += count(jax.make_jaxpr(plain)(*(value.aval for value in equation.invars)).jaxpr)
            case "cond":
                total += count(equation.params["branches"][0].jaxpr)
            case _:
                total += sum(count(inner.jaxpr) for inner in equation.params.values() if hasattr(inner, "jaxpr"))
    return total


@pytest.mark.parametrize("preset", ["small", "giant"])  # both kinds of feed-forward layer
@pytest.mark.parametrize("size", [(126, 154), (98, 70)])  # even and odd numbers of patches
@pytest.mark.parametrize("kind", ["relative", "encoder"])
def test_model_flops(preset, size, kind):
    config = PRESETS[preset].replace(depth=5, taps=(0, 1, 2, 3), kind=kind)
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    traced = jax.make_jaxpr(functools.partial(depth_anything.stages, config))
    jaxpr = traced(depth_anything.abstract_params(config), images).jaxpr
    assert model_flops(config, *size) == count(jaxpr)
