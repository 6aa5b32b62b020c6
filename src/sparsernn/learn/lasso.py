"""Group lasso on weights, blocks, rows, columns, gates and units: a penalty of a given strength."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..structure.groups import Level as LevelName
from .governed import Include
from .levels import Slices, scored, sums
from .metric import check_metric, is_adaptive, step_metric
from .options import check_update, strengths
from .penalty import Groups, Penalty, SelfWeights, zero_below
from .proximal import shrink_groups, shrink_weights
from .saved import described
from .select import protected
from .sparsifier import Sparsifier
from .units import coarse_first, make_level


class GroupLasso(Sparsifier):
    """The penalty sum_g ||w_g|| of a given strength: what it brings to zero can go.

    The group lasso of Wen et al. (arXiv 1709.05027). A size is not reached by a strength but by `Shrink`, which picks
    the groups. Raises ValueError for a value out of its range and an `include` that selects nothing, and with
    level="unit" what `trace` raises; `attach` refuses an optimizer whose steps have no known metric.

    Arguments:
        model: any module with recurrent layers.
        example_inputs: arguments of one forward pass (level "unit" runs the model once to find each unit's readers).
        strength: factor of the penalty. Published strengths belong to a loss that is summed over time and averaged over
            the batch; a loss averaged over T time steps as well needs strength / T (T = 35 for Wen's Penn Treebank
            runs, arXiv 1709.05027). A mapping {level: strength} sets several levels apart.
        level: "unit", or one or several of "weight", "block", "word", "row" and "column" (of each matrix for itself),
            "gate" and "unit". Wen's row and column lasso on an LSTM is ("gate", "column"): the four gates' rows of both
            matrices are the columns of the one matrix that he has.
        update: "proximal": after each optimizer step the exact proximal step, in the metric of that step (Adam and its
            kin included), on what reads a unit: disjoint groups, and exactly what `compact` looks at. Several levels
            are applied one after the other, fine before coarse. "subgradient": Wen's method: the gradient of
            sqrt(1e-8 + sum w^2), added to the loss's, and elementwise zeroing below `threshold`.
        threshold: with "subgradient": weights smaller than this become zero after each step (1e-4 by default).
        groups: with "subgradient": "full" (incoming rows, own column, readers, as published) or "outgoing".
        self_weights: with "subgradient": count a unit's weights on itself "twice", as published, or "once".
        include: "recurrent", "all" or patterns of parameter names: whose weights or units are governed. A unit's
            group has all its readers in any case.
        carried_states: states that the model returns are only fed back into it, so their units may go.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        strength: float | Mapping[str, float],
        level: LevelName | Sequence[LevelName] = "unit",
        update: Literal["proximal", "subgradient"] = "proximal",
        threshold: float | None = None,
        groups: Groups = "full",
        self_weights: SelfWeights = "twice",
        include: Include = "recurrent",
        carried_states: bool = False,
    ) -> None:
        kind = type(self).__name__
        names = coarse_first(kind, level)
        check_update(kind, update, threshold, groups, self_weights)
        self.strengths = strengths(kind, strength, names)
        super().__init__(model, include)
        way = {"update": update, "threshold": threshold, "groups": groups, "self_weights": self_weights}
        self._given = described({"strength": strength, "level": names, **way})
        self.levels = [
            make_level(name, self._root, example_inputs, self._governed, include, carried_states=carried_states)
            for name in names
        ]
        self.update = update
        self.threshold = 1e-4 if threshold is None else float(threshold)
        self._penalties = [Penalty(each, groups, self_weights) for each in self.levels]

    def _touched(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for level in self.levels for name in level.parameters))

    def _check_optimizer(self, optimizer: Optimizer, trained: set[int]) -> None:
        if self.update == "subgradient":
            if is_adaptive(optimizer):
                warnings.warn(
                    f"{type(optimizer).__name__} divides the penalty's gradient by the size of all gradients, which "
                    'undoes most of it: use update="proximal", Shrink(to=) or SGD.',
                    stacklevel=3,
                )
            return
        shrunk = {n: self._parameters[n] for level in self.levels for n in scored(level)}
        frozen = [name for name, parameter in shrunk.items() if id(parameter) not in trained]
        if frozen:
            raise ValueError(
                f"{type(optimizer).__name__} does not train {frozen[0]}, so the penalty can never bring its slices to "
                "zero.\nTrain it as well, or use Shrink(to=), which sets them to zero itself."
            )
        if {id(p) for group in optimizer.param_groups for p in group["params"]} & {id(p) for p in shrunk.values()}:
            check_metric(type(self).__name__, optimizer)

    def _needs_one_optimizer(self) -> str:
        return "the penalty's gradient is added before a step" if self.update == "subgradient" else ""

    def penalty(self) -> Tensor:
        """strength * sum of the group norms, a scalar.

        With update="subgradient" it may be added to the loss (the sum over time, averaged over the batch, for
        published strengths); without that its gradient is added before each step. With "proximal" it has no
        gradient, since the step after the optimizer's does the work.
        """
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
        if self.update != "subgradient":
            return None
        values = [s * p.add_gradient(self._parameters, scale * s) for s, p in zip(self.strengths, self._penalties)]
        return torch.stack([v.to(values[0].device) for v in values]).sum()

    def _advance(self) -> None:
        if self.update == "subgradient":
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
        return {name: self._parameters[name].detach() != 0 for name in self._governed.weights}

    def _conclude(self) -> None:
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
