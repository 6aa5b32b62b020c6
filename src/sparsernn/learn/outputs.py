"""By how much a model's outputs change on some calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..structure import examples


class Outputs:
    """What `model` gives on `calls`, to be compared with what other models give on them."""

    def __init__(self, model: nn.Module, calls: Sequence[examples.Call]) -> None:
        self.calls = calls
        self._outputs = self._of(model)
        leaves = [torch.cat([t.reshape(-1) for t in same]) for same in zip(*self._outputs)]
        self._power = max(sum(float(leaf.var(correction=0)) for leaf in leaves), 1e-300)

    def change(self, model: nn.Module) -> float:
        """Mean squared change of the outputs, summed over their leaves, in shares of their variance."""
        total = 0.0
        for before, after in zip(zip(*self._outputs), zip(*self._of(model))):
            squares = sum(float((x - y).square().sum()) for x, y in zip(before, after))
            total += squares / max(1, sum(t.numel() for t in before))
        return total / self._power

    @torch.no_grad()
    def _of(self, model: nn.Module) -> list[list[Tensor]]:
        results = [examples.run(model, examples.fresh(call), n) for n, call in enumerate(self.calls, start=1)]
        return [
            [t.detach().to("cpu", torch.float64) for t in examples.tensors_in(result) if t.is_floating_point()]
            for result in results
        ]
