"""The numeric check: what nothing reads may be anything.

Zero the readers of half of the units that may go, then replace all that these units own by random numbers: the
model's output must not move. It needs no dead unit, and catches a reader that the tracer missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._twins import Twin
from . import examples
from .compare import difference
from .nans import has_nan
from .structure import Structure

_MOST = 256  # comparisons, after which what is left undecided counts as a culprit


def find_unknown_readers(model: nn.Module, calls: list[examples.Call], structure: Structure) -> Mapping[int, str]:
    """Classes whose readers are not all known, each with the reason (empty if the structure holds)."""
    classes = structure.classes
    free = torch.nonzero(classes.free)[:, 0]
    generator = torch.Generator().manual_seed(0)
    chosen = free[torch.rand(len(free), generator=generator) < 0.5]
    rest = free[~torch.isin(free, chosen)]
    checker = _Checker(model, calls, structure)
    return {c: why for half in (chosen, rest) if len(half) for c, why in checker.culprits(half.tolist()).items()}


class _Checker:
    def __init__(self, model: nn.Module, calls: list[examples.Call], structure: Structure) -> None:
        self.calls, self.classes, self.states = calls, structure.classes, structure.states
        self.model = model
        self.count = 0
        self.itself: str | None = None  # where the model as it is gives NaN; empty: nowhere
        self._use(torch.float64, 1e-10)

    def culprits(self, chosen: list[int]) -> dict[int, str]:
        if self._holds(chosen):
            return {}
        nan = self.nan
        if nan and self.itself is None:
            self.itself = self.twin.nan()
        if self.itself:
            every = torch.nonzero(self.classes.free)[:, 0].tolist()
            return dict.fromkeys(every, f"the model itself gives {self.itself}")
        why = f"with nothing left that reads it the model gives {nan}" if nan else "its readers are not all known"
        if len(chosen) == 1 or self.count > _MOST:
            return dict.fromkeys(chosen, why)
        middle = len(chosen) // 2
        found = self.culprits(chosen[:middle]) | self.culprits(chosen[middle:])
        # A NaN that comes from clearing both halves at once (nothing is left to divide by) says nothing of either.
        return found if found or nan else dict.fromkeys(chosen, why)

    def _use(self, dtype: torch.dtype | None, tolerance: float) -> None:
        self.tolerance = tolerance
        self.twin = Twin(self.model, self.calls, dtype)
        self.parameters = dict(self.twin.model.named_parameters())

    def _outputs(self) -> list[Any]:
        found: list[Any] = []
        for number, place, leaf in self.twin.outcomes():
            if (number, place) not in self.states:  # carried states show the units themselves
                found += list(leaf) if getattr(leaf, "is_ragged_state", False) else [leaf]
        return [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in found]

    def _holds(self, chosen: list[int]) -> bool:
        mask = torch.zeros(self.classes.count + 1, dtype=torch.bool)
        mask[chosen] = True
        touched = {name for (name, _), p in self.classes.planes.items() if bool(mask[p.classes].any())}
        parameters = self.parameters
        before = {name: parameters[name].data.clone() for name in touched if name in parameters}
        self.nan = ""
        self.count += 1
        try:
            self._clear(mask)
            first = self._outputs()
            self._renew(mask)
            self._clear(mask)
            second = self._outputs()
            if any(map(has_nan, (*first, *second))):
                self.nan = self.twin.nan() or "NaN"
        except ValueError:
            if self.twin.dtype is None:
                return False
            self._use(None, 1e-4)  # a forward that insists on its own type of numbers
            return self._holds(chosen)
        finally:
            for name, value in before.items():
                parameters[name].data.copy_(value)
        return len(first) == len(second) and all(self._same(a, b) for a, b in zip(first, second))

    def _same(self, a: Any, b: Any) -> bool:
        return difference(a, b, self.tolerance, 1e-4) is None

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
