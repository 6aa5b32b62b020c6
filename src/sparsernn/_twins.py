"""Models run on the same inputs, and compared: what the check of `trace`, of `compact` and of kernels goes by."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ._modules import in_eval, set_precision
from .structure import examples
from .structure.compare import difference
from .structure.nans import first_nan
from .structure.runs import outcomes


class Twin:
    """A copy of a model in eval mode, in the precision `dtype` (None: its own), and the calls that it is run on."""

    def __init__(self, model: nn.Module, calls: list[examples.Call], dtype: torch.dtype | None) -> None:
        self.model, self.calls, self.dtype = in_eval(model), calls, dtype
        if dtype is not None:
            set_precision(self.model, dtype)

    def outcomes(self, within: AbstractContextManager | None = None) -> list[tuple[int, int, Any]]:
        """(example, place, output) of every output, each example from the state that the model has now."""
        return list(outcomes(self.model, self.calls, self.dtype, within))

    def nan(self) -> str:
        """Where the first NaN arises, in words; "" for nowhere."""
        return first_nan(self.model, self.calls, self.dtype) or ""


def near(got: Sequence[Tensor], want: Sequence[Tensor], tolerance: float) -> bool:
    """Whether these are the same tensors within `tolerance` of the largest value of each (at least 1), NaN for NaN."""
    return len(got) == len(want) and all(
        a.shape == b.shape
        and torch.equal(a.isnan(), b.isnan())
        and difference(b.masked_fill(b.isnan(), 0), a.masked_fill(a.isnan(), 0), tolerance, tolerance) is None
        for a, b in zip(got, want)
    )
