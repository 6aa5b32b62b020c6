"""Reaching a size in one run: soft top-k on a cubic ramp, then frozen and fine-tuned.

The number of groups that a penalty brings to zero follows its strength only after many steps, too late to steer by. So
the groups are picked directly: now and then the lowest-scoring ones are zeroed, as many as the budget of that moment
demands; they go on receiving gradients and may come back, until the choice is frozen and the rest of the steps
fine-tunes what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .levels import Level, scored, scores_of, zero
from .saved import Some
from .scores import Score
from .select import lowest, protected


@dataclass(frozen=True)
class Ramp:
    """When what goes, in shares of all steps: the budget falls from `begin` to `end` and is frozen at `freeze`.

    Between them the share kept is target + (1 - target) (1 - a)^3 with a rising from 0 to 1, renewed every `every`
    steps (the cubic of Zhu & Gupta, arXiv 1710.01878). Early is better than late where the learning rate decays: what
    is left needs the large steps.
    """

    begin: float = 0.0
    end: float = 0.3
    freeze: float = 0.4
    every: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.end <= self.freeze <= 1:
            raise ValueError(
                f"Ramp: got begin={self.begin}, end={self.end}, freeze={self.freeze}, "
                "expected 0 <= begin <= end <= freeze <= 1 (shares of all steps)."
            )
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"Ramp: every is {self.every!r}, expected a whole number of steps, at least 1.")

    def freeze_step(self, steps: int) -> int:
        return max(1, round(self.freeze * steps))

    def share(self, step: int, steps: int, target: float) -> float | None:
        """The share of weights to keep after `step` of `steps`; None: nothing is decided at this step."""
        if step >= self.freeze_step(steps):
            return target
        if step % self.every or step < self.begin * steps:
            return None
        width = (self.end - self.begin) * steps
        done = min(1.0, (step - self.begin * steps) / width) if width else 1.0
        return target + (1 - target) * (1 - done) ** 3


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

    def smallest(self, parameters: Mapping[str, Tensor]) -> float:
        """The smallest share that can be reached: some units are kept in any case."""
        return self._left(self.choose(parameters, 0.0), parameters) / self.total

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


def copies(gone: Sequence[Tensor] | None) -> list[Tensor]:
    """A choice of groups, to be saved or taken over."""
    return [out.cpu().clone() for out in gone or ()]


class Course(Protocol):
    """One run towards a size: which groups are out, and whether that is final."""

    budget: Budget
    gone: list[Tensor] | None
    frozen: bool
    steps: int

    @property
    def target(self) -> float: ...

    def watch(self, parameters: Mapping[str, Tensor], scale: Tensor | float) -> None:
        """Before an optimizer step, with the gradients (`scale` times the true ones) at hand."""

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: do what is due; True if the choice has just become final."""
        ...

    def settle(self, step: int, parameters: Mapping[str, Tensor]) -> None:
        """The run ends before its time."""

    def state_dict(self) -> dict[str, Any]: ...

    def form(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """The form of `state_dict` (see saved.py)."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None: ...


def watch_scores(budget: Budget, parameters: Mapping[str, Tensor], scale: Tensor | float) -> None:
    """Show the gradients (`scale` times the true ones) to a score that watches them."""
    if not budget.score.watches:
        return
    for name in dict.fromkeys(name for level in budget.levels for name in scored(level)):
        gradient = parameters[name].grad
        if gradient is not None:
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            budget.score.watch(name, parameters[name], dense / scale)


@dataclass
class TowardsSize:
    """The state of one run towards `target`: which groups are out (`gone`), and whether that is final (`frozen`)."""

    budget: Budget
    ramp: Ramp
    target: float
    steps: int
    gone: list[Tensor] | None = None
    frozen: bool = False

    def watch(self, parameters: Mapping[str, Tensor], scale: Tensor | float) -> None:
        """The score may look at the gradients."""
        if not self.frozen:
            watch_scores(self.budget, parameters, scale)


@dataclass
class SoftTopK(TowardsSize):
    """Chooses anew at each step, until that is final."""

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: zero what is due; True if the choice has just become final."""
        if self.frozen:
            return False
        share = self.ramp.share(step, self.steps, self.target)
        if share is None:
            return False
        self.gone = self.budget.choose(parameters, share)
        self.frozen = step >= self.ramp.freeze_step(self.steps)
        self.budget.zero(self.gone, parameters)
        return self.frozen

    def settle(self, step: int, parameters: Mapping[str, Tensor]) -> None:
        """What is out is at zero already."""

    def load_state_dict(self, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
        self.frozen, self.gone = state["frozen"], copies(state["gone"]) or None

    def state_dict(self) -> dict[str, Any]:
        return {"frozen": self.frozen, "gone": copies(self.gone)}

    def form(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"frozen": bool, "gone": Some(self.budget.form())}
