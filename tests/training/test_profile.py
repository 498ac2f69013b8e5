"""A profile of a few steps."""

import jax.numpy as jnp

from dav2_jax.training import profile
from dav2_jax.training.profile import Profile


def test_a_few_steps_after_the_first_ones_are_traced(tmp_path):
    profiler = Profile(tmp_path / "profile", 10)
    said = {}
    for number in range(11, 25):
        profiler.before(number)
        assert (tmp_path / "profile").exists() == (number >= 19)
        if line := profiler.after(number, jnp.ones(2) * number):
            said[number] = line
    assert list(said) == [10 + profile.SKIPPED + profile.TRACED]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    Profile(None, 10).before(14)
    profiler.close()
