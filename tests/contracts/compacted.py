"""Units of an architecture that die, and the widths that `compact` leaves."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from sparsernn.structure.cells import recurrent_layers
from sparsernn.surgery.compact import compact

from .architecture import Architecture, Slice, set_slices
from .test_declarations import sizes

Units = dict[str, set[int]]
DEAD = [1, 2, 5]


def removable(architecture: Architecture, model: nn.Module) -> Units:
    """The units that may go, by the declarations."""
    size = sizes(architecture, model)
    return {
        s: set(range(size[s])) - architecture.kept_units(s, size[s])[1]
        for s in architecture.readers
        if s not in architecture.either
    }


def kill(architecture: Architecture, model: nn.Module, share: float, seed: int) -> tuple[Units, set[Slice]]:
    """Zero every reader of a random `share` of the removable units; the units that are dead by that."""
    generator = torch.Generator().manual_seed(seed)
    free = removable(architecture, model)
    zeroed: set[Slice] = set()
    for unit_set, units in free.items():
        for unit in units:
            if torch.rand((), generator=generator) < share:
                zeroed |= architecture.slices(unit_set, unit)
    set_slices(dict(model.named_parameters()), frozenset(zeroed), 0.0)
    dead = {s: {k for k in units if architecture.slices(s, k) <= zeroed} for s, units in free.items()}
    return dead, zeroed


def quiet_compact(model: nn.Module, example: Any, **options: Any) -> nn.Module:
    """`compact` where it may have to say that nothing can go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return compact(model, example, **options)


def widths(model: nn.Module) -> dict[str, int]:
    found = {}
    for layer in recurrent_layers(model):
        found[layer.name] = layer.hidden_size
        if layer.proj_size:
            found[f"{layer.name}.projected"] = layer.proj_size
    return found


def floor(after: dict[str, int], unit_set: str) -> int:
    """The least width of a unit set: one; for cells with a projection more than projected units (torch's own rule)."""
    return after.get(f"{unit_set}.projected", 0) + 1


def dead_units(model: nn.Module, *readers: str) -> None:
    """Units DEAD of a layer are read by none of `readers`."""
    with torch.no_grad():
        for name in readers:
            model.get_parameter(name)[:, DEAD] = 0.0
