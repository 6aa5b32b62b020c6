"""Fading in periods: what goes is chosen at the start of each and shrunk to zero in its course.

After HESSO (Chen et al., arXiv 2409.09085): the network sees a group fade before it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..saved import Some
from .path import Course, Goal, Ramped, copies

PERIODS = 10


@dataclass(frozen=True)
class Fade(Ramped):
    """Groups are chosen in ten periods and fade to zero in each (HESSO, arXiv 2409.09085).

    The periods lie between `begin` and `end`, and the choice is final at `freeze`; all in shares of all steps. Raises
    ValueError where they do not rise from 0 to 1.
    """

    def course(self, goal: Goal) -> Course:
        """The course of one training along this path."""
        return Fading(goal, path=self)


@dataclass
class Fading(Course):
    """What is out for good is in `gone`, what fades in this period in `fading`."""

    path: Fade = field(kw_only=True)
    fading: list[Tensor] = field(default_factory=list)

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: let fade what is due; True if the choice has just become final."""
        if self.frozen:
            return False
        path, steps = self.path, self.goal.steps
        begin = round(path.begin * steps)
        length = max(1, round((path.end - path.begin) * steps / PERIODS))
        period, place = divmod(step - 1 - begin, length)
        if step >= path.freeze_step(steps) and period >= 0:
            self.gone, self.fading = self.budget.choose(parameters, self.to), []
            self.frozen = True
        elif 0 <= period < PERIODS:
            if place == 0:
                share = self.to + (1 - self.to) * (1 - (period + 1) / PERIODS) ** 3
                # What is at zero already has the lowest scores, so it is chosen again.
                self.fading = self.budget.choose(parameters, share)
            for level, out in zip(self.budget.levels, self.fading):
                factor = torch.where(out, (length - place - 1) / (length - place), 1.0)
                for part in level.parts:
                    value = parameters[part.parameter]
                    part.multiply(value, part.spread(factor.to(value.device, value.dtype), 1.0))
            if place == length - 1:
                self.gone, self.fading = self.fading, []
        if self.gone is not None:
            self.budget.zero(self.gone, parameters)
        return self.frozen

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps: the groups that are fading."""
        return {"fading": copies(self.fading)}

    def memory_form(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """The form that `memory` has to have."""
        return {"fading": Some(self.budget.form())}

    def recall(self, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
        """Go on from what `memory` gave."""
        self.fading = copies(state["fading"])
