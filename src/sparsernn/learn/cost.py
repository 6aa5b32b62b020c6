"""What a size is counted in: weights, multiply-adds of a time step, or whatever a callable says of the widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..structure.groups import SliceGroups
from .budget import Budget
from .governed import Governed
from .levels import Level, Slices, scored
from .options import number
from .scores import Score

Cost = Literal["weights", "mult-adds"] | Callable[[Mapping[str, int]], float]


def make_budget(
    kind: str, model: nn.Module, levels: Sequence[Level], chosen: Governed, score: Score, cost: Cost
) -> Budget:
    """The budget that counts in `cost`. Raises ValueError where `cost` is none or does not go with the levels."""
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    governed = {name: parameters[name] for name in chosen.weights}
    if cost == "weights":
        return Budget(levels, governed, score)
    if not callable(cost) and cost != "mult-adds":
        raise ValueError(
            f'{kind}: cost is {cost!r}, expected "weights", "mult-adds" or a function of the units left in each layer.'
        )
    level = levels[0]
    if len(levels) > 1 or not isinstance(level, Slices) or level.name != "unit":
        raise ValueError(
            f"{kind}: cost={'a function' if callable(cost) else repr(cost)} counts whole units: it goes with "
            f'level="unit", got {", ".join(each.name for each in levels)}.'
        )
    if callable(cost):
        return WidthBudget(kind, level, governed, score, cost)
    return Budget(levels, multiplied(model, level) | governed, score)


def multiplied(model: nn.Module, level: Level) -> dict[str, Tensor]:
    """Every matrix that takes a multiply-add for each of its weights at a time step: embeddings are looked up, but for
    those that decode as well and so read units."""
    tables = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for name, _ in module.named_parameters(recurse=False)
    }
    readers = set(scored(level))
    return {n: p for n, p in model.named_parameters() if p.dim() == 2 and (n not in tables or n in readers)}


Members = Mapping[str, tuple[Tensor, Tensor]]  # matrix -> the group of each row and of each column, -1: none


def counted_by(groups: SliceGroups, shapes: Mapping[str, Sequence[int]]) -> Members:
    """Matrices of these shapes, with the groups of their rows and columns."""
    found = {}
    for name, shape in shapes.items():
        axes = [torch.full((size,), -1) for size in shape]
        for member in groups.members:
            if member.parameter == name:
                axes[member.axis] = torch.where(member.group >= 0, member.group, axes[member.axis])
        found[name] = (axes[0], axes[1])
    return found


def left_by(groups: SliceGroups, counted: Members, cost: Cost) -> Callable[[Tensor], float]:
    """What is left once the units in `gone` are out, bool (groups,): weights of what is `counted`, or a cost's own."""

    def there(gone: Tensor, numbers: Tensor) -> int:
        return int((~torch.cat([gone, gone.new_zeros(1)])[numbers]).sum())

    if callable(cost):
        return lambda gone: value_of(cost, {name: there(gone, units) for name, units in groups.units.items()}, "fold")
    return lambda gone: float(sum(there(gone, rows) * there(gone, columns) for rows, columns in counted.values()))


def value_of(cost: Callable[[Mapping[str, int]], Any], widths: dict[str, int], kind: str) -> float:
    """What `cost` says of these widths. ValueError, by `kind`, where that is no finite number above 0."""
    value = number(found := cost(widths))
    if value is None or not 0 < value < math.inf:
        said = repr(found) if value is None else value
        raise ValueError(f"{kind}: cost({widths}) is {said}, expected a finite number above 0.")
    return value


class WidthBudget(Budget):
    """A budget in the unit of `cost`, a function of the number of units left in each set of a trace."""

    def __init__(
        self,
        kind: str,
        level: Slices,
        governed: Mapping[str, Tensor],
        score: Score,
        cost: Callable[[Mapping[str, int]], float],
    ) -> None:
        super().__init__([level], governed, score)
        self._kind, self._units, self._cost = kind, level.groups.units, cost
        self.total = self._of(torch.zeros(level.count, dtype=torch.bool))

    def widths(self, gone: Tensor) -> dict[str, int]:
        """Units left in each set once the groups in `gone` (bool, (count,)) are out."""
        padded = torch.cat([gone.cpu(), torch.zeros(1, dtype=torch.bool)])  # the place of group -1
        return {name: int((~padded[numbers.cpu()]).sum()) for name, numbers in self._units.items()}

    def _of(self, gone: Tensor) -> float:
        widths = self.widths(gone)
        return value_of(self._cost, widths, self._kind)

    def _left(self, gone: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> float:
        return self._of(gone[0])

    def _how_many(self, level: Level, order: Tensor, present: Mapping[str, Tensor], budget: float, count: int) -> int:
        def over(number: int) -> bool:
            gone = torch.zeros(count, dtype=torch.bool)
            gone[order[:number].cpu()] = True
            return self._of(gone) > budget

        low, high = 0, len(order)
        while low < high:  # fewer units never cost more, so the smallest number that fits is found by halving
            middle = (low + high) // 2
            low, high = (middle + 1, high) if over(middle) else (low, middle)
        return low
