"""Group lasso on weights, blocks, gates and units: by the penalty's strength, a size to reach or a loss to keep."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..structure.groups import Level as LevelName
from .cost import Cost, make_budget
from .courses import Goal, Method, make_course
from .governed import Include
from .hard_concrete import HardConcrete
from .levels import Slices, scored, sums
from .metric import check_metric, is_adaptive, step_metric
from .options import check_course, check_goal, check_update, strengths
from .penalty import Groups, Penalty, SelfWeights, zero_below
from .proximal import shrink_groups, shrink_weights
from .saved import described, memory_form
from .scores import Magnitude, Score
from .select import protected
from .sparsifier import Sparsifier
from .target import Course, Ramp
from .units import make_level

_COARSE_FIRST: tuple[LevelName, ...] = ("unit", "gate", "row", "column", "block", "weight")


class GroupLasso(Sparsifier):
    """Learn which groups can go: down to a size (`target`), under a penalty (`strength`), or as far as a loss allows.

    Arguments:
        model: any module with recurrent layers.
        example_inputs: arguments of one forward pass (level "unit" runs the model once to find each unit's readers).
        target: share of the governed weights that is kept at the end, counted as `compact` would leave them; needs
            `steps`. The budget is met with the last group that goes, so the result lies at most one group below it.
        steps: number of optimizer steps of the whole run, fine-tuning included.
        cost: what `target` counts: "weights"; "mult-adds", the multiply-adds of a time step in all matrices, readers
            included; or a function of the units left, {unit set of `trace`: number} -> cost above 0. Then `target` is
            in its unit (milliseconds, say, by `sparsernn.milliseconds`) and not a share. Whole units only.
        method: how a target is reached. "top-k": the lowest scores are zeroed on a ramp and may come back until it
            ends; "shrink": groups are chosen in periods and fade to zero in each (HESSO, arXiv 2409.09085);
            "hard-concrete": random gates on whole units under a multiplier that holds their expected size to the ramp
            (arXiv 1712.01312 and 2208.04425), so that weights hold one sample of the gates until the choice is frozen.
        max_loss: instead of a target: as many groups go as leave `validate()` at most this share above its value at
            the start (0.01: one percent of its size, of a negative loss such as a log density too), for a model that
            is trained already; needs `steps` and `validate`.
        validate: gives the loss on validation data, less is better; called in the course of steps, without gradients.
        least: with `max_loss`: the smallest share of the governed weights that is tried.
        strength: factor of the penalty sum_g ||w_g||. Published strengths belong to a loss that is summed over time
            and averaged over the batch; a loss averaged over T time steps as well needs strength / T (T = 35 for
            Wen's Penn Treebank runs, arXiv 1709.05027). A mapping {level: strength} sets several levels apart.
        level: "unit", or one or several of "weight", "block", "row" and "column" (of each matrix for itself), "gate"
            and "unit". Wen's row and column lasso on an LSTM is ("gate", "column"): the four gates' rows of both
            matrices are the columns of the one matrix that he has.
        update: with `strength`. "proximal": after each optimizer step the exact proximal step, in the metric of that
            step (Adam and its kin included), on what reads a unit: disjoint groups, and exactly what `compact` looks
            at. Several levels are applied one after the other, fine before coarse. "subgradient": Wen's method: the
            gradient of sqrt(1e-8 + sum w^2), added to the loss's, and elementwise zeroing below `threshold`.
        threshold: with "subgradient": weights smaller than this become zero after each step (1e-4 by default).
        groups: with "subgradient": "full" (incoming rows, own column, readers, as published) or "outgoing".
        self_weights: with "subgradient": count a unit's weights on itself "twice", as published, or "once".
        score: with `target` and `max_loss`: which groups go first (`Magnitude()` by default).
        ramp: with them: when they go (`Ramp()`; with `max_loss` in the first 60% of the steps).
        include: "recurrent", "all" or patterns of parameter names: whose weights or units are governed. A unit's
            group has all its readers in any case.
        carried_states: states that the model returns are only fed back into it, so their units may go.

    All units of the model compete with each other by the root mean square of what reads them, in shares of that of
    their layer and direction, and one unit of each always stays. So neither layers with few readers nor layers whose
    values are large go first; `score=Magnitude(comparable=True)` compares the weights as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        target: float | None = None,
        steps: int | None = None,
        strength: float | Mapping[str, float] | None = None,
        max_loss: float | None = None,
        validate: Callable[[], float] | None = None,
        least: float = 0.05,
        cost: Cost = "weights",
        method: Method = "top-k",
        level: LevelName | Sequence[LevelName] = "unit",
        update: Literal["proximal", "subgradient"] = "proximal",
        threshold: float | None = None,
        groups: Groups = "full",
        self_weights: SelfWeights = "twice",
        score: Score | None = None,
        ramp: Ramp | None = None,
        include: Include = "recurrent",
        carried_states: bool = False,
    ) -> None:
        kind = type(self).__name__
        names: tuple[LevelName, ...] = (level,) if isinstance(level, str) else tuple(level)  # type: ignore[assignment]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{kind}: level is {level!r}, expected one level or several different ones.")
        check_goal(kind, target, steps, strength, max_loss, absolute=callable(cost))
        check_course(kind, target, max_loss, validate, least, method, cost, names)
        check_update(kind, strength is None, update, threshold, groups, self_weights)
        super().__init__(model, include)
        goal = {"target": target, "strength": strength, "max_loss": max_loss, "least": least, "steps": steps}
        penalty = {"update": update, "threshold": threshold, "groups": groups, "self_weights": self_weights}
        way = {"level": names, "cost": cost, "method": method, "score": score, "ramp": ramp}
        self._given = described({**goal, **penalty, **way})
        # Unknown names come last, where make_level names them.
        ordered = sorted(names, key=lambda name: _COARSE_FIRST.index(name) if name in _COARSE_FIRST else 9)
        self.levels = [
            make_level(name, self._root, example_inputs, self._governed, include, carried_states=carried_states)
            for name in ordered
        ]
        self.update = update
        self.threshold = 1e-4 if threshold is None else float(threshold)
        self.strengths = strengths(kind, strength, ordered)
        self._penalties = [Penalty(each, groups, self_weights) for each in self.levels]
        self._course: Course | None = None
        if strength is None:
            assert steps is not None
            score = Magnitude() if score is None else score
            budget = make_budget(kind, self._root, self.levels, self._governed, score, cost)
            goal = Goal(kind, target, max_loss, validate, least, steps, method, ramp, callable(cost))
            self._course = make_course(goal, budget, self._parameters)
        self._decision: dict[str, Tensor] | None = None  # masks of the present choice, made when asked for

    def _touched(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for level in self.levels for name in level.parameters))

    def _check_optimizer(self, optimizer: Optimizer, trained: set[int]) -> None:
        kind = type(self).__name__
        if self._course is not None:
            if self._keeps_weights() and isinstance(optimizer, torch.optim.LBFGS):
                raise ValueError('LBFGS looks at several points in a step; method="hard-concrete" has a gate for one.')
            return
        if self.update == "subgradient":
            if is_adaptive(optimizer):
                warnings.warn(
                    f"{type(optimizer).__name__} divides the penalty's gradient by the size of all gradients, which "
                    'undoes most of it: use update="proximal", target= or SGD.',
                    stacklevel=3,
                )
            return
        shrunk = {n: self._parameters[n] for level in self.levels for n in scored(level)}
        frozen = [name for name, parameter in shrunk.items() if id(parameter) not in trained]
        if frozen:
            raise ValueError(
                f"{type(optimizer).__name__} does not train {frozen[0]}, so the penalty can never bring its slices to "
                "zero.\nTrain it as well, or use target=, which sets them to zero itself."
            )
        if {id(p) for group in optimizer.param_groups for p in group["params"]} & {id(p) for p in shrunk.values()}:
            check_metric(kind, optimizer)

    def _needs_one_optimizer(self) -> str:
        if self._course is None:
            return "the penalty's gradient is added before a step" if self.update == "subgradient" else ""
        if self._keeps_weights():
            return "gates learn from all gradients of a step"
        return "its score watches the gradients of a step" if self._course.budget.score.watches else ""

    def _keeps_weights(self) -> bool:
        return isinstance(self._course, HardConcrete)

    def penalty(self) -> Tensor:
        """strength * sum of the group norms, a scalar.

        With update="subgradient" it may be added to the loss (the sum over time, averaged over the batch, for
        published strengths); without that its gradient is added before each step. With "proximal" it has no
        gradient, since the step after the optimizer's does the work. Zero with `target`.
        """
        if self._course is not None:
            return super().penalty()
        if self.update == "proximal":
            with torch.no_grad():
                return self._penalty()
        value = self._penalty()
        if value.requires_grad:
            value.register_hook(self._backward_reached)
        return value

    def _penalty(self) -> Tensor:
        if self.update == "subgradient":
            values = [s * p.value(self._parameters) for s, p in zip(self.strengths, self._penalties)]
        else:
            norms = [
                sums(level.parts, {n: self._parameters[n] ** 2 for n in scored(level)}).sqrt() for level in self.levels
            ]
            values = [s * norm.sum() for s, norm in zip(self.strengths, norms)]
        return torch.stack([v.to(values[0].device) for v in values]).sum()

    def _add_gradient(self, scale: Tensor | float) -> Tensor | None:
        if self._course is not None or self.update != "subgradient":
            return None
        values = [s * p.add_gradient(self._parameters, scale * s) for s, p in zip(self.strengths, self._penalties)]
        return torch.stack([v.to(values[0].device) for v in values]).sum()

    def _watch(self, scale: Tensor | float) -> None:
        if self._course is not None:
            self._course.watch(self._parameters, scale)

    def _advance(self) -> None:
        self._decision = None
        if self._course is not None:
            if self._course.advance(self.steps_done, self._parameters):
                assert self._course.gone is not None
                self._hold(self._course.budget.masks(self._course.gone, self._parameters))
        elif self.update == "subgradient":
            for name in dict.fromkeys(name for penalty in self._penalties for name in penalty.names):
                zero_below(self._parameters[name], self.threshold)
        else:
            self._shrink()

    def _shrink(self) -> None:
        if not self._optimizers:
            raise RuntimeError(
                f'{type(self).__name__}: update="proximal" takes its step size from the optimizer: attach it first.'
            )
        names = dict.fromkeys(name for level in self.levels for name in scored(level))
        metrics = {name: partial(step_metric, self._optimizers, self._parameters[name]) for name in names}
        for level, strength in zip(reversed(self.levels), reversed(self.strengths)):
            if level.name == "weight":
                for name in level.parameters:
                    shrink_weights(self._parameters[name], metrics[name], strength)
            else:
                shrink_groups(level.parts, self._parameters, {n: metrics[n] for n in scored(level)}, strength)

    def _decided(self) -> Mapping[str, Tensor]:
        course = self._course
        if course is None:
            return {name: self._parameters[name].detach() != 0 for name in self._governed.weights}
        if course.gone is None or course.frozen:
            return self._held
        if self._decision is None:
            self._decision = course.budget.masks(course.gone, self._parameters)
        return self._decision

    def _conclude(self) -> None:
        course = self._course
        if course is None:
            self._clear_dead_units()
        elif not course.frozen:
            course.settle(self.steps_done, self._parameters)
            if course.gone is not None:
                self._hold(course.budget.masks(course.gone, self._parameters))
            warnings.warn(
                f"{type(self).__name__}.finish() after {self.steps_done} of {course.steps} steps: the target "
                f"{course.target:.4g} is not reached yet, {self.density():.4g} of the weights are kept.",
                stacklevel=3,
            )

    def _clear_dead_units(self) -> None:
        """Zero what units compute that nobody reads; that may leave further units without readers."""
        for level in self.levels:
            before = -1
            while isinstance(level, Slices) and level.name == "unit":
                squares = sums(level.parts, {n: self._parameters[n] ** 2 for n in scored(level)})
                gone = (squares == 0) & ~protected(squares, level.keep_one)
                if int(gone.sum()) == before:
                    break
                before = int(gone.sum())
                for name, mask in level.masks(gone, self._parameters).items():
                    self._parameters[name].masked_fill_(~mask, 0)

    def _options(self) -> dict[str, Any]:
        return self._given

    def _extra_state(self) -> dict[str, Any]:
        if self._course is None:
            return {}
        memory = {name: value.clone() for name, value in self._course.budget.score.memory.items()}
        return {"course": self._course.state_dict(), "score": memory}

    def _extra_form(self, state: Any) -> dict[str, Any]:
        if self._course is None:
            return {}
        return {"course": self._course.form(self._parameters), "score": memory_form(state, self._parameters)}

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        if self._course is not None:
            self._course.load_state_dict(state["course"], self._parameters)
            self._course.budget.score.load(state["score"], self._parameters)
        self._decision = None
