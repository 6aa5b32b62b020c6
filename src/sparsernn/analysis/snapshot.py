"""What an inspection found, as plain data: tables, figures and the page are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..structure.cells import RecurrentLayer
from .tables import Count, Layer, Reason, Units


@dataclass(frozen=True)
class Snapshot:
    """What an inspection found, as plain data; tensors are copies on the CPU.

    `masks`: recurrent weight matrix -> bool, True where the weight is not zero; `dead`: unit set -> bool (units,);
    `alive`: layer -> bool (gates, units), False where the gate is a constant; `kinds`: layer -> kind of each unit;
    `group_norms`: unit set -> 2-norm of each unit's group of weights, for the units that may go;
    `footprint`: what `export_c` says of the model in C, empty if it was not asked.
    """

    model: str
    layers: tuple[Layer, ...]
    kept: tuple[Reason, ...]
    notes: tuple[str, ...]
    recurrent: tuple[RecurrentLayer, ...] = ()
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    dead: Mapping[str, Tensor] = field(default_factory=dict)
    alive: Mapping[str, Tensor] = field(default_factory=dict)
    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group_norms: Mapping[str, Tensor] = field(default_factory=dict)
    footprint: Mapping[str, Any] = field(default_factory=dict)

    @property
    def now(self) -> Count:
        return sum((layer.now for layer in self.layers), Count())

    @property
    def compact(self) -> Count:
        return sum((layer.compact for layer in self.layers), Count())

    @property
    def units(self) -> tuple[Units, ...]:
        return tuple(units for layer in self.layers for units in layer.units)
