"""The random numbers of a scene, drawn at once and dealt out: a generator at each call would be half of the program."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

POOL = 6144


class Dice:
    """Deals from a pool of uniform numbers, always in the order of the calls."""

    def __init__(self, key: jax.Array):
        self._pool = jax.random.uniform(key, (POOL,))
        self._next = 0

    def uniform(self, low=0.0, high=1.0, shape: tuple[int, ...] = ()) -> jax.Array:
        begin, self._next = self._next, self._next + math.prod(shape)
        if self._next > POOL:
            raise ValueError(f"a scene needs more than {POOL} random numbers: raise POOL")
        return low + (high - low) * self._pool[begin : self._next].reshape(shape)

    def chosen(self, share, shape: tuple[int, ...] = ()) -> jax.Array:
        """bool: true with this probability."""
        return self.uniform(0.0, 1.0, shape) < share

    def pick(self, choices, count: int, often=None) -> jax.Array:
        """[count] of `choices`; often: how often each, in any unit, equally if not given."""
        often = np.ones(len(choices)) if often is None else np.asarray(often, np.float64)
        bounds = (np.cumsum(often) / np.sum(often))[:-1].astype(np.float32)
        place = jnp.sum(self.uniform(0.0, 1.0, (count,))[:, None] >= bounds[None], axis=1)
        return jnp.asarray(choices)[place]
