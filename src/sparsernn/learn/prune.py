"""Pruning: the lowest scores go, at once, in rounds or on a ramp."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..structure.groups import Level as LevelName
from .governed import Include
from .levels import Slices, scored, scores_of
from .readings import Readings
from .saved import Part, Some, described, like, memory_form
from .schedules import OneShot, Schedule
from .scores import Magnitude, Score, watch_gradients
from .select import check_scores, lowest, protected
from .sparsifier import Sparsifier
from .units import make_level

Scope = Literal["matrix", "layer", "model"]


class Prune(Sparsifier):
    """Remove exactly round(sparsity n) of the n groups in each scope and hold them at zero.

    Arguments:
        model: any module with recurrent layers.
        example_inputs: arguments of one forward pass (or a list of several); used by level="unit" and `SynFlow` only,
            None elsewhere is fine.
        sparsity: share of groups that goes, 0 to 1.
        level: "weight", "block" (16x1, tiled within each gate), "word" (16x4, what the int8 kernels read at once),
            "row" or "column" (of each matrix for itself), "gate" (rows of ih and hh; the gate becomes a constant) or
            "unit" (with all its readers; `compact` then takes it out). At least one unit of each layer and direction
            stays.
        score: what goes first (`Magnitude`, `StandardDeviation`, `Random`; by the gradients of the training `Taylor`,
            `Movement`; before any training `SNIP`, `GraSP`, `SynFlow`). By default
            `Magnitude`, but for units that go at once the weights that read them times how much what they multiply
            varies over the example inputs, so give some hundred positions that are like the data.
        compensate: units that go at once leave their mean over the example inputs in the biases of their readers.
            `uncompensated` tells which reading parameter could not have that (no bias of its own, say), and why.
        scope: what competes: the groups of one matrix (gates and units: of one layer and direction), of one layer
            and direction, or of the whole model.
        schedule: `OneShot` (after the first step), `Iterative` or `Gradual`. What has gone never comes back, but
            for `Movement`.
        include: "recurrent", "all" or patterns of parameter names: whose weights or units are governed.
        keep_diagonal: levels "weight" and "block": keep the diagonals of the gates' recurrent matrices; they are
            neither counted nor masked (as LPCNet does, arXiv 1810.11846).
        carried_states: level "unit": states that the model returns are only fed back into it, so their units may go.

    Raises ValueError for a value out of its range and an `include` that selects nothing, TypeError for what is no score
    or no schedule, and with level="unit" what `trace` raises.

    Wang's and See's variants (arXiv 1606.09274): class-blind is scope="model", class-uniform scope="matrix" and
    class-distribution scope="model" with score=StandardDeviation().
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        sparsity: float = 0.9,
        *,
        level: LevelName = "weight",
        score: Score | None = None,
        scope: Scope = "matrix",
        schedule: Schedule | None = None,
        compensate: bool = True,
        include: Include = "recurrent",
        keep_diagonal: bool = False,
        carried_states: bool = False,
    ) -> None:
        if not isinstance(sparsity, (int, float)) or not 0 <= sparsity <= 1:
            raise ValueError(f"Prune: sparsity is {sparsity!r}, expected a share between 0 and 1 (0.9 removes 90%).")
        if scope not in ("matrix", "layer", "model"):
            raise ValueError(f'Prune: scope is {scope!r}, expected "matrix", "layer" or "model".')
        self._by_readings = score is None and level == "unit"
        self.score = Magnitude() if score is None else score
        self.schedule: Schedule = OneShot() if schedule is None else schedule
        if not isinstance(self.score, Score):
            raise TypeError(f"Prune: score is {score!r}, expected a score such as Magnitude().")
        if not callable(getattr(self.schedule, "sparsity", None)):
            raise TypeError(f"Prune: schedule is {schedule!r}, expected OneShot(), Iterative(...) or Gradual(...).")
        super().__init__(model, include)
        self.sparsity = float(sparsity)
        self.scope = scope
        self.level = make_level(
            level,
            self._root,
            example_inputs,
            self._governed,
            include,
            carried_states=carried_states,
            keep_diagonal=keep_diagonal,
        )
        self.compensate = compensate
        self.uncompensated: dict[str, str] = {}
        self._examples = example_inputs if level == "unit" else None
        self._inputs = example_inputs if self.score.runs else None
        self._scopes = self.level.scopes(scope)
        self._gone = torch.zeros(self.level.count, dtype=torch.bool)
        self._asleep: dict[str, Tensor] = {}  # where a score regrows: the values of what went, 0 elsewhere
        self._share: float | None = None  # sparsity reached so far

    def _touched(self) -> tuple[str, ...]:
        return self.level.parameters

    def _needs_one_optimizer(self) -> str:
        return "its score watches the gradients of a step" if self.score.watches else ""

    def _watch(self, scale: Tensor | float) -> None:
        watch_gradients(self.score, scored(self.level), self._parameters, scale, self._whole)

    def _whole(self, name: str) -> Tensor:
        """A parameter with the values that its masked weights had."""
        value = self._parameters[name].detach()
        return value + self._asleep[name] if name in self._asleep else value

    def _put_to_sleep(self, masks: Mapping[str, Tensor]) -> None:
        """Keep the values of what goes, and give back those of what comes back."""
        for name, mask in masks.items():
            whole = self._whole(name)
            self._parameters[name].copy_(whole)
            self._asleep[name] = whole.masked_fill(mask, 0)

    def _rewound(self) -> None:
        masks = self.masks
        self._asleep = {name: self._parameters[name].detach().masked_fill(masks[name], 0) for name in self._asleep}

    def _advance(self) -> None:
        share = self.schedule.sparsity(self.steps_done, self.sparsity)
        if share is not None:
            self._prune(share)

    def _scores(self, readings: Readings | None) -> Tensor:
        if readings is not None and self._by_readings:
            found = readings.scores(self._parameters)
            if found is not None:
                return self.level.relative(found).to(self._parameters[scored(self.level)[0]].device)
        measured = None
        if self.score.runs:
            measured = self.score.of_model(self._root, scored(self.level), self._inputs)
        return scores_of(self.level, self.score, self._parameters, measured)

    def _readings(self) -> Readings | None:
        """What reads the units, over the examples, where they all go at once."""
        at_once = isinstance(self.schedule, OneShot) or self.steps_done == 0
        if not isinstance(self.level, Slices) or self._examples is None or not at_once:
            return None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.uncompensated = dict.fromkeys(scored(self.level), "each process has its own examples")
            return None
        try:
            found = Readings(self._root, self.level.groups, self._examples)
        except (RuntimeError, TypeError, ValueError) as error:  # it ran when this was made: it may have moved since
            self.uncompensated = dict.fromkeys(scored(self.level), f"the model could not run on the examples: {error}")
            return None
        self._examples = None
        self.uncompensated = found.reasons
        return found

    def _prune(self, share: float) -> None:
        readings = self._readings()
        scores = self._scores(readings)
        check_scores("Prune", scores, self.steps_done)
        gone = self._gone.to(scores.device)
        if not self.score.regrows:
            scores = scores.masked_fill(gone, -torch.inf)  # what has gone stays away
        stay = protected(scores, self.level.keep_one)
        chosen = torch.zeros_like(gone)
        for scope in self._scopes:
            if isinstance(scope, slice):  # weights and blocks, which need no guard
                chosen[scope] = lowest(scores[scope], round(share * (scope.stop - scope.start)))
            else:
                numbers = scope.to(scores.device)
                free = numbers[~stay[numbers]]
                chosen[free[lowest(scores[free], round(share * len(numbers)))]] = True
        if readings is not None and self.compensate:
            readings.compensate(chosen & ~gone, self._parameters)
        self._gone = chosen
        self._share = share
        masks = self.level.masks(chosen, self._parameters)
        if self.score.regrows:
            self._put_to_sleep(masks)
        self._hold(masks)

    def _conclude(self) -> None:
        if self.steps_done == 0 and self._share is None:
            self._prune(self.sparsity)
        elif (self._share or 0.0) < self.sparsity:
            warnings.warn(
                f"Prune.finish() after {self.steps_done} steps: sparsity is {self._share or 0.0:.3g} and not yet "
                f"{self.sparsity:.3g}, since {self.schedule} has not come to its end.",
                stacklevel=3,
            )

    def _options(self) -> dict[str, Any]:
        options = {"level": self.level.name, "sparsity": self.sparsity, "scope": self.scope}
        score = "readings" if self._by_readings else described(self.score)
        return {**options, "score": score, "schedule": described(self.schedule), "compensate": self.compensate}

    def _extra_state(self) -> dict[str, Any]:
        memory = {name: value.clone() for name, value in self.score.memory.items()}
        asleep = {name: value.clone() for name, value in self._asleep.items()}
        return {"gone": self._gone.cpu().clone(), "share": self._share, "score": memory, "asleep": asleep}

    def _extra_form(self, state: Any) -> dict[str, Any]:
        memory = memory_form(state, self._parameters)
        asleep = {name: like(value) for name, value in self._followed().items()}
        return {"gone": like(self._gone), "share": Some(float), "score": memory, "asleep": Part(asleep)}

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        self._gone = state["gone"].clone()
        self._share = state["share"]
        self._asleep = {n: v.to(self._parameters[n].device, copy=True) for n, v in state["asleep"].items()}
        self.score.load(state["score"], self._parameters)
