"""What has to stay so that a layer of fewer units can be made: one unit of each set, and what torch's layers need."""

from __future__ import annotations

import torch
from torch import Tensor

from ..structure.classes import Classes
from ..structure.groups import SliceGroups


class Limits:
    """Limits of the unit sets of `classes`, in numbers of `groups`.

    One unit of each set stays. Some sets have to stay wider than others (the states of an LSTM than its projection),
    some equally wide (the layers of a subclass of torch's).
    """

    def __init__(self, classes: Classes, groups: SliceGroups) -> None:
        self.count, self.units = groups.count, groups.units
        self._sizes = {name: len(units) for name, units in classes.sets.items()}
        self._whole = [units for units in groups.units.values() if len(units) and bool((units >= 0).all())]
        self._wider, self._equal = classes.wider, classes.equal

    def last(self, gone: Tensor) -> Tensor:
        """The last units of sets, bool (groups,), once `gone` is out."""
        stay = torch.zeros(self.count, dtype=torch.bool)
        for units in self._whole:
            left = units[~gone[units]]
            if len(left) == 1:
                stay[left] = True
        return stay

    def stay(self, gone: Tensor) -> Tensor:
        """All that may not go next, bool (groups,), once `gone` is out."""
        stay = self.last(gone)
        blocked = [a for a, b in self._wider if self._left(a, gone) <= self._left(b, gone) + 1]
        for names in self._equal:
            most = max(self._left(name, gone) for name in names)
            blocked += [name for name in names if self._left(name, gone) < most]
        for name in blocked:
            units = self.units.get(name, torch.empty(0, dtype=torch.long))
            stay[units[units >= 0]] = True
        return stay

    def even(self, gone: Tensor) -> bool:
        """Whether the sets that have to be equally wide are."""
        return all(len({self._left(name, gone) for name in names}) == 1 for names in self._equal)

    def _left(self, name: str, gone: Tensor) -> int:
        units = self.units.get(name)
        return self._sizes[name] - (0 if units is None else int(gone[units[units >= 0]].sum()))
