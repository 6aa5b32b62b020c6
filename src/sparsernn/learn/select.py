"""Exact, repeatable choice of what goes: the k lowest scores, ties by index."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def lowest(scores: Tensor, number: int) -> Tensor:
    """Mark the `number` lowest of `scores` (n,): bool (n,) with exactly `number` True; ties go by index.

    Linear in n: what lies below the number-th value, then as many of its equals as are missing.
    """
    if number <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if number >= scores.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    limit = scores.kthvalue(number).values
    below = scores < limit
    equal = scores == limit
    missing = number - int(below.sum())
    if int(equal.sum()) == missing:
        return below | equal
    return below | (equal & (equal.cumsum(0) <= missing))


def protected(scores: Tensor, keep_one: Iterable[Tensor]) -> Tensor:
    """Groups that must stay, bool (n,): the best of each set in `keep_one` (the lowest index among equals)."""
    stay = torch.zeros_like(scores, dtype=torch.bool)
    for units in keep_one:
        units = units.to(scores.device)
        best = scores[units] == scores[units].max()
        stay[units[best][0]] = True
    return stay


def check_scores(kind: str, scores: Tensor, step: int) -> None:
    """ValueError by the sparsifier `kind` for scores that hold NaN or infinity."""
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(
            f"{kind}: scores after step {step} are not finite, so weights or gradients hold NaN or infinity.\n"
            "Nothing was changed: look at the training first."
        )
