"""Folding in the course of training: at some moments units go and what reads them is solved anew, as `fold` does it.

In between the net trains on with what is left. A fold in the middle of training costs little of what the net has
learnt, and the steps after it make up for that; what has gone stays at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...structure.structure import Structure
from ...structure.trace import quiet
from ..batches import inputs_of
from ..cost import Cost, Members, counted_by, left_by
from ..folding import Folding, most_gone, reasons_to_stay, why_no_less
from ..least_squares import Sizes
from ..levels import Slices
from ..recording import Recording, recorded, warn_of_few
from .path import Course, Goal, Path


@dataclass(frozen=True, eq=False)
class Fold(Path):
    """At the moments `at` units are folded away (see `fold`); after the last one the choice is final.

    Arguments:
        batches: inputs as the model meets them, each as in `example_inputs` of `trace`, gone through anew at each fold:
            a list or a DataLoader, whose labels are left out.
        at: when, in rising shares of all steps. Each fold keeps the same share of what is there.
        ridge, inputs, positions: as of `fold`.

    What can't be folded (see `fold`) stays. Where several processes train, the first one's fold is everyone's.
    """

    chooses_by_score: ClassVar[bool] = False
    batches: Iterable[Any] = field(repr=False)
    at: Sequence[float] = (0.25, 0.375, 0.5)
    ridge: float = 0.1
    inputs: Callable[[Any], Any] | None = None
    positions: int = 40_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", (self.at,) if isinstance(self.at, (int, float)) else tuple(self.at))
        before = (0, *self.at)
        if not self.at or self.at[-1] > 1 or not all(a < b for a, b in zip(before, self.at)):
            raise ValueError(f"Fold: at is {self.at}, expected rising shares of all steps, above 0 and at most 1.")
        if isinstance(self.batches, Iterator):
            raise TypeError(
                f"Fold: batches is a {type(self.batches).__name__}, which is gone through once, expected a list or a "
                "DataLoader: every fold reads it anew."
            )

    def check(self, levels: Sequence[str], cost: Cost) -> None:
        """ValueError for a level that can't be folded."""
        if tuple(levels) != ("unit",):
            raise ValueError(
                f'Shrink: path=Fold(...) takes whole units, got level {", ".join(levels)}; fold(level="weight") '
                "thins matrices out at once."
            )

    def course(self, goal: Goal) -> Course:
        """The course of one training along this path."""
        course = Folds(goal, path=self)
        course.check_reached()
        return course

    def moments(self, steps: int) -> dict[int, int]:
        """Step -> number of the fold after it, from 1; of several at one step the last."""
        return {max(1, round(share * steps)): number for number, share in enumerate(self.at, start=1)}


@dataclass
class Folds(Course):
    """Between folds nothing is chosen; `gone` is what was folded away, which is held at zero."""

    path: Fold = field(kw_only=True)

    def one_optimizer(self) -> str:
        """Empty: any number of optimizers may train."""
        return ""

    def watch(self, parameters: Mapping[str, Tensor], scale: Tensor | float) -> None:
        """No score is asked."""

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: fold if it is time; True if it was."""
        number = self.path.moments(self.goal.steps).get(step)
        if self.frozen or number is None:
            return False
        gone = self._fold(self.to ** (number / len(self.path.at)))
        self.gone, self.frozen = [gone], number == len(self.path.at)
        return True

    def _fold(self, share: float) -> Tensor:
        """Down to `share`: the readers' weights are written; what has gone is returned, bool (groups,)."""
        model, level = self.goal.model, self._level
        odd = next((name for name, value in model.named_parameters() if not bool(value.isfinite().all())), None)
        if odd is not None:
            raise ValueError(f"Shrink: {odd} is not finite, so nothing can be folded: look at the training first.")
        before = None if self.gone is None else self.gone[0]
        with quiet():
            recording = self._recorded(self.path.positions)
            warn_of_few(recording.recorder, max(map(len, level.groups.units.values()), default=0), "units a layer")
            work = Folding(recording, self._structure, level.groups, self.path.ridge, before)
            (step,) = work.run([share], self._left(), Sizes(self._counted(), level.count))
            work.written(model, step.gone)
        return _agreed(step.gone, [model.get_parameter(name) for name in work.solved_parameters()])

    def check_reached(self) -> None:
        """ValueError if what can be folded, by the first of the batches, leaves more than is wanted."""
        with quiet():
            recording = self._recorded(1)
        reasons = reasons_to_stay(self._structure, self._level.groups, recording.recorder)
        may_go = torch.tensor([reason is None for reason in reasons])
        least = self._left()(most_gone(self._level.groups, may_go)) / self.budget.total
        if least > self.to:
            raise ValueError(
                f"Shrink: path=Fold(...) leaves a share of {least:.4g} at least, more than {self.to:.4g}: "
                f"{why_no_less(reasons)}."
            )

    @property
    def _level(self) -> Slices:
        level = self.budget.levels[0]
        assert isinstance(level, Slices)
        return level

    @property
    def _structure(self) -> Structure:
        assert self._level.structure is not None
        return self._level.structure

    def _counted(self) -> Members:
        return counted_by(self._level.groups, self.budget.shapes)

    def _left(self) -> Callable[[Tensor], float]:
        return left_by(self._level.groups, self._counted(), self.goal.cost)

    def _recorded(self, positions: int) -> Recording:
        members = self._level.groups.members
        wanted = {(m.parameter, m.axis) for m in members if m.role == "outgoing"}
        calls = inputs_of(self.path.batches, self.goal.model, self.path.inputs, "Fold")
        return recorded(self.goal.model, calls, positions, wanted)


def _agreed(gone: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """What the first process decided and wrote, on all of them."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return gone
    shared = gone.to(parameters[0].device, torch.uint8)
    for tensor in (shared, *(parameter.detach() for parameter in parameters)):
        distributed.broadcast(tensor, 0)
    return shared.to("cpu", torch.bool)
