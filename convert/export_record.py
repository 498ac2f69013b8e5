"""What our own exports say about themselves: kind, metres, taps, sizes and license, which no official name can hold.

JSON in places that every other reader ignores: `__metadata__` of safetensors, and one more record in the zip of a
`.pth`, beside PyTorch's own. So an export comes back under any name and without flags, while the official code's strict
`load_state_dict(torch.load(...))` sees the same state dict as ever.
"""

import dataclasses
import json
from typing import NamedTuple

from dav2_jax.convert.stored_tensor import shown
from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import ModelConfig

ZIP_RECORD = METADATA_KEY = "dav2_jax"
_FORMAT = 1


class Record(NamedTuple):
    config: ModelConfig
    license: str


def to_record(config: ModelConfig, license: str) -> str:
    return json.dumps({"format": _FORMAT, "model": dataclasses.asdict(config), "license": license})


def from_record(where: str, record: str) -> Record:
    """The inverse. Raises Dav2Error for a record that is damaged or of a later version."""
    try:
        values = json.loads(record)
        if values["format"] != _FORMAT or not isinstance(values["license"], str):
            raise ValueError(f"format {values['format']!r}")
        return Record(ModelConfig.from_dict(values["model"]), values["license"][:200].replace("\n", " "))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Dav2Error(
            f"{where}: its record of kind, metres and license cannot be read ({shown(str(error))}): "
            "a later dav2_jax wrote it, or it is damaged"
        ) from None
