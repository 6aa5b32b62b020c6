"""Pruning of a part of a stack, what is left in it, and the course of its retraining."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from sparsernn.learn.prune import Prune, Scope

from .settings import PARTS

EDGES = torch.linspace(-1.5, 1.5, 61)  # of the histograms; what lies outside counts in the first or last bin


def prune(model: nn.Module, part: str, sparsity: float) -> Prune:
    """Prune the part of `model`, now; the sparsifier, once attached, holds the masks from the first step on."""
    include, scope = PARTS[part]
    sparsifier = Prune(model, None, sparsity, scope=cast(Scope, scope), include=include)
    sparsifier.step()
    return sparsifier


def share_below(model: nn.Module, threshold: float) -> float:
    """Share of the recurrent layers' weights whose size is below the threshold."""
    weights = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("recurrent.")]
    return sum(int((w.abs() < threshold).sum()) for w in weights) / sum(w.numel() for w in weights)


def histogram(model: nn.Module) -> dict[str, list[int]]:
    """How many weights that are not zero lie between EDGES, of input-to-hidden and hidden-to-hidden matrices."""
    found = {}
    for kind in ("ih", "hh"):
        weights = torch.cat([p.detach().flatten() for n, p in model.named_parameters() if f"weight_{kind}" in n])
        inside = weights[weights != 0].clamp(float(EDGES[0]), float(EDGES[-1]))
        found[kind] = [int(n) for n in torch.histogram(inside.float(), EDGES).hist]
    return found


class Course:
    """What a net is worth after each epoch of retraining, and the processor seconds that the training took.

    Called with the number of steps done; says whether to stop: the net is good enough, or after `patience` epochs
    still `poor`.
    """

    def __init__(self, judge: Callable[[], float], good: float, poor: float, epoch: int, patience: int) -> None:
        self.judge, self.good, self.poor, self.epoch, self.patience = judge, good, poor, epoch, patience
        self.values: list[float] = []
        self.seconds = 0.0
        self._began = time.process_time()

    def __call__(self, steps: int) -> bool:
        if steps % self.epoch:
            return False
        self.seconds += time.process_time() - self._began
        self.values.append(self.judge())
        self._began = time.process_time()
        hopeless = len(self.values) == self.patience and max(self.values) <= self.poor
        return hopeless or self.values[-1] >= self.good
