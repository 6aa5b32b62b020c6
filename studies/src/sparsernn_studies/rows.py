"""What a row of a study is, what a finished run gives back of its rows, and which of them a sweep compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Row:
    """A row of a table by its name in `results/`. What else makes it the row it is, its study adds as fields."""

    name: str


@dataclass(frozen=True)
class Loaded:
    """The models of a finished run by their row, and inputs for them; `sparsified` is the one before compaction."""

    models: Mapping[str, nn.Module]
    example_inputs: Any
    sparsified: str


@dataclass(frozen=True)
class Judge:
    """What a sweep compares: the mean of `metric` over the rows whose names fit the pattern `rows` (as of file names),
    or of the one net that has it.

    `more`: whether more of it is better. `size`: the metric that quality is set against.
    """

    metric: str
    more: bool
    rows: str = "*"
    size: str = "nonzero"
