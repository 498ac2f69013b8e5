"""A dataset with random access: a list of items and the function that reads one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dav2_jax.data.example import Example
from dav2_jax.errors import Dav2Error

Unit = Literal["metres", "any scale", "disparity", "none"]


@dataclass(frozen=True)
class Source:
    """`len(source)` examples; `source[i]` reads number i, the same one every time, in any thread or process.

    name   of the dataset, as in the table of `data/sources.py`
    items  what `read` takes, one an example, in an order that does not depend on the machine
    read   item -> Example; a function of a module (or a partial of one), so that the source can be pickled.
           Raises Dav2Error or OSError, in words that name the file, when the item cannot be read
    unit   of depth: metres, or any scale (each scene its own); disparity where there is no depth; none: no label
    about  one line a fact that a user should know: items that were left out, and why
    on_device  examples are made by JAX on this process's devices, so the loader's workers cannot make them
    notes  (item, example) -> what looks wrong about it though it can be read, for `dav2 data check`; may open files
    """

    name: str
    items: Sequence[Any] = field(repr=False)
    read: Callable[[Any], Example] = field(repr=False)
    unit: Unit = "metres"
    about: tuple[str, ...] = ()
    on_device: bool = False
    notes: Callable[[Any, Example], list[str]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        """Raises IndexError beyond the end, and Dav2Error, in one line, for an example that cannot be read."""
        item = self.items[index]
        try:
            return self.read(item)
        except Dav2Error as error:
            raise Dav2Error(f"{self.name}: {error}") from error
        except OSError as error:
            reason = error.strerror or error
            raise Dav2Error(f"{self.name}: {error.filename or item}: {reason}") from error

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))
