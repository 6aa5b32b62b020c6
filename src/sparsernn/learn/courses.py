"""From the options of `GroupLasso` to the course that it takes: which method, towards which size or loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .hard_concrete import HardConcrete
from .shrink import ShrinkToZero
from .target import Budget, Course, Ramp, SoftTopK
from .within_loss import WithinLoss

Method = Literal["top-k", "shrink", "hard-concrete"]
_METHODS: dict[str, Callable[[Budget, Ramp, float, int], Course]] = {
    "top-k": SoftTopK,
    "shrink": ShrinkToZero,
    "hard-concrete": HardConcrete,
}


@dataclass(frozen=True)
class Goal:
    """What a course leads to: `target` (a share, or with `costs` a size in the unit of the cost), or a loss that is at
    most `max_loss` (a share of its size) higher than at the start."""

    kind: str
    target: float | None
    max_loss: float | None
    validate: Callable[[], float] | None
    least: float
    steps: int
    method: str
    ramp: Ramp | None
    absolute: bool


def make_course(goal: Goal, budget: Budget, parameters: Mapping[str, Tensor]) -> Course:
    """The course to `goal`. Raises ValueError if the size can't be reached, whatever goes."""
    if goal.max_loss is not None:
        assert goal.validate is not None
        ramp = Ramp(end=0.6, freeze=0.6) if goal.ramp is None else goal.ramp
        return WithinLoss(budget, ramp, goal.max_loss, goal.validate, goal.least, goal.steps)
    assert goal.target is not None
    share = min(1.0, goal.target / budget.total) if goal.absolute else float(goal.target)
    with torch.no_grad():
        least = budget.smallest(parameters)
    if least > share:
        what = f"{least * budget.total:.4g}" if goal.absolute else f"{least:.4g} of what is governed"
        raise ValueError(
            f"{goal.kind}: target={goal.target} cannot be reached: {what} stays in any case "
            "(units that are kept, one unit a layer and direction).\nSee trace(...).explain()."
        )
    return _METHODS[goal.method](budget, Ramp() if goal.ramp is None else goal.ramp, share, goal.steps)
