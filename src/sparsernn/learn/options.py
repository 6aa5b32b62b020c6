"""Checks of what `Shrink`, `Rewire`, `GroupLasso` and `L1` are given: a sentence for each way to get it wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEVELS_THAT_MOVE = ("weight", "block", "word")  # of `Rewire`


def number(value: Any) -> float | None:
    """`value` as a float where it is one number, of Python, numpy or torch; else None."""
    if isinstance(value, (bool, str, bytes)) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def check_goal(
    to: float | None, max_loss: float | None, validate: object, least: float, steps: int | None, cost: object
) -> None:
    """Exactly one of `to` and `max_loss`, the latter with `validate`; `to` is a share, or in the unit of a `cost`."""
    if (to is None) == (max_loss is None):
        found = "neither" if to is None else "both"
        raise ValueError(
            f"Shrink: got {found} of to= and max_loss=, expected exactly one: to= (share of weights to keep), or "
            "max_loss= (with validate=).\nA penalty of fixed strength is GroupLasso(strength=)."
        )
    if to is not None:
        own = callable(cost)
        if isinstance(to, bool) or not isinstance(to, (int, float)) or not 0 < to <= (float("inf") if own else 1):
            least_ = "above 0, in the unit of the cost" if own else "above 0 and at most 1"
            raise ValueError(f"Shrink: to is {to!r}, expected the share to keep, {least_}.")
        if validate is not None or least != 0.05:
            name = "validate" if validate is not None else "least"
            raise ValueError(f"Shrink: {name}= goes with max_loss=; to= is the size itself.")
    if steps is None:
        what = f"to={to}" if max_loss is None else f"max_loss={max_loss}"
        raise ValueError(f"Shrink: {what} needs steps=, the number of optimizer steps of the whole run.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"Shrink: steps is {steps!r}, expected a whole number of optimizer steps, at least 1.")
    if max_loss is not None:
        _check_loss(max_loss, validate, least, cost)


def _check_loss(max_loss: float, validate: object, least: float, cost: object) -> None:
    if cost != "weights":
        raise ValueError("Shrink: cost= goes with to=, which it counts.")
    if validate is None:
        raise ValueError("Shrink: max_loss= and validate= go together: the share, and what gives the loss.")
    if not isinstance(least, (int, float)) or not 0 < least < 1:
        raise ValueError(f"Shrink: least is {least!r}, expected a share above 0 and below 1.")
    if not isinstance(max_loss, (int, float)) or not 0 <= max_loss < float("inf"):
        raise ValueError(f"Shrink: max_loss is {max_loss!r}, expected a share of the loss, 0 or more (0.01: 1%).")
    if not callable(validate):
        raise TypeError(f"Shrink: validate is a {type(validate).__name__}, expected a function without arguments.")


def check_update(kind: str, update: str, threshold: float | None, groups: str, self_weights: str) -> None:
    """How a penalty acts."""
    if update not in ("proximal", "subgradient"):
        raise ValueError(f'{kind}: update is {update!r}, expected "proximal" or "subgradient".')
    if groups not in ("full", "outgoing"):
        raise ValueError(f'{kind}: groups is {groups!r}, expected "full" or "outgoing".')
    if self_weights not in ("twice", "once"):
        raise ValueError(f'{kind}: self_weights is {self_weights!r}, expected "twice" (as published) or "once".')
    if threshold is not None and update != "subgradient":
        raise ValueError(f'{kind}: threshold= goes with update="subgradient"; the proximal step gives exact zeros.')
    if threshold is not None and not threshold >= 0:
        raise ValueError(f"{kind}: threshold is {threshold!r}, expected 0 or more.")


def strengths(kind: str, strength: float | Mapping[str, float], levels: Sequence[str]) -> list[float]:
    """One strength for each level."""
    if isinstance(strength, Mapping):
        if set(strength) != set(levels):
            raise ValueError(
                f"{kind}: strength has levels {sorted(strength)}, expected one for each of {sorted(levels)}."
            )
        found = [strength[level] for level in levels]
    else:
        found = [strength] * len(levels)
    for value in found:
        if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"{kind}: strength is {value!r}, expected a finite number, 0 or more.")
    return [float(value) for value in found]


def check_rewiring(
    sparsity: float,
    steps: int | None,
    level: str,
    grow: str,
    share: float,
    decay: str,
    every: int,
    end: float,
    scope: str,
    initial: str,
    seed: int,
    storage: str,
) -> None:
    """How a network is sparse from the start, and how its places move."""
    for name, value, example in (
        ("sparsity", sparsity, "0.9: 90% are gone"),
        ("share", share, "0.3: 30% of what is there moves at first"),
        ("end", end, "0.75: places move in the first 75% of the steps"),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"Rewire: {name} is {value!r}, expected a share between 0 and 1 ({example}).")
    if steps is None:
        raise ValueError("Rewire: steps= is missing, the number of optimizer steps of the whole run.")
    for name, value, least in (("steps", steps, 1), ("every", every, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"Rewire: {name} is {value!r}, expected a whole number, at least {least}.")
    for name, value, names in (
        ("level", level, LEVELS_THAT_MOVE),
        ("grow", grow, ("random", "gradient")),
        ("decay", decay, ("cosine", "constant")),
        ("scope", scope, ("matrix", "layer", "model")),
        ("initial", initial, ("uniform", "erdos-renyi")),
        ("storage", storage, ("dense", "sparse")),
    ):
        if value not in names:
            raise ValueError(f"Rewire: {name} is {value!r}, expected one of {', '.join(map(repr, names))}.")
