"""The numeric check: what nothing reads may be anything.

Zero the readers of half of the units that may go, then replace all that these units own by random numbers: the
model's output must not move. It needs no dead unit, and catches a reader that the tracer missed.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from . import examples
from .classes import Classes
from .structure import Structure


def shake(model: nn.Module, calls: list[examples.Call], structure: Structure) -> frozenset[int]:
    """Classes whose readers are not all known (empty if the structure holds)."""
    classes = structure.classes
    free = torch.nonzero(classes.free)[:, 0]
    generator = torch.Generator().manual_seed(0)
    chosen = free[torch.rand(len(free), generator=generator) < 0.5]
    rest = free[~torch.isin(free, chosen)]
    checker = _Checker(model, calls, classes)
    return frozenset(c for half in (chosen, rest) if len(half) for c in checker.culprits(half.tolist()))


class _Checker:
    def __init__(self, model: nn.Module, calls: list[examples.Call], classes: Classes) -> None:
        self.model, self.calls, self.classes = model, calls, classes
        self.dtype: torch.dtype | None = torch.float64
        self.tolerance = 1e-10
        try:
            self._outputs(self._twin())
        except ValueError:  # a forward that insists on its own type of numbers
            self.dtype, self.tolerance = None, 1e-4

    def culprits(self, chosen: list[int]) -> list[int]:
        if self._holds(chosen):
            return []
        if len(chosen) == 1:
            return chosen
        middle = len(chosen) // 2
        found = self.culprits(chosen[:middle]) + self.culprits(chosen[middle:])
        return found or chosen

    def _twin(self) -> nn.Module:
        twin = copy.deepcopy(self.model).eval()
        return twin if self.dtype is None else twin.to(self.dtype)

    def _outputs(self, twin: nn.Module) -> list[Tensor]:
        found: list[Tensor] = []
        for number, call in enumerate(self.calls, start=1):
            torch.manual_seed(number)
            result: Any = examples.run(twin, examples.fresh(call, self.dtype), number)
            found += [t.detach().clone() for t in examples.tensors_in(result)]
        return found

    def _holds(self, chosen: list[int]) -> bool:
        mask = torch.zeros(self.classes.count + 1, dtype=torch.bool)
        mask[chosen] = True
        before, after = self._twin(), self._twin()
        self._clear(before, mask)
        self._renew(after, mask)
        self._clear(after, mask)
        try:
            first, second = self._outputs(before), self._outputs(after)
        except ValueError:
            return False
        if len(first) != len(second):
            return False
        return all(self._same(a, b, mask) for a, b in zip(first, second))

    def _same(self, a: Tensor, b: Tensor, mask: Tensor) -> bool:
        if a.shape != b.shape:
            return False
        if not a.is_floating_point():
            return bool((a == b).all())
        tolerance = self.tolerance if a.dtype == torch.float64 else 1e-4
        scale = float(a.abs().nan_to_num(0.0, 0.0, 0.0).max()) if a.numel() else 1.0
        return bool(torch.isclose(a, b, rtol=0.0, atol=tolerance * max(1.0, scale), equal_nan=True).all())

    def _clear(self, twin: nn.Module, mask: Tensor) -> None:
        parameters = dict(twin.named_parameters())
        for (name, axis), p in self.classes.planes.items():
            hit = torch.nonzero(mask[p.classes] & p.outgoing)[:, 0]
            if len(hit) and name in parameters:
                parameters[name].data.index_fill_(axis, hit.to(parameters[name].device), 0.0)

    def _renew(self, twin: nn.Module, mask: Tensor) -> None:
        generator = torch.Generator().manual_seed(1)
        parameters = dict(twin.named_parameters())
        for (name, axis), p in self.classes.planes.items():
            hit = torch.nonzero(mask[p.classes] & ~p.outgoing & (p.owner >= 0))[:, 0]
            value = parameters.get(name)
            if len(hit) and value is not None and value.is_floating_point():
                new = torch.randn(value.index_select(axis, hit.to(value.device)).shape, generator=generator)
                value.data.index_copy_(axis, hit.to(value.device), new.to(value))
