"""Soft top-k on a cubic ramp, then frozen and fine-tuned.

The number of groups that a penalty brings to zero follows its strength only after many steps, too late to steer by. So
the groups are picked directly: now and then the lowest-scoring ones are zeroed, as many as the budget of that moment
demands; they go on receiving gradients and may come back, until the choice is frozen and the rest of the steps
fine-tunes what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .path import Course, Goal, Ramped


@dataclass(frozen=True)
class TopK(Ramped):
    """The lowest scores are zeroed on a ramp, and may come back until the choice is frozen; the default of `Shrink`.

    In shares of all steps: what is kept falls from everything at `begin` to the size that is wanted at `end`, by a
    cubic (Zhu & Gupta, arXiv 1710.01878) that is renewed every `every` steps; the choice is final at `freeze`. Early is
    better than late where the learning rate decays: what is left needs the large steps. Raises ValueError where the
    three shares do not rise from 0 to 1, or `every` is no whole number of steps.
    """

    every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"TopK: every is {self.every!r}, expected a whole number of steps, at least 1.")

    def share(self, step: int, steps: int, to: float) -> float | None:
        """The share of weights to keep after `step` of `steps`; None: nothing is decided at this step."""
        if step >= self.freeze_step(steps):
            return to
        if step % self.every or step < self.begin * steps:
            return None
        return self.kept(step, steps, to)

    def course(self, goal: Goal) -> Course:
        """The course of one training along this path."""
        return SoftTopK(goal, path=self)


@dataclass
class SoftTopK(Course):
    """Chooses anew at each step, until that is final."""

    path: TopK = field(kw_only=True)

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: zero what is due; True if the choice has just become final."""
        if self.frozen:
            return False
        share = self.path.share(step, self.goal.steps, self.to)
        if share is None:
            return False
        self.gone = self.budget.choose(parameters, share)
        self.frozen = step >= self.path.freeze_step(self.goal.steps)
        self.budget.zero(self.gone, parameters)
        return self.frozen
