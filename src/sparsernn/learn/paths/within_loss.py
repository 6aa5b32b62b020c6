"""As small as a loss allows: groups go in stages as long as the loss on validation data stays near what it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..saved import Some, like
from .path import Course, copies
from .top_k import TopK

STAGES = 20
RAMP = TopK(end=0.6, freeze=0.6)  # by default


@dataclass
class WithinLoss(Course):
    """At each stage a smaller share is tried, and the last one that was good is gone back to.

    `validate` is asked for a loss (less is better) before anything goes, and at the end of each stage, when the net has
    adapted to what went. Once the loss is above the first one by more than `rise` times its size, weights and choice of
    the last good stage are put back, and that choice is final. The last stage keeps the share `goal.to`.
    """

    path: TopK = field(kw_only=True)
    rise: float = field(kw_only=True)
    validate: Callable[[], float] = field(kw_only=True)
    stage: int = 0
    reference: float | None = None
    good: dict[str, Any] | None = None  # choice and weights of the last good stage

    @property
    def to(self) -> float:
        """The share that the present stage keeps, of all that is governed."""
        return self.goal.to ** (self.stage / STAGES)

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: zero what is out, judge at a stage's end; True if the choice is final now."""
        path, steps = self.path, self.goal.steps
        if self.frozen or step < path.begin * steps:
            return False
        length = max(1, round((path.end - path.begin) * steps / STAGES))
        place = step - round(path.begin * steps)
        if self.reference is None:
            self.reference = self._first()
            self._next(parameters)
        elif place >= self.stage * length:
            if float(self.validate()) <= self.reference + self.rise * abs(self.reference):
                self._keep(parameters)
                if self.stage < STAGES:
                    self._next(parameters)
                else:
                    self.frozen = True
            else:
                self._put_back(parameters)
        elif self.gone is not None and step % path.every == 0:
            self._choose(parameters)
        return self.frozen

    def _first(self) -> float:
        loss = float(self.validate())
        if not math.isfinite(loss):
            raise ValueError(f"validate() gave {loss} before anything went, expected a finite loss.")
        if loss == 0 and self.rise > 0:
            raise ValueError(
                "validate() gave 0 before anything went, and no share of 0 bounds a loss.\n"
                "Let it return a loss that is not 0 there, such as the loss plus the scale that counts."
            )
        return loss

    def _choose(self, parameters: Mapping[str, Tensor]) -> None:
        self.gone = self.budget.choose(parameters, self.to)
        self.budget.zero(self.gone, parameters)

    def _next(self, parameters: Mapping[str, Tensor]) -> None:
        if self.good is None:
            self._keep(parameters)
        self.stage += 1
        self._choose(parameters)

    def _keep(self, parameters: Mapping[str, Tensor]) -> None:
        if self.gone is not None:
            self._choose(parameters)
        self.good = {
            "gone": [] if self.gone is None else self.gone,
            "weights": {name: parameters[name].detach().clone() for name in self._names()},
        }

    def _put_back(self, parameters: Mapping[str, Tensor]) -> None:
        assert self.good is not None
        for name, value in self.good["weights"].items():
            parameters[name].copy_(value)
        none = [torch.zeros(level.count, dtype=torch.bool) for level in self.budget.levels]
        self.gone, self.frozen, self.good = self.good["gone"] or none, True, None

    def end_early(self, step: int, parameters: Mapping[str, Tensor]) -> None:
        """The run ends before its time: back to the last stage that was good."""
        if not self.frozen and self.good is not None:
            self._put_back(parameters)

    def memory(self) -> dict[str, Any]:
        good = None
        if self.good is not None:
            weights = {name: value.cpu().clone() for name, value in self.good["weights"].items()}
            good = {"gone": copies(self.good["gone"]), "weights": weights}
        return {"stage": self.stage, "reference": self.reference, "good": good}

    def memory_form(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        weights = {name: like(parameters[name]) for name in self._names()}
        good = {"gone": Some(self.budget.form()), "weights": weights}
        return {"stage": int, "reference": Some(float), "good": Some(good)}

    def recall(self, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
        self.stage, self.reference, self.good = min(state["stage"], STAGES), state["reference"], None
        if state["good"] is not None:
            weights = {n: v.to(parameters[n].device, copy=True) for n, v in state["good"]["weights"].items()}
            self.good = {"gone": copies(state["good"]["gone"]), "weights": weights}

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for level in self.budget.levels for name in level.parameters))
