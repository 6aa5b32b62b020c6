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
from .structure import Structure


def shake(model: nn.Module, calls: list[examples.Call], structure: Structure) -> frozenset[int]:
    """Classes whose readers are not all known (empty if the structure holds)."""
    classes = structure.classes
    free = torch.nonzero(classes.free)[:, 0]
    generator = torch.Generator().manual_seed(0)
    chosen = free[torch.rand(len(free), generator=generator) < 0.5]
    rest = free[~torch.isin(free, chosen)]
    checker = _Checker(model, calls, structure)
    return frozenset(c for half in (chosen, rest) if len(half) for c in checker.culprits(half.tolist()))


class _Checker:
    def __init__(self, model: nn.Module, calls: list[examples.Call], structure: Structure) -> None:
        self.calls, self.classes, self.states = calls, structure.classes, structure.states
        self.model = model
        self._use(torch.float64, 1e-10)

    def culprits(self, chosen: list[int]) -> list[int]:
        if self._holds(chosen):
            return []
        if len(chosen) == 1:
            return chosen
        middle = len(chosen) // 2
        found = self.culprits(chosen[:middle]) + self.culprits(chosen[middle:])
        return found or chosen

    def _use(self, dtype: torch.dtype | None, tolerance: float) -> None:
        twin = copy.deepcopy(self.model).eval()
        self.dtype, self.tolerance = dtype, tolerance
        self.twin = twin if dtype is None else twin.to(dtype)
        self.parameters = dict(self.twin.named_parameters())

    def _outputs(self) -> list[Tensor]:
        found: list[Tensor] = []
        buffers = {name: b.clone() for name, b in self.twin.named_buffers()}
        for number, call in enumerate(self.calls, start=1):
            torch.manual_seed(number)
            result: Any = examples.run(self.twin, examples.fresh(call, self.dtype), number)
            for place, leaf in enumerate(examples.leaves_in(result)):
                if (number, place) not in self.states:  # carried states show the units themselves
                    found += [t.detach().clone() for t in examples.tensors_in(leaf)]
        for name, b in self.twin.named_buffers():
            b.data = buffers[name]
        return found

    def _holds(self, chosen: list[int]) -> bool:
        mask = torch.zeros(self.classes.count + 1, dtype=torch.bool)
        mask[chosen] = True
        touched = {name for (name, _), p in self.classes.planes.items() if bool(mask[p.classes].any())}
        before = {name: self.parameters[name].data.clone() for name in touched if name in self.parameters}
        try:
            self._clear(mask)
            first = self._outputs()
            self._renew(mask)
            self._clear(mask)
            second = self._outputs()
        except ValueError:
            if self.dtype is None:
                return False
            self._use(None, 1e-4)  # a forward that insists on its own type of numbers
            return self._holds(chosen)
        for name, value in before.items():
            self.parameters[name].data.copy_(value)
        return len(first) == len(second) and all(self._same(a, b) for a, b in zip(first, second))

    def _same(self, a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape:
            return False
        if not a.is_floating_point():
            return bool((a == b).all())
        tolerance = self.tolerance if a.dtype == torch.float64 else 1e-4
        scale = float(a.abs().nan_to_num(0.0, 0.0, 0.0).max()) if a.numel() else 1.0
        return bool(torch.isclose(a, b, rtol=0.0, atol=tolerance * max(1.0, scale), equal_nan=True).all())

    def _clear(self, mask: Tensor) -> None:
        for (name, axis), p in self.classes.planes.items():
            hit = torch.nonzero(mask[p.classes] & p.outgoing)[:, 0]
            if len(hit) and name in self.parameters:
                value = self.parameters[name].data
                value.index_fill_(axis, hit.to(value.device), 0.0)

    def _renew(self, mask: Tensor) -> None:
        generator = torch.Generator().manual_seed(1)
        for (name, axis), p in self.classes.planes.items():
            hit = torch.nonzero(mask[p.classes] & ~p.outgoing & (p.owner >= 0))[:, 0]
            if len(hit) and name in self.parameters and self.parameters[name].is_floating_point():
                value = self.parameters[name].data
                shape = list(value.shape)
                shape[axis] = len(hit)
                new = torch.randn(shape, generator=generator, dtype=torch.float32)
                value.index_copy_(axis, hit.to(value.device), new.to(value))
