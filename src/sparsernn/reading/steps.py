"""What a model that was read runs: steps, in order, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .graph import title


@dataclass(frozen=True)
class Value:
    """What an input of the model or an earlier step gave."""

    name: str


@dataclass(frozen=True)
class Held:
    """A parameter or a buffer of the model."""

    name: str


# Besides them: a number; an array of whole numbers (sizes, axes, places), which no layer computes; None for nothing.
Operand = Value | Held | float | np.ndarray | None


@dataclass(frozen=True)
class Branch:
    """One of the two ways of an If."""

    steps: tuple[Step, ...]
    results: tuple[Operand, ...]


@dataclass(frozen=True)
class Step:
    """One operation: `op` of the table `operators.TABLE` on its operands. module: the submodule that holds its weights;
    last: values that nobody needs afterwards."""

    op: str
    name: str
    operands: tuple[Operand, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    version: int = 17
    module: str = ""
    last: tuple[str, ...] = ()

    def get(self, attribute: str, default: Any = None) -> Any:
        return self.attributes.get(attribute, default)

    @property
    def title(self) -> str:
        return title(self.op, self.name or next((name for name in self.outputs if name), ""))

    def branches(self) -> list[Branch]:
        return [value for value in self.attributes.values() if isinstance(value, Branch)]


def everything(steps: Sequence[Step]) -> list[Step]:
    """All steps, those in branches too."""
    found: list[Step] = []
    for step in steps:
        found += [step, *(inner for branch in step.branches() for inner in everything(branch.steps))]
    return found
