"""`Shrink`: in the course of training down to a size, or as far as a loss allows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..structure.groups import Level as LevelName
from .cost import Cost, make_budget
from .governed import Include
from .options import check_goal
from .paths.path import Course, Goal, Path
from .paths.top_k import TopK
from .paths.within_loss import RAMP, WithinLoss
from .saved import described, memory_form
from .scores import Magnitude, Score
from .sparsifier import Sparsifier
from .units import coarse_first, make_level


class Shrink(Sparsifier):
    """Learn which groups can go: down to a size (`to`), or as far as a loss allows (`max_loss`).

    Arguments:
        model: any module with recurrent layers.
        example_inputs: arguments of one forward pass (level "unit" runs the model once to find each unit's readers).
        to: share of the governed weights that is kept at the end, counted as `compact` would leave them. The budget is
            met with the last group that goes, so the result lies at most one group below it.
        max_loss: instead: as many groups go as leave `validate()` at most this share above its value at the start
            (0.01: one percent of its size, of a negative loss such as a log density too), for a model that is trained
            already.
        steps: number of optimizer steps of the whole run, fine-tuning included.
        path: how the size is reached. `TopK()`, the default: the lowest scores are zeroed on a ramp and may come back
            until it ends. `Fade()`: groups are chosen in periods and fade to zero in each. `HardConcrete()`: random
            gates on whole units. `Fold(batches)`: at some moments units are folded away, what reads them is solved
            anew. With `max_loss` a `TopK`, whose choice is tried in stages (by default in the first 60% of the steps).
        cost: what `to` counts: "weights"; "mult-adds", the multiply-adds of a time step in all matrices, readers
            included; or a function of the units left, {unit set of `trace`: number} -> cost above 0. Then `to` is in
            its unit (milliseconds, say, by `sparsernn.milliseconds`) and not a share. Whole units only.
        level: "unit", or one or several of "weight", "block", "word", "row" and "column" (of each matrix for itself),
            "gate" and "unit".
        validate: with `max_loss`: gives the loss on validation data, less is better; called in the course of steps,
            without gradients.
        least: with `max_loss`: the smallest share of the governed weights that is tried.
        score: which groups go first (`Magnitude()` by default; a `Fold` asks none).
        include: "recurrent", "all" or patterns of parameter names: whose weights or units are governed. A unit's
            group has all its readers in any case.
        carried_states: states that the model returns are only fed back into it, so their units may go.

    All units of the model compete with each other by the root mean square of what reads them, in shares of that of
    their layer and direction, and one unit of each always stays. So neither layers with few readers nor layers whose
    values are large go first; `score=Magnitude(comparable=True)` compares the weights as they are.

    Raises ValueError for a value out of its range, for arguments that do not go together (`to` and `max_loss`) and for
    a size that can't be reached, TypeError for what is no path or no function, and with level="unit" what `trace`
    raises.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        to: float | None = None,
        max_loss: float | None = None,
        steps: int | None = None,
        path: Path | None = None,
        cost: Cost = "weights",
        level: LevelName | Sequence[LevelName] = "unit",
        validate: Callable[[], float] | None = None,
        least: float = 0.05,
        score: Score | None = None,
        include: Include = "recurrent",
        carried_states: bool = False,
    ) -> None:
        levels = coarse_first("Shrink", level)
        check_goal(to, max_loss, validate, least, steps, cost)
        assert steps is not None
        if path is None:
            path = TopK() if max_loss is None else RAMP
        if not isinstance(path, Path):
            raise TypeError(f"Shrink: path is {path!r}, expected TopK(), Fade(), HardConcrete() or Fold(batches).")
        path.check(levels, cost)
        if score is not None and not path.chooses_by_score:
            raise ValueError(f"Shrink: path={type(path).__name__}(...) chooses what goes by itself, without score=.")
        if score is not None and score.runs:
            raise ValueError(f"Shrink: score={score!r} runs the model at each choice, which Prune alone does.")
        if max_loss is not None and not isinstance(path, TopK):
            raise ValueError(
                f"Shrink: path={type(path).__name__}(...) goes with to=, which it leads to; max_loss= takes TopK()."
            )
        super().__init__(model, include)
        score = Magnitude() if score is None else score
        way = {"steps": steps, "path": path, "cost": cost, "level": levels, "score": score}
        self._given = described({"to": to, "max_loss": max_loss, "least": least, **way})
        self.levels = [
            make_level(name, self._root, example_inputs, self._governed, include, carried_states=carried_states)
            for name in levels
        ]
        self.path = path
        budget = make_budget("Shrink", self._root, self.levels, self._governed, score, cost)
        if max_loss is not None:
            assert validate is not None and isinstance(path, TopK)
            goal = Goal(self._root, budget, least, steps, cost)
            self._course: Course = WithinLoss(goal, path=path, rise=max_loss, validate=validate)
        else:
            assert to is not None
            share = min(1.0, to / budget.total) if callable(cost) else float(to)
            with torch.no_grad():
                budget.check_reached(share, self._parameters, f"to={to}", own_unit=callable(cost))
            self._course = path.course(Goal(self._root, budget, share, steps, cost))
        self._decision: dict[str, Tensor] | None = None  # masks of the present choice, made when asked for

    def _touched(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for level in self.levels for name in level.parameters))

    def _check_optimizer(self, optimizer: Optimizer, trained: set[int]) -> None:
        if self._keeps_weights() and isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError(
                f"LBFGS looks at several points in a step; path={type(self.path).__name__}() keeps weights for one."
            )

    def _needs_one_optimizer(self) -> str:
        return self._course.one_optimizer()

    def _keeps_weights(self) -> bool:
        return self._course.keeps_weights

    def _watch(self, scale: Tensor | float) -> None:
        self._course.watch(self._parameters, scale)

    def _advance(self) -> None:
        self._decision = None
        if self._course.advance(self.steps_done, self._parameters):
            self._hold_choice()

    def _hold_choice(self) -> None:
        if self._course.gone is not None:
            self._hold(self._course.budget.masks(self._course.gone, self._parameters))

    def _decided(self) -> Mapping[str, Tensor]:
        course = self._course
        if course.gone is None or course.frozen:
            return self._held
        if self._decision is None:
            self._decision = course.budget.masks(course.gone, self._parameters)
        return self._decision

    def _conclude(self) -> None:
        if self._course.frozen:
            return
        self._course.end_early(self.steps_done, self._parameters)
        self._decision = None
        self._hold_choice()
        warnings.warn(
            f"Shrink.finish() after {self.steps_done} of {self._course.goal.steps} steps: the share "
            f"{self._course.to:.4g} is not reached yet, {self.density():.4g} of the weights are kept.",
            stacklevel=3,
        )

    def _options(self) -> dict[str, Any]:
        return self._given

    def _extra_state(self) -> dict[str, Any]:
        memory = {name: value.clone() for name, value in self._course.budget.score.memory.items()}
        return {"course": self._course.state_dict(), "score": memory}

    def _extra_form(self, state: Any) -> dict[str, Any]:
        return {"course": self._course.form(self._parameters), "score": memory_form(state, self._parameters)}

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        self._course.load_state_dict(state["course"], self._parameters)
        self._course.budget.score.load(state["score"], self._parameters)
        self._decision = None
