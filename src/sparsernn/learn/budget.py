"""The budget: how many of the lowest-scoring groups go, so that at most a given share of the governed weights stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .levels import Level, scored, scores_of, zero
from .scores import Score
from .select import lowest, protected


class Budget:
    """Chooses the groups that go, so that at most a given share of the governed weights stays.

    With several levels, coarse before fine, each takes an equal factor of the share: units keep share^(1/3) of all
    weights, gates then share^(2/3), and single weights make the total exact.

    `total` is what there is before anything goes; `shapes` are those of the parameters that are counted.
    """

    def __init__(self, levels: Sequence[Level], governed: Mapping[str, Tensor], score: Score) -> None:
        self.levels = levels
        self.score = score
        self.shapes = {name: weight.shape for name, weight in governed.items()}
        self.total: float = sum(weight.numel() for weight in governed.values())

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the parameters whose weights say what goes."""
        return tuple(dict.fromkeys(name for level in self.levels for name in scored(level)))

    def check_reached(self, share: float, parameters: Mapping[str, Tensor], asked: str, *, own_unit: bool) -> None:
        """ValueError, about what was `asked`, if more than `share` stays in any case; in the unit of a cost or not."""
        least = self._left(self.choose(parameters, 0.0), parameters) / self.total
        if least > share:
            what = f"{least * self.total:.4g}" if own_unit else f"{least:.4g} of what is governed"
            raise ValueError(
                f"Shrink: {asked} cannot be reached: {what} stays in any case "
                "(units that are kept, one unit a layer and direction).\nSee trace(...).explain()."
            )

    def masks(self, gone: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameter name -> bool mask once `gone` is out at every level."""
        masks: dict[str, Tensor] = {}
        for level, out in zip(self.levels, gone):
            for name, mask in level.masks(out, parameters).items():
                masks[name] = masks[name] & mask if name in masks else mask
        return masks

    def zero(self, gone: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> None:
        for level, out in zip(self.levels, gone):
            zero(level, out, parameters)

    def choose(
        self, parameters: Mapping[str, Tensor], share: float, scores_by_level: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """Which groups go, bool (count,) for each level, by the scores of their weights where none are given."""
        chosen: list[Tensor] = []
        present: dict[str, Tensor] = {
            n: torch.ones(s, dtype=torch.bool, device=parameters[n].device) for n, s in self.shapes.items()
        }
        for number, level in enumerate(self.levels, 1):
            budget = self.total * share ** (number / len(self.levels))
            if scores_by_level:
                scores = scores_by_level[number - 1]
            else:
                scores = scores_of(level, self.score, parameters)
            if not bool(scores.sum().isfinite()):
                raise ValueError(
                    "The weights hold NaN or infinity, so nothing can be chosen to go: look at the training first."
                )
            gone = self._exactly(scores, present, budget) if level.name == "weight" else None
            if gone is None:
                gone = self._walk(level, scores, present, budget)
            chosen.append(gone)
            if number < len(self.levels):
                for name, mask in level.masks(gone, parameters).items():
                    if name in present:
                        present[name] &= mask
        return chosen

    def _exactly(self, scores: Tensor, present: Mapping[str, Tensor], budget: float) -> Tensor:
        if len(self.levels) > 1:
            there = torch.cat([mask.reshape(-1).to(scores.device) for mask in present.values()])
            scores = scores.masked_fill(~there, -torch.inf)
        return lowest(scores, int(self.total) - round(budget))

    def _walk(self, level: Level, scores: Tensor, present: Mapping[str, Tensor], budget: float) -> Tensor:
        """Take groups out in the order of their scores until at most `budget` is left."""
        stay = protected(scores, level.keep_one)
        order = torch.argsort(scores, stable=True)
        order = order[~stay[order]]
        gone = torch.zeros_like(stay)
        gone[order[: self._how_many(level, order, present, budget, level.count)]] = True
        return gone

    def _how_many(self, level: Level, order: Tensor, present: Mapping[str, Tensor], budget: float, count: int) -> int:
        """How many groups, in this order, have to go until at most `budget` is left."""
        return int((level.left(order, present) > budget).sum())

    def form(self) -> list[Tensor]:
        """The form of a choice of groups, one mask a level."""
        return [torch.empty(level.count, dtype=torch.bool, device="meta") for level in self.levels]

    def _left(self, gone: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> float:
        """What is left once `gone` is out at every level."""
        masks = self.masks(gone, parameters)
        return sum(int(masks[n].sum()) if n in masks else s.numel() for n, s in self.shapes.items())
