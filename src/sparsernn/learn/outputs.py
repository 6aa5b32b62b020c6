"""By how much a model's outputs change on some calls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._modules import in_eval, set_seed
from ..structure import examples

CONSTANT = 1e-12  # outputs that vary by less of their mean square are constant


class Outputs:
    """What `model` gives on `calls`, to be compared with what other models give on them.

    Each model runs as a copy in evaluation mode, from the same random numbers: a state that it keeps from one call to
    the next begins as it stands in the model.
    """

    def __init__(self, model: nn.Module, calls: Sequence[examples.Call]) -> None:
        self.calls = calls
        self._outputs = self._of(model)
        self._power = sum(map(_power, zip(*self._outputs))) or 1.0

    def change(self, model: nn.Module) -> float:
        """Mean squared change of the outputs, summed over their leaves, in shares of their variance; of constant
        outputs in shares of their mean square. Only numbers that were finite count. NaN: there are none.
        """
        total, count = 0.0, 0
        for before, after in zip(zip(*self._outputs), zip(*self._of(model))):
            squares, finite = 0.0, 0
            for x, y in zip(before, after):
                there = x.isfinite()
                squares += float((x - y)[there].square().sum())
                finite += int(there.sum())
            total += squares / max(1, finite)
            count += finite
        return total / self._power if count else math.nan

    @torch.no_grad()
    def _of(self, model: nn.Module) -> list[list[Tensor]]:
        model = in_eval(model)
        set_seed(0)
        results = [examples.run(model, examples.fresh(call), n) for n, call in enumerate(self.calls, start=1)]
        return [
            [t.detach().to("cpu", torch.float64) for t in examples.tensors_in(result) if t.is_floating_point()]
            for result in results
        ]


def _power(same: Sequence[Tensor]) -> float:
    """Variance of one output over all calls; the mean square where it does not vary."""
    values = torch.cat([t[t.isfinite()] for t in same])
    if not len(values):
        return 0.0
    variance, square = float(values.var(correction=0)), float(values.square().mean())
    return variance if variance > CONSTANT * square else square
