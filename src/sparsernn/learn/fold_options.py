"""What `fold` may be given: sizes, numbers, and a model with values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from .options import number


def shares_of(to: Any, below: float, *, whole: bool) -> list[float]:
    """`to` as a list, from large to small; below: 1, or infinity where it may be an amount of what `cost` counts.

    `whole`: 1 is a share too.
    """
    several = isinstance(to, Iterable) and number(to) is None and not isinstance(to, (str, bytes, Mapping))
    given = list(to) if several else [to]
    shares = [share for each in given if (share := number(each)) is not None]
    if not given or len(shares) < len(given) or not all(0 < s < below or (s == 1 and whole) for s in shares):
        raise ValueError(f"fold: to is {to!r}, expected a share between 0 and 1, or several of them.")
    return sorted(shares, reverse=True)


def check_numbers(ridge: Any, positions: Any) -> None:
    """ValueError if they are no numbers that serve."""
    if (value := number(ridge)) is None or not 0 <= value < math.inf:
        raise ValueError(f"fold: ridge is {ridge!r}, expected a number of 0 or more (0.1).")
    if (value := number(positions)) is None or not value > 0:
        raise ValueError(f"fold: positions is {positions!r}, expected a number above 0 (40_000).")


def check_values(model: nn.Module, weights: Sequence[str]) -> None:
    """ValueError if a parameter has no values or holds NaN, or one of the matrices `weights` infinity."""
    for name, value in model.named_parameters():
        if nn.parameter.is_lazy(value):
            continue  # its own sentence comes with the first call
        if value.is_meta:
            raise ValueError(f"fold: {name} is on the meta device, without values: load the weights first.")
        value = value.detach()
        if bool(value.isnan().any()) or (name in weights and bool(value.isinf().any())):
            raise ValueError(f"fold: {name} holds NaN or infinity: look at the training first.")
