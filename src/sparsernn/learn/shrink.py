"""Reaching a size by periods: what goes is chosen at the start of each and shrunk to zero in its course.

After HESSO (Chen et al., arXiv 2409.09085): the network sees a group fade before it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .saved import Some
from .target import TowardsSize, copies

PERIODS = 10


@dataclass
class ShrinkToZero(TowardsSize):
    """The state of one run: what is out for good (`gone`), and what fades in this period (`fading`)."""

    fading: list[Tensor] = field(default_factory=list)

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: let fade what is due; True if the choice has just become final."""
        if self.frozen:
            return False
        begin = round(self.ramp.begin * self.steps)
        length = max(1, round((self.ramp.end - self.ramp.begin) * self.steps / PERIODS))
        period, place = divmod(step - 1 - begin, length)
        freeze = self.ramp.freeze_step(self.steps)
        if step >= freeze and period >= 0:
            self.gone, self.fading = self.budget.choose(parameters, self.target), []
            self.frozen = True
        elif 0 <= period < PERIODS:
            if place == 0:
                share = self.target + (1 - self.target) * (1 - (period + 1) / PERIODS) ** 3
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

    def settle(self, step: int, parameters: Mapping[str, Tensor]) -> None:
        """The run ends before its time: nothing is to be put right."""

    def state_dict(self) -> dict[str, Any]:
        return {"frozen": self.frozen, "gone": copies(self.gone), "fading": copies(self.fading)}

    def form(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"frozen": bool, "gone": Some(self.budget.form()), "fading": Some(self.budget.form())}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
        self.frozen, self.gone, self.fading = state["frozen"], copies(state["gone"]) or None, copies(state["fading"])
