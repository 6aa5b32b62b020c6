"""Random gates: hard concrete L0 with a multiplier that holds the expected size to its target.

Louizos et al. (arXiv 1712.01312): each group is multiplied by z = clip(s (ZETA - GAMMA) + GAMMA, 0, 1) with
s = sigmoid((logit u + a) / BETA), u uniform, so that P(z > 0) = sigmoid(a - BETA log(-GAMMA / ZETA)). Gallego-Posada
et al. (arXiv 2208.04425): instead of a fixed strength a multiplier grows while the expected size is above the target
and is reset to zero when it is not. It is steered by the expected size, which answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..cost import Cost
from ..levels import Slices, scored, sums, wide
from ..saved import Some, like
from .path import Course, Goal, Ramped, copies

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
OPEN = 2.2  # where a begins: nearly all gates are open
GATE_RATE = 0.05  # of Adam on a
MULTIPLIER_RATE = 300.0  # of the multiplier, a whole run at an excess of 1
_SEED = 1_712_013_120
_SHIFT = BETA * math.log(-GAMMA / ZETA)


@dataclass(frozen=True)
class HardConcrete(Ramped):
    """Random gates on whole units under a multiplier that holds their expected size to the ramp.

    In shares of all steps: the expected size falls from everything at `begin` to what is wanted at `end`, by a cubic;
    at `freeze` the gates that are least open go. Until then the weights hold one sample of the gates. Hard concrete L0
    (arXiv 1712.01312) with a constraint in place of a strength (arXiv 2208.04425). Raises ValueError where the three do
    not rise from 0 to 1.
    """

    def check(self, levels: Sequence[str], cost: Cost) -> None:
        """ValueError for a level or a cost that gates can't have."""
        if tuple(levels) != ("unit",):
            raise ValueError(f"Shrink: path=HardConcrete() has gates on units, got level {', '.join(levels)}.")
        if callable(cost):
            raise ValueError(
                "Shrink: path=HardConcrete() needs the expected cost and its gradient, which a function of the widths "
                'does not give: use cost="mult-adds", or another path.'
            )

    def course(self, goal: Goal) -> Course:
        """The course of one training along this path."""
        return Gates(goal, path=self)


@dataclass
class Gates(Course):
    """Between two optimizer steps the parameters hold w z with one sample z of the gates.

    So forward and backward need no change; `weights` keeps w. A gradient of w z becomes those of w and of a.
    """

    keeps_weights: ClassVar[bool] = True
    path: HardConcrete = field(kw_only=True)
    a: Tensor | None = None
    moments: list[Tensor] = field(default_factory=list)
    multiplier: float = 0.0
    ratio: float = 0.0  # size of the loss's pull at a, against that of the expected size
    z: Tensor | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    slope: Tensor | None = None  # gradient of the loss at a in this step

    @property
    def level(self) -> Slices:
        """The only level: its slices are the units."""
        level = self.budget.levels[0]
        assert isinstance(level, Slices)
        return level

    def one_optimizer(self) -> str:
        """Why one optimizer has to train all."""
        return "gates learn from all gradients of a step"

    def watch(self, parameters: Mapping[str, Tensor], scale: Tensor | float) -> None:
        """Before an optimizer step: from the gradients of w z to those of w, and w back in its place."""
        if self.z is None or self.a is None:
            return
        gradients: dict[str, Tensor] = {}
        for name in scored(self.level):
            gradient = parameters[name].grad
            if gradient is None:
                gradient = torch.zeros_like(parameters[name])
            gradients[name] = gradient.to_dense() if gradient.is_sparse else gradient
        products = {name: wide(g) * wide(self.weights[name]) for name, g in gradients.items()}
        by_z = sums(self.level.parts, products) / scale
        self.slope = (by_z * self._slope_of_z()).to(self.a)
        self._multiply(gradients)
        for name, value in self.weights.items():
            parameters[name].copy_(value)
            parameters[name].grad = gradients[name]

    def advance(self, step: int, parameters: Mapping[str, Tensor]) -> bool:
        """After an optimizer step: move the gates and draw them anew; True if the choice has just become final."""
        if self.frozen or step < self.path.begin * self.goal.steps:
            return False
        if self.a is None:
            device = parameters[scored(self.level)[0]].device
            self.a = torch.full((self.level.count,), OPEN, device=device)
            self.moments = [torch.zeros_like(self.a), torch.zeros_like(self.a)]
        elif self.slope is not None:
            self._move(step)
        if step >= self.path.freeze_step(self.goal.steps):
            self._trim(parameters, self.to)
            return True
        self.weights = {name: parameters[name].detach().clone() for name in scored(self.level)}
        # A function of the step alone: the same on every rank and after a resume, and no draw of the caller's is moved.
        source = torch.Generator().manual_seed(_SEED + step)
        u = torch.rand(len(self.a), generator=source).to(self.a.device).clamp(1e-6, 1 - 1e-6)
        self.z = self._stretched(torch.sigmoid((u.logit() + self.a) / BETA))
        self._multiply(parameters)
        return False

    def end_early(self, step: int, parameters: Mapping[str, Tensor]) -> None:
        """The run ends before its time: the gates' own values take the place of the sample.

        They are part of the weights from then on. A run that goes on begins with gates that are wholly open or shut.
        """
        if self.z is None or self.a is None:
            return
        for name, value in self.weights.items():
            parameters[name].copy_(value)
        self._trim(parameters, max(self.to, float(self._expected(self._open(self.a)))))
        assert self.gone is not None
        self.a = torch.where(self.gone[0].to(self.a.device), -OPEN, OPEN).to(self.a)
        self.moments, self.frozen, self.slope = [torch.zeros_like(self.a), torch.zeros_like(self.a)], False, None

    def _move(self, step: int) -> None:
        assert self.a is not None and self.slope is not None
        a = self.a.clone().requires_grad_()
        with torch.enable_grad():
            expected = self._expected(self._open(a))
            (pull,) = torch.autograd.grad(expected, a)
        ratio = float(self.slope.abs().mean() / pull.abs().mean().clamp_min(1e-12))
        self.ratio = ratio if self.ratio == 0 else 0.95 * self.ratio + 0.05 * ratio
        path, steps = self.path, self.goal.steps
        excess = float(expected) - path.kept(step, steps, self.to)
        rate = MULTIPLIER_RATE / max(1.0, (path.freeze - path.begin) * steps)
        self.multiplier = self.multiplier + rate * excess if excess > 0 else 0.0
        gradient = self.slope + self.multiplier * self.ratio * pull
        mean, square = self.moments
        mean.lerp_(gradient, 0.1)
        square.lerp_(gradient * gradient, 0.01)
        count = step - round(path.begin * steps)
        corrected = (square / (1 - 0.99 ** max(1, count))).sqrt_().add_(1e-12)
        self.a -= GATE_RATE * (mean / (1 - 0.9 ** max(1, count))) / corrected
        self.slope = None

    def _trim(self, parameters: Mapping[str, Tensor], share: float) -> None:
        """Exactly the wanted size: the gates that are least open go, the others take their most likely value."""
        assert self.a is not None
        self.gone = self.budget.choose(parameters, share, [self.a])
        self.z = self._stretched(torch.sigmoid(self.a))
        # A gate that stays must not be shut by a hair: its unit would be there without readers.
        self.z = torch.where(self.gone[0].to(self.z.device), 0.0, self.z.clamp_min(0.05))
        self._multiply(parameters)
        self.weights, self.z, self.frozen = {}, None, True

    def _multiply(self, values: Mapping[str, Tensor]) -> None:
        assert self.z is not None
        for part in self.level.parts:
            value = values[part.parameter]
            part.multiply(value, part.spread(self.z.to(value.device, value.dtype), 1.0))

    def _expected(self, open_: Tensor) -> Tensor:
        """Expected share of the size, differentiable: a matrix has its expected rows times its expected columns."""
        return self.level.expected(1 - open_, self.budget.shapes) / self.budget.total

    @staticmethod
    def _open(a: Tensor) -> Tensor:
        return torch.sigmoid(a - _SHIFT)

    @staticmethod
    def _stretched(s: Tensor) -> Tensor:
        return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def _slope_of_z(self) -> Tensor:
        """dz/da at the present sample: none where the gate is wholly open or shut."""
        assert self.z is not None
        s = (self.z - GAMMA) / (ZETA - GAMMA)
        inside = (self.z > 0) & (self.z < 1)
        return torch.where(inside, (ZETA - GAMMA) * s * (1 - s) / BETA, 0.0)

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps: gates and their moments, the sample, the weights."""
        return {
            "gates": copies([] if self.a is None else [self.a, *self.moments]),
            "multiplier": self.multiplier,
            "ratio": self.ratio,
            "sample": copies([] if self.z is None else [self.z]),
            "weights": copies([] if self.z is None else list(self.weights.values())),
        }

    def memory_form(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """The form that `memory` has to have."""
        each = torch.empty(self.level.count, device="meta")
        weights = [like(parameters[name]) for name in scored(self.level)]
        gates = {"gates": Some([each] * 3), "multiplier": float, "ratio": float}
        return {**gates, "sample": Some([each]), "weights": Some(weights)}

    def recall(self, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
        """Go on from what `memory` gave."""
        if bool(state["sample"]) != bool(state["weights"]) or (state["sample"] and not state["gates"]):
            raise ValueError("The state of hard concrete gates has a sample without gates or weights: it is damaged.")
        device = parameters[scored(self.level)[0]].device
        self.a, *self.moments = [value.to(device, copy=True) for value in state["gates"]] or [None]
        self.z = state["sample"][0].to(device, copy=True) if state["sample"] else None
        self.multiplier, self.ratio = float(state["multiplier"]), float(state["ratio"])
        names = scored(self.level) if state["weights"] else ()
        self.weights = {n: v.to(parameters[n].device, copy=True) for n, v in zip(names, state["weights"])}
        self.slope = None
