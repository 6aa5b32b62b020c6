"""Unit groups from a trace, restricted to the layers that `include` governs; and the level of any name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..structure.blocks import BLOCK_HEIGHT, WORD_WIDTH, gate_groups, line_groups
from ..structure.cells import recurrent_layers
from ..structure.groups import Level as LevelName
from ..structure.groups import SliceGroups
from ..structure.structure import Structure
from ..structure.trace import trace
from .governed import Governed, Include
from .levels import Elements, Level, Slices

_COARSE_FIRST: tuple[LevelName, ...] = ("unit", "gate", "row", "column", "word", "block", "weight")


def coarse_first(kind: str, level: LevelName | Sequence[LevelName]) -> list[LevelName]:
    """The names in `level`, coarse ones first. ValueError for none and for one twice, by the sparsifier `kind`."""
    names: tuple[LevelName, ...] = (level,) if isinstance(level, str) else tuple(level)  # type: ignore[assignment]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{kind}: level is {level!r}, expected one level or several different ones.")
    # Unknown names come last, where make_level names them.
    return sorted(names, key=lambda name: _COARSE_FIRST.index(name) if name in _COARSE_FIRST else 9)


def make_level(
    name: LevelName,
    model: nn.Module,
    example_inputs: Any,
    chosen: Governed,
    include: Include = "recurrent",
    *,
    carried_states: bool = False,
    keep_diagonal: bool = False,
) -> Level:
    """The level `name` of `model`. Only units need `example_inputs`: the model is run once to find their readers.

    Raises ValueError for an unknown name, for a model none of whose units can go and for example inputs of None
    where they are needed.
    """
    if name not in get_args(LevelName):
        known = ", ".join(f'"{each}"' for each in get_args(LevelName))
        raise ValueError(f"level is {name!r}, expected one of {known}.")
    if keep_diagonal and name not in ("weight", "block"):
        raise ValueError(f'keep_diagonal=True goes with level="weight" or "block", got level="{name}".')
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    if name == "gate":
        if not chosen.layers:
            raise ValueError('level="gate" needs a recurrent layer, and include= selects none.')
        return Slices(gate_groups(chosen.layers, parameters), parameters)
    if name in ("row", "column"):
        lines = line_groups(chosen.weights, parameters, recurrent_layers(model), 0 if name == "row" else 1)
        return Slices(lines, parameters)
    if name != "unit":
        height, width = 1 if name == "weight" else BLOCK_HEIGHT, WORD_WIDTH if name == "word" else 1
        return Elements(chosen, recurrent_layers(model), parameters, height, width, keep_diagonal)
    if example_inputs is None:
        raise ValueError(
            'level="unit" has to run the model once to find who reads each unit: give example_inputs '
            "(a tensor, a tuple of arguments or a dict of keywords), got None."
        )
    structure = trace(model, example_inputs, carried_states=carried_states)
    return Slices(governed_units(structure, model, chosen, include), parameters, structure)


def governed_units(structure: Structure, model: nn.Module, chosen: Governed, include: Include) -> SliceGroups:
    """Those of a trace's units that may go and that `include` governs."""
    groups = structure.groups("unit").of({name for name, _ in model.named_parameters()})
    if include != "all":
        wanted = {name for layer in chosen.layers for name in layer.unit_sets}
        if include != "recurrent":  # patterns also reach the cells that nobody declared
            rows = [m for m in groups.members if m.role == "incoming" and m.parameter in chosen.weights]
            found = torch.zeros(groups.count + 1, dtype=torch.bool)
            for member in rows:
                found[member.group] = True
            wanted |= {name for name, units in groups.units.items() if bool(found[units[units >= 0]].any())}
        groups = restricted(groups, wanted)
    if groups.count == 0:
        reasons = list(dict.fromkeys(f"{kept.reason} ({kept.where})" for kept in structure.kept))[:2]
        raise ValueError(
            f"No unit of the governed layers can go: {'; '.join(reasons) or 'no example reached them'}.\n"
            "See trace(model, example_inputs).explain(); states that are only fed back into the model may go with "
            "carried_states=True."
        )
    return groups


def restricted(groups: SliceGroups, unit_sets: set[str]) -> SliceGroups:
    """Only those groups that have a unit in one of `unit_sets`, numbered anew."""
    keep = torch.zeros(groups.count + 1, dtype=torch.bool)
    for name, numbers in groups.units.items():
        if name in unit_sets:
            keep[numbers] = True
    keep[-1] = False  # the place of group -1
    number = torch.where(keep, keep.cumsum(0) - 1, -1)
    members = tuple(replace(m, group=number[m.group]) for m in groups.members)
    return SliceGroups(
        groups.level,
        int(keep.sum()),
        tuple(m for m in members if bool((m.group >= 0).any())),
        tuple(scope for scope, kept in zip(groups.scopes, keep.tolist()) if kept),
        {name: number[numbers] for name, numbers in groups.units.items() if name in unit_sets},
    )


def without_dead_units(
    masks: dict[str, Tensor], parameters: Mapping[str, Tensor], structure: Structure
) -> dict[str, Tensor]:
    """`masks` without the matrix rows and columns of units that nobody reads any more once the masks are applied."""
    masked = {name: p.detach() * masks[name] if name in masks else p for name, p in parameters.items()}
    found = dict(masks)
    for (name, axis), gone in structure.classes.gone(structure.classes.dead(masked)).items():
        if name in found:
            there = ~gone.to(found[name].device)
            found[name] = found[name] & there.view([-1 if a == axis else 1 for a in range(found[name].dim())])
    return found
