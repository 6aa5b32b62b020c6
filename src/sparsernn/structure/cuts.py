"""How much of a parameter a unit takes with it when it goes."""

from __future__ import annotations

from .groups import SliceGroups


def unit_cuts(groups: SliceGroups, parameter: str, axes: int) -> list[dict[str, float]]:
    """For each of its axes: unit set -> elements along that axis that one unit of the set takes with it."""
    cuts: list[dict[str, float]] = [{} for _ in range(axes)]
    for member in groups.members:
        if member.parameter != parameter or member.within:
            continue
        for unit_set, numbers in groups.units.items():
            own = numbers[numbers >= 0]
            hits = sum(int((member.group == number).sum()) for number in own[:1].tolist())
            if hits:
                cuts[member.axis][unit_set] = cuts[member.axis].get(unit_set, 0) + hits
    return cuts
