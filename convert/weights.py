"""`Weights`: a network's config, its parameters, and where they came from. All that a checkpoint of any kind says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dav2_jax.convert.recognize import UNKNOWN_LICENSE
from dav2_jax.convert.stored_tensor import StoredTensor, refuse_nonfinite
from dav2_jax.model.config import ModelConfig
from dav2_jax.model.depth_anything import Params

if TYPE_CHECKING:
    from dav2_jax.convert.keymap import Names


@dataclasses.dataclass(frozen=True)
class Weights:
    """What predictor, trainer, `verify`, `bench` and `convert` take.

    config:     the network
    params:     nested dict, path by path as `model.depth_anything` names parameters. Leaves have a shape and a dtype,
                and `np.asarray(leaf)` reads them: NumPy or JAX arrays, or tensors that still lie in their file
    license:    of the weights, as an SPDX name, or a sentence that says it is not known
    provenance: source file or folder, its layout, its SHA-256, the program's version
    stored:     of a PyTorch or Hugging Face checkpoint, the tensors as they lie in its files, by the names there
    names:      which naming scheme that is
    """

    config: ModelConfig
    params: Params
    license: str = UNKNOWN_LICENSE
    provenance: dict[str, str] = dataclasses.field(default_factory=dict)
    stored: Mapping[str, StoredTensor] | None = None
    names: Names | None = None

    @property
    def flat(self) -> dict[str, Any]:
        """The parameters by their dotted names."""
        return flatten_dict(self.params, sep=".")

    def replace(self, **changes) -> Weights:
        return dataclasses.replace(self, **changes)

    def map(self, function) -> Weights:
        """The same weights with function(name, leaf) in place of each parameter."""
        return self.replace(params=nested({name: function(name, leaf) for name, leaf in self.flat.items()}))

    def arrays(self, dtype=np.float32) -> Params:
        """The parameters as a tree of JAX arrays of `dtype` on the default device, read one by one.

        dtype: None keeps each as it is stored
        Raises Dav2Error for NaN or infinity, with the names of the tensors that hold it.
        """
        import jax.numpy as jnp

        self.refuse_nonfinite()
        return nested({name: jnp.asarray(np.asarray(leaf), dtype or leaf.dtype) for name, leaf in self.flat.items()})

    def refuse_nonfinite(self) -> None:
        """Raises Dav2Error, which names the tensors, where parameters hold NaN or infinity."""
        refuse_nonfinite(self.provenance.get("source", "weights"), self.flat)


def nested(flat: dict[str, Any]) -> Params:
    """{"a.b": x} -> {"a": {"b": x}}"""
    return unflatten_dict(flat, sep=".")
