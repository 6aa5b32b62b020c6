"""Levels: at which grain weights go (weight, block, word, row, column, gate, unit), behind one interface.

A level numbers its groups 0..count-1. It combines scores of single weights into scores of groups, turns "these
groups are gone" into masks, and knows how many weights are left after each further group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..structure.blocks import Tiles, tiles
from ..structure.cells import RecurrentLayer
from ..structure.groups import Level as LevelName
from ..structure.groups import Role, SliceGroups
from ..structure.structure import Structure
from .governed import Governed
from .parts import Part, SlicePart, TilePart
from .scores import Reduce, Score

Parameters = Mapping[str, Tensor]
ROLES: tuple[Role, ...] = ("incoming", "outgoing", "bias", "state")


class Level(ABC):
    """What all levels have. `parts` hold each group's own weights: a group is removable once they are zero."""

    name: LevelName
    count: int
    parts: Sequence[Part]
    parameters: tuple[str, ...]  # all that masks may touch
    keep_one: tuple[Tensor, ...] = ()  # sets of groups of which one has to stay

    def combine(self, elements: Parameters, reduce: Reduce) -> Tensor:
        """Scores of the groups, (count,), from the scores of single weights."""
        elements = {name: wide(value) for name, value in elements.items()}
        if reduce == "norm":
            elements = {name: value * value for name, value in elements.items()}
        total = sums(self.parts, elements)
        sizes = sums(self.parts, {name: torch.ones_like(value) for name, value in elements.items()})
        mean = total / sizes.clamp_min(1)
        return mean.sqrt() if reduce == "norm" else mean

    def relative(self, scores: Tensor) -> Tensor:
        """`scores` in a unit that groups of all layers share; only units of different layers differ in theirs."""
        return scores

    @abstractmethod
    def masks(self, gone: Tensor, parameters: Parameters) -> dict[str, Tensor]:
        """Parameter name -> bool mask (True kept) once the groups in `gone` (bool, (count,)) are out."""

    @abstractmethod
    def scopes(self, scope: str) -> list[slice | Tensor]:
        """Numbers of the groups that compete with each other, one index a scope ("matrix", "layer", "model")."""

    @abstractmethod
    def left(self, order: Tensor, present: Parameters) -> Tensor:
        """How many weights are left after the first r groups of `order` are out, int64, r = 0..len(order).

        `present`: names of the governed weights -> bool, True where a weight is left before.
        """


def scores_of(level: Level, score: Score, parameters: Parameters, measured: Parameters | None = None) -> Tensor:
    """Scores of the groups, (count,), comparable between layers; `measured`: those of the weights, by a run."""
    elements = measured or {name: score.elements(name, parameters[name]) for name in scored(level)}
    found = level.combine(elements, score.reduce)
    return found if score.comparable else level.relative(found)


def scored(level: Level) -> tuple[str, ...]:
    """Names of the parameters whose weights say how important a group is."""
    return tuple(dict.fromkeys(part.parameter for part in level.parts))


def sums(parts: Sequence[Part], values: Parameters) -> Tensor:
    """Sum of `values` over each group, (count,), on the device of the first part."""
    total: Tensor | None = None
    for part in parts:
        each = part.sums(part.narrow(values[part.parameter]))
        total = each if total is None else total + each.to(total.device)
    assert total is not None, "a level has at least one part"
    return total


def wide(value: Tensor) -> Tensor:
    """At least float32: squares of half-precision weights under- and overflow."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def zero(level: Level, gone: Tensor, parameters: Parameters) -> None:
    """Zero, in place, just the slices whose being zero makes the groups in `gone` removable."""
    for part in level.parts:
        value = parameters[part.parameter]
        part.multiply(value, part.spread((~gone).to(value.device, value.dtype), 1.0))


class Elements(Level):
    """Single weights (1x1), or blocks or words of `height` x `width` weights."""

    def __init__(
        self,
        governed: Governed,
        layers: tuple[RecurrentLayer, ...],
        parameters: Parameters,
        height: int = 1,
        width: int = 1,
        keep_diagonal: bool = False,
    ) -> None:
        self.name: LevelName = "weight" if height == 1 else "block" if width == 1 else "word"
        self.parameters = governed.weights
        self._tiles = tiles(governed.weights, parameters, layers, height, width)
        self._counts = [tile.count for tile in self._tiles]
        self.count = sum(self._counts)
        firsts = [sum(self._counts[:n]) for n in range(len(self._counts))]
        self.parts = [TilePart(tile, first, self.count) for tile, first in zip(self._tiles, firsts)]
        layer_of = {name: layer.name for layer in reversed(layers) for name in layer.matrices()}
        self._layer = [layer_of.get(name, name.rpartition(".")[0]) for name in governed.weights]
        # The diagonal of each gate's recurrent matrix is no group's: neither counted nor masked.
        self._diagonals = _diagonals(layers, parameters, governed.weights) if keep_diagonal else {}

    def combine(self, elements: Parameters, reduce: Reduce) -> Tensor:
        if self.name == "weight":
            flat = [wide(elements[name]).reshape(-1) for name in self.parameters]
            return torch.cat([value.to(flat[0].device) for value in flat])
        off = {n: v.masked_fill(self._diagonal(n, v), 0) if n in self._diagonals else v for n, v in elements.items()}
        return super().combine(off, reduce)

    def masks(self, gone: Tensor, parameters: Parameters) -> dict[str, Tensor]:
        masks = {}
        for tile, part in zip(self._tiles, gone.split(self._counts)):
            parameter = parameters[tile.parameter]
            mask = ~tile.expand(part.to(parameter.device)).view(parameter.shape)
            if tile.parameter in self._diagonals:
                mask |= self._diagonal(tile.parameter, parameter)
            masks[tile.parameter] = mask
        return masks

    def scopes(self, scope: str) -> list[slice | Tensor]:
        keys = {"matrix": list(self.parameters), "layer": self._layer, "model": [""] * len(self._tiles)}[scope]
        found: dict[str, list[tuple[int, int]]] = {}
        first = 0
        for key, count in zip(keys, self._counts):
            spans = found.setdefault(key, [])
            if spans and spans[-1][1] == first:
                spans[-1] = (spans[-1][0], first + count)
            else:
                spans.append((first, first + count))
            first += count
        if self.name == "weight" and self._diagonals:
            off = torch.cat([~self._diagonals.get(t.parameter, _none(t)).reshape(-1) for t in self._tiles])
            return [torch.cat([a + off[a:b].nonzero()[:, 0] for a, b in spans]) for spans in found.values()]
        # Slices where possible: 8 bytes of index a weight would be more than the weights themselves.
        return [
            slice(*spans[0]) if len(spans) == 1 else torch.cat([torch.arange(a, b) for a, b in spans])
            for spans in found.values()
        ]

    def left(self, order: Tensor, present: Parameters) -> Tensor:
        return _running(sums(self.parts, {n: p.long() for n, p in present.items()}), order, present)

    def _diagonal(self, name: str, like: Tensor) -> Tensor:
        return self._diagonals[name].to(like.device)


class Slices(Level):
    """Rows, columns, gates (rows of ih and hh) or units (all that computes and all that reads a hidden unit)."""

    def __init__(self, groups: SliceGroups, parameters: Parameters, structure: Structure | None = None) -> None:
        self.name = groups.level
        self.groups = groups
        self.structure = structure  # that units were found in
        self.count = groups.count
        self.parameters = tuple(dict.fromkeys(member.parameter for member in groups.members))
        self._all = [SlicePart.of(member, groups.count, parameters[member.parameter]) for member in groups.members]
        self.parts = self.of_roles("outgoing" if groups.level == "unit" else "incoming")
        # A set of which some units stay in any case needs no guard.
        sets = groups.units.values() if groups.level == "unit" else ()
        self.keep_one = tuple(units for units in sets if len(units) and bool((units >= 0).all()))

    def of_roles(self, *roles: Role) -> list[SlicePart]:
        """The parts of these roles; those of several roles are not disjoint (a unit's weights on itself)."""
        return [part for part in self._all if part.member.role in roles]

    def masks(self, gone: Tensor, parameters: Parameters) -> dict[str, Tensor]:
        return self.groups.mask(parameters, gone, ROLES if self.name == "unit" else ("incoming",))

    def relative(self, scores: Tensor) -> Tensor:
        """Scores of units in shares of the root mean square of their layer and direction, what is at zero left out.

        How large a layer's values are, and so the weights that read them, says nothing about how much it is needed: a
        layer scaled by c and its readers by 1/c is the same function.
        """
        if self.name != "unit":
            return scores
        found = scores.clone()
        for numbers in self.scopes("layer"):
            assert isinstance(numbers, Tensor)
            numbers = numbers.to(scores.device)
            own = scores[numbers]
            there = own[own != 0]
            if len(there):
                found[numbers] = own / there.square().mean().sqrt()
        return found

    def scopes(self, scope: str) -> list[slice | Tensor]:
        if scope == "model":
            return [torch.arange(self.count)]
        if scope == "matrix" and self.name in ("row", "column"):
            return [member.group for member in self.groups.members]
        found: dict[str, list[int]] = {}
        for number, layer in enumerate(self.groups.scopes):
            found.setdefault(layer, []).append(number)
        return [torch.tensor(numbers) for numbers in found.values()]

    def left(self, order: Tensor, present: Parameters) -> Tensor:
        if self.name != "unit":
            parts = [part for part in self.parts if part.parameter in present]
            sizes = sums(parts, {n: p.long() for n, p in present.items()}) if parts else torch.zeros(self.count)
            return _running(sizes.long(), order, present)
        # Rows and columns of one matrix both shrink: the weights left are those of its smaller shape.
        total = torch.zeros(len(order) + 1, dtype=torch.long)
        for name, weights in present.items():
            sides = []
            for axis, size in enumerate(weights.shape):
                cut = torch.zeros(self.count, dtype=torch.long)
                for part in self._all:
                    member = part.member
                    if member.parameter == name and member.axis == axis and not member.within:
                        cut += (part.slots < size).sum(1)
                sides.append(size - torch.cat([cut.new_zeros(1), cut[order.cpu()].cumsum(0)]))
            total += torch.stack(sides).prod(0)
        return total

    def expected(self, gone: Tensor, shapes: Mapping[str, torch.Size]) -> Tensor:
        """Expected number of weights in matrices of these shapes, if group k is out with probability gone[k].

        Differentiable; rows and columns are taken to be independent, which misses a variance only.
        """
        total = gone.new_zeros(())
        for name, shape in shapes.items():
            weights = gone.new_ones(())
            for axis, size in enumerate(shape):
                cut = torch.zeros(self.count, dtype=torch.long)
                for part in self._all:
                    member = part.member
                    if member.parameter == name and member.axis == axis and not member.within:
                        cut += (part.slots < size).sum(1)
                weights = weights * (size - (cut.to(gone) * gone).sum())
            total = total + weights
        return total


def _none(tile: Tiles) -> Tensor:
    return torch.zeros(tile.rows, tile.columns, dtype=torch.bool)


def _running(sizes: Tensor, order: Tensor, present: Parameters) -> Tensor:
    gone = sizes[order].cumsum(0)
    return sum(int(p.sum()) for p in present.values()) - torch.cat([gone.new_zeros(1), gone])


def _diagonals(
    layers: tuple[RecurrentLayer, ...], parameters: Parameters, weights: tuple[str, ...]
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for layer in layers:
        for row in layer.rows:
            # With a projection the recurrent matrix of a gate is not square and has no diagonal.
            if row.kind == "hh" and row.parameter in weights and layer.proj_size == 0:
                empty = torch.zeros(parameters[row.parameter].shape, dtype=torch.bool)
                number = torch.arange(layer.hidden_size)
                found.setdefault(row.parameter, empty)[row.start + number, number] = True
    return found
