"""Classes: channels that go together, as plain data; which of them are dead for given parameter values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Plane = tuple[str, int]  # (parameter name, axis)


@dataclass(frozen=True)
class PlaneMap:
    """One parameter along one axis, by index: the class it belongs to (-1: none) and in what part."""

    classes: Tensor  # int64
    owner: Tensor  # int64 channel whose value is computed from it, -1: none
    read: Tensor  # bool: the class is read through it
    value: Tensor  # bool: zero here makes the owner's value zero
    outgoing: Tensor  # bool: has to be zero for the class to be dead (read, or the weight side of a dot product)
    sites: tuple[tuple[str, str], ...]
    scaled: bool = False  # each plane is divided by a norm of its own, so none may be zero: nothing to learn here


@dataclass(frozen=True)
class Classes:
    count: int
    free: Tensor  # bool (count,): recurrent, and nothing keeps it
    channel_class: Tensor  # int64 (channels,)
    shifted: Tensor  # bool (channels,)
    planes: Mapping[Plane, PlaneMap]
    dots: tuple[tuple[Tensor, Tensor], ...]  # pairs of channels whose product has to be zero
    sets: Mapping[str, Tensor]  # unit set -> class of each unit, -1: never reached
    inputs: frozenset[Plane] = frozenset()  # planes of which one has to stay: a recurrent layer reads something
    wider: tuple[tuple[str, str], ...] = ()  # (a, b): unit set a has to stay wider than b (torch's projections)
    equal: tuple[tuple[str, ...], ...] = ()  # unit sets that have to stay equally wide (subclasses of torch's layers)

    def dead(self, parameters: Mapping[str, Tensor], only: Tensor | None = None) -> Tensor:
        """bool (count,): classes that can be taken out without changing the function.

        Dead: nothing is read from it any more (each reading plane is zero on the rows that stay), or its value is
        always zero. Taking a class out may free others: iterated to the fixed point. At least one unit of each unit
        set stays. `only` (bool (count,)): the others stay whatever they are.
        """
        dead = torch.zeros(self.count, dtype=torch.bool)
        spared = torch.zeros(self.count, dtype=torch.bool) if only is None else ~only
        nonzero = {
            name: (parameters[name].detach() != 0).cpu() for name in {n for n, _ in self.planes} if name in parameters
        }
        while True:
            found = dead | (self._removable(nonzero, dead) & ~spared)
            for classes in self.sets.values():
                if len(classes) and bool((classes >= 0).all()) and bool(found[classes].all()):
                    fresh = classes[~dead[classes]]
                    spared[fresh[0]] = True
                    found[fresh[0]] = False
            if bool((found == dead).all()):
                missing = self._too_narrow(dead)
                if missing is None:
                    return dead
                spared[missing] = True
                found = torch.zeros_like(dead)  # what the spared units read may be alive again: once more
            dead = found

    def _too_narrow(self, dead: Tensor) -> Tensor | None:
        for a, b in self.wider:
            lacking = int((~dead[self.sets[b]]).sum()) + 1 - int((~dead[self.sets[a]]).sum())
            if lacking > 0:
                return self.sets[a][dead[self.sets[a]]][:lacking]
        for names in self.equal:
            reached = [self.sets[name][self.sets[name] >= 0] for name in names]
            mine = [classes[dead[classes]] for classes in reached]
            fewest = min(map(len, mine))
            surplus = [classes[: len(classes) - fewest] for classes in mine if len(classes) > fewest]
            if surplus:
                return torch.cat(surplus)
        for plane, mask in self.gone(dead).items():
            if plane in self.inputs and bool(mask.all()):
                return self.planes[plane].classes[:1]
        return None

    def gone(self, dead: Tensor) -> dict[Plane, Tensor]:
        """(parameter, axis) -> bool over the index: planes of dead classes."""
        padded = torch.cat([dead, torch.zeros(1, dtype=torch.bool)])
        found = {plane: padded[p.classes] for plane, p in self.planes.items()}
        return {plane: mask for plane, mask in found.items() if bool(mask.any())}

    def _removable(self, nonzero: Mapping[str, Tensor], dead: Tensor) -> Tensor:
        gone = self.gone(dead)
        alive = {plane: self._alive(plane, nonzero, gone) for plane in self.planes}
        read = torch.zeros(self.count + 1, dtype=torch.bool)
        has_value = torch.zeros(len(self.channel_class) + 1, dtype=torch.bool)
        has_nonzero = has_value.clone()
        for plane, p in self.planes.items():
            live = alive[plane]
            read[p.classes[p.read & live]] = True
            has_value[p.owner[p.value]] = True
            has_nonzero[p.owner[p.value & live]] = True
        zero = (has_value & ~has_nonzero)[:-1] & ~self.shifted
        blocked = read[: self.count].clone()
        for a, b in self.dots:
            open_ = ~(zero[a] | zero[b])
            blocked[self.channel_class[a[open_]]] = True
        always_zero = torch.ones(self.count, dtype=torch.bool)
        member = self.channel_class >= 0
        always_zero[self.channel_class[member & ~zero]] = False
        return self.free & (~blocked | always_zero)

    def _alive(self, plane: Plane, nonzero: Mapping[str, Tensor], gone: Mapping[Plane, Tensor]) -> Tensor:
        """bool over the index: whether anything on the plane is not zero, apart from planes that are gone."""
        name, axis = plane
        mask = nonzero.get(name)
        if mask is None:  # a buffer: its values are the model's, never cleared by training
            return torch.ones(len(self.planes[plane].classes), dtype=torch.bool)
        for other in range(mask.dim()):
            if other != axis and (name, other) in gone:
                keep = torch.nonzero(~gone[name, other])[:, 0]
                mask = mask.index_select(other, keep)
        rest = [a for a in range(mask.dim()) if a != axis]
        return mask.any(dim=rest) if rest else mask
