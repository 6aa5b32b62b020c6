"""Wen's penalty, verbatim: the sum over groups of sqrt(1e-8 + sum w^2), its value and its gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from .levels import Level, Slices, sums, wide
from .parts import Part, SlicePart, chunks

EPSILON = 1e-8  # inside the root, as in the authors' code (arXiv 1709.05027)
Groups = Literal["full", "outgoing"]
SelfWeights = Literal["twice", "once"]


class Penalty:
    """The penalty of one level: |w| for single weights, a group norm for all others.

    `groups`: for units, "full" (incoming rows, own column and all readers, as published) or "outgoing" (own column
    and readers only). `self_weights`: the weights of a unit on itself lie in its rows and in its column; "twice" adds
    their squares in both places, as the authors' code does, "once" counts each weight once.
    """

    def __init__(self, level: Level, groups: Groups = "full", self_weights: SelfWeights = "twice") -> None:
        self.level = level
        self.parts: Sequence[Part] = level.parts
        self._overlaps: list[tuple[str, Tensor, Tensor, Tensor]] = []
        if isinstance(level, Slices) and level.name == "unit" and groups == "full":
            self.parts = level.of_roles("incoming", "outgoing")
            if self_weights == "once":
                self._overlaps = [o for o in _overlaps(level.of_roles("incoming", "outgoing")) if len(o[1])]

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that the penalty pulls at."""
        return tuple(dict.fromkeys(part.parameter for part in self.parts))

    def value(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The penalty, a scalar, differentiable."""
        if self.level.name == "weight":
            values = [parameters[name].abs().sum() for name in self.level.parameters]
            return torch.stack([v.to(values[0].device) for v in values]).sum()
        return (self.squares(parameters) + EPSILON).sqrt().sum()

    def squares(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Sum of squares of each group, (count,), in at least float32."""
        whole, others = self._by_matrix()
        several = [sums(others, {p.parameter: wide(parameters[p.parameter]) ** 2 for p in others})] if others else []
        for name, parts in whole.items():
            along = _square_sums(parameters[name])
            several += [part.gather(along[part.member.axis]) for part in parts]
        total = several[0]
        for each in several[1:]:
            total = total + each.to(total.device)
        for name, rows, columns, group in self._overlaps:
            value = wide(parameters[name][rows.to(total.device), columns.to(total.device)])
            total = total.index_add(0, group.to(total.device), -(value * value))
        return total

    def _by_matrix(self) -> tuple[dict[str, list[SlicePart]], list[Part]]:
        """Parts that are whole rows and columns, by their matrix, and all others."""
        whole: dict[str, list[SlicePart]] = {}
        others: list[Part] = []
        for part in self.parts:
            if isinstance(part, SlicePart) and part.whole:
                whole.setdefault(part.parameter, []).append(part)
            else:
                others.append(part)
        return whole, others

    def add_gradient(self, parameters: Mapping[str, Tensor], scale: Tensor | float) -> Tensor:
        """Add `scale` times the gradient to `.grad` of the parameters; return the penalty's value."""
        for name in self.names:
            if parameters[name].grad is None:
                parameters[name].grad = torch.zeros_like(parameters[name])
        if self.level.name == "weight":
            for name in self.level.parameters:
                _grad(parameters, name).add_(parameters[name].sign() * scale)
            return self.value(parameters)
        norms = (self.squares(parameters) + EPSILON).sqrt()
        pull = scale / norms
        whole, others = self._by_matrix()
        for part in others:
            value = parameters[part.parameter]
            share = part.spread(pull.to(value.device, value.dtype), 0.0)
            part.add_product(_grad(parameters, part.parameter), value, share)
        for name, parts in whole.items():
            value = parameters[name]
            _add_products(_grad(parameters, name), value, parts, pull.to(value.device, value.dtype))
        for name, rows, columns, group in self._overlaps:
            value = parameters[name]
            place = rows.to(value.device), columns.to(value.device)
            _grad(parameters, name)[place] -= value[place] * pull.to(value.device, value.dtype)[group.to(value.device)]
        return norms.sum()


def _square_sums(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of squares of each row and of each column, in one pass over the memory; differentiable."""
    columns, rows = [], []
    for chunk in chunks(weight):
        squares = wide(weight[chunk]) ** 2
        rows.append(squares.sum(1))
        columns.append(squares.sum(0))
    return torch.cat(rows), torch.stack(columns).sum(0)


def _add_products(total: Tensor, value: Tensor, parts: Sequence[SlicePart], pull: Tensor) -> None:
    """Add value times the sum of its rows' and columns' shares in `pull` to `total`, in place and in one pass."""
    shares = [[part.spread(pull, 0.0) for part in parts if part.member.axis == axis] for axis in (0, 1)]
    zero = pull.new_zeros(1, 1)
    by_row, by_column = (sum(each[1:], each[0]) if each else zero for each in shares)
    for chunk in chunks(value):
        own = by_row[chunk] if shares[0] else by_row
        total[chunk].addcmul_(value[chunk], own + by_column)


def zero_below(weight: Tensor, threshold: float) -> None:
    """Zero all elements with |w| < threshold, in place and in one pass."""
    if threshold > 0:
        limit = torch.tensor(threshold, dtype=weight.dtype)
        # hardshrink zeroes |w| <= limit, the published rule |w| < threshold.
        torch.hardshrink(weight, float(torch.nextafter(limit, torch.zeros_like(limit))), out=weight)


def _grad(parameters: Mapping[str, Tensor], name: str) -> Tensor:
    gradient = parameters[name].grad
    assert gradient is not None
    if gradient.is_sparse:
        gradient = parameters[name].grad = gradient.to_dense()
    return gradient


def _overlaps(parts: Sequence[SlicePart]) -> list[tuple[str, Tensor, Tensor, Tensor]]:
    """(parameter, rows, columns, group) of the elements that lie in a group by their row and by their column."""
    found = []
    for a in parts:
        for b in parts:
            if a.parameter != b.parameter or (a.member.axis, b.member.axis) != (0, 1):
                continue
            rows = a.slots[:, :, None].expand(-1, -1, b.slots.shape[1])
            columns = b.slots[:, None, :].expand(-1, a.slots.shape[1], -1)
            there = (rows < len(a.member.group)) & (columns < len(b.member.group))
            group = torch.arange(len(rows))[:, None, None].expand_as(rows)
            found.append((a.parameter, rows[there], columns[there], group[there]))
    return found
