"""Clipped gradients: what is added to them after the clipping, unclipped, weighs more than it should."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

_EVERY, _IN_A_ROW = 50, 3  # steps from one look to the next, steps of a look


def clip_all(optimizer: Optimizer, max_norm: float, scale: Tensor | float) -> None:
    """Scale all gradients of `optimizer` so that their norm is at most `max_norm`; they are `scale` times the true."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(parameters, abs(float(scale)) * max_norm)


class ClippingWatch:
    """Warns once where the norm of the model's gradients is the same step after step, as clipping makes it."""

    def __init__(self) -> None:
        self._steps, self._norms, self._warned = 0, [0.0], False

    def look(self, parameters: Iterable[Tensor], scale: Tensor | float) -> None:
        self._steps += 1
        if self._warned or self._steps % _EVERY >= _IN_A_ROW:
            return
        found = [p.grad for p in parameters if p.grad is not None and not p.grad.is_sparse]
        norm = float(torch.nn.utils.get_total_norm(found) / abs(float(scale))) if found else 0.0
        self._norms = [*self._norms, norm][-_IN_A_ROW:]
        least, most = min(self._norms), max(self._norms)
        if len(self._norms) == _IN_A_ROW and 0 < most < float("inf") and most - least <= 1e-5 * most:
            self._warned = True
            warnings.warn(
                f"Bayes: gradients of norm {norm:.4g} at each step are clipped ones. The divergence comes in after the "
                "clipping, and the log sigmas are not in it: both weigh too much.\n"
                f"Give max_norm={norm:.4g} to Bayes, which then clips all of them together, and don't clip before.",
                stacklevel=2,
            )
