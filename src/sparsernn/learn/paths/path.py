"""What all paths share: the base of their settings, what they lead to, and a run's state with its one `state_dict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..budget import Budget
from ..cost import Cost
from ..saved import Some
from ..scores import watch_gradients


@dataclass(frozen=True)
class Goal:
    """What a path leads to: `to`, the share of `budget.total` that is kept, at the end of a run of `steps`.

    `model`: without wrappers. `cost`: what the budget counts.
    """

    model: nn.Module
    budget: Budget
    to: float
    steps: int
    cost: Cost


class Path:
    """A way to a size: the settings that `Shrink` takes as `path=`. A new one is a file with this and a `Course`."""

    chooses_by_score: ClassVar[bool] = True

    def check(self, levels: Sequence[str], cost: Cost) -> None:
        """Raise ValueError where the path does not go with these levels or this cost."""

    def course(self, goal: Goal) -> Course:
        """A run that has not begun. Raises ValueError where `goal` cannot be reached on this path."""
        raise NotImplementedError(f"{type(self).__name__} defines no course(goal), which every path needs.")


@dataclass(frozen=True)
class Ramped(Path):
    """A path along the cubic ramp of Zhu & Gupta (arXiv 1710.01878), in shares of all steps.

    The share kept falls from 1 at `begin` to what is wanted at `end`; the choice is final at `freeze`.
    """

    begin: float = 0.0
    end: float = 0.3
    freeze: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.end <= self.freeze <= 1:
            raise ValueError(
                f"{type(self).__name__}: got begin={self.begin}, end={self.end}, freeze={self.freeze}, "
                "expected 0 <= begin <= end <= freeze <= 1 (shares of all steps)."
            )

    def freeze_step(self, steps: int) -> int:
        return max(1, round(self.freeze * steps))

    def kept(self, step: int, steps: int, to: float) -> float:
        """The share that is kept after `step` of `steps`: to + (1 - to) (1 - a)^3 with a rising from 0 to 1."""
        width = (self.end - self.begin) * steps
        done = (step - self.begin * steps) / width if width else 1.0
        return to + (1 - to) * (1 - min(1.0, max(0.0, done))) ** 3


def copies(tensors: Sequence[Tensor] | None) -> list[Tensor]:
    """A choice of groups or other tensors, to be saved or taken over."""
    return [each.cpu().clone() for each in tensors or ()]


@dataclass
class Course:
    """The state of one run along a path: which groups are out (`gone`), and whether that is final (`frozen`).

    What else a path remembers it gives and takes in `memory`, `memory_form` and `recall`.
    """

    goal: Goal
    gone: list[Tensor] | None = None
    frozen: bool = False
    keeps_weights: ClassVar[bool] = False  # True: it puts back weights that it keeps itself

    @property
    def budget(self) -> Budget:
        return self.goal.budget

    @property
    def to(self) -> float:
        """The share that is kept at the end."""
        return self.goal.to

    def one_optimizer(self) -> str:
        """Why all parameters have to be those of one optimizer; empty where they need not."""
        return "its score watches the gradients of a step" if self.budget.score.watches else ""

    def watch(self, parameters: Mapping[str, Tensor], scale: Tensor | float) -> None:
        """Before an optimizer step, with the gradients (`scale` times the true ones) at hand."""
        if not self.frozen:
            watch_gradients(self.budget.score, self.budget.scored, parameters, scale)

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: do what is due; True if what is out now has to stay out."""
        raise NotImplementedError(f"{type(self).__name__} defines no advance(step, parameters).")

    def end_early(self, step: int, parameters: Mapping[str, Tensor]) -> None:
        """The run ends before its time."""

    def memory(self) -> dict[str, Any]:
        return {}

    def memory_form(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """The form of `memory` (see saved.py)."""
        return {}

    def recall(self, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
        """Take over what `memory` gave; it has the right form."""

    def state_dict(self) -> dict[str, Any]:
        return {"frozen": self.frozen, "gone": copies(self.gone), **self.memory()}

    def form(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"frozen": bool, "gone": Some(self.budget.form()), **self.memory_form(parameters)}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
        self.recall(state, parameters)  # first: it may refuse
        self.frozen, self.gone = state["frozen"], copies(state["gone"]) or None
