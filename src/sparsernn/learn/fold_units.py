"""`fold` of whole units: what counts, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from .._modules import copied
from ..structure.groups import SliceGroups
from ..structure.structure import Structure
from .cost import Cost, counted_by, left_by, multiplied
from .folded import Folded
from .folding import Folding, Step
from .least_squares import Sizes
from .levels import Slices
from .recording import Record, warn_of_few
from .rounding import round_matrices


def fold_units(
    model: nn.Module,
    structure: Structure,
    groups: SliceGroups,
    weights: Sequence[str],
    record: Record,
    shares: Sequence[float],
    cost: Cost,
    ridge: float,
    bits: int | None = None,
) -> list[Folded]:
    """One model for each of the falling `shares`, those above 1 in the unit of `cost`.

    `weights`: those that count, and with `bits` are put on grids.
    """
    counted = counted_by(groups, _shapes(model, weights, groups, cost))
    wanted = {(m.parameter, m.axis) for m in groups.members if m.role == "outgoing"}
    recording = record(wanted if bits is None else wanted | {(name, axis) for name in weights for axis in (0, 1)})
    warn_of_few(recording.recorder, max((len(u) for u in groups.units.values()), default=0), "units a layer")
    work = Folding(recording, structure, groups, ridge, _dead(model, structure, groups))
    made, measure = [], left_by(groups, counted, cost)
    whole = measure(torch.zeros(groups.count, dtype=torch.bool))
    shares = sorted((share if share <= 1 else share / whole for share in shares), reverse=True)
    for step in work.run(shares, measure, Sizes(counted, groups.count)):
        folded = work.written(copied(model), step.gone)
        if bits is not None:
            round_matrices(folded, recording, weights, ridge, bits)
        change = recording.outputs.change(folded)
        made.append(_result(folded, step, change, groups, work))
    return made


def _dead(model: nn.Module, structure: Structure, groups: SliceGroups) -> torch.Tensor:
    """Groups that `compact` takes out as it is, bool (count,)."""
    dead = torch.zeros(groups.count, dtype=torch.bool)
    for name, gone in structure.dead(dict(model.named_parameters())).items():
        units = groups.units.get(name, torch.full((len(gone),), -1))
        dead[units[gone & (units >= 0)]] = True
    return dead


def _shapes(model: nn.Module, weights: Sequence[str], groups: SliceGroups, cost: Cost) -> dict[str, torch.Size]:
    """Shapes of the matrices that count."""
    parameters = dict(model.named_parameters())
    names = set(weights)
    if cost == "mult-adds":
        names |= set(multiplied(model, Slices(groups, parameters)))
    elif cost != "weights" and not callable(cost):
        raise ValueError(f'fold: cost is {cost!r}, expected "weights", "mult-adds" or a function of the units left.')
    return {name: parameters[name].shape for name in sorted(names)}


def _result(model: nn.Module, step: Step, change: float, groups: SliceGroups, work: Folding) -> Folded:
    gone = torch.cat([step.gone, torch.zeros(1, dtype=torch.bool)])
    kept: dict[str, str] = {}
    for name, units in groups.units.items():
        reasons = dict.fromkeys(why for u in units.tolist() if u >= 0 and (why := work.reasons[u]) is not None)
        if reasons:
            kept[name] = "; ".join(reasons)
    removed = {name: gone[units] for name, units in groups.units.items()}
    predicted = step.predicted if not math.isnan(change) else math.nan
    return Folded(model, removed, kept, step.share, max(predicted, 0.0) ** 0.5, change**0.5)
