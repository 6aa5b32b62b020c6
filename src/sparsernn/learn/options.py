"""Checks of what `GroupLasso` and `L1` are given: a sentence for each way to get it wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def check_goal(
    kind: str,
    target: float | None,
    steps: int | None,
    strength: float | Mapping[str, float] | None,
    max_loss: float | None = None,
    *,
    absolute: bool = False,
) -> None:
    """Exactly one of target, strength and max_loss; steps with target and max_loss only."""
    given = [n for n, v in (("target", target), ("strength", strength), ("max_loss", max_loss)) if v is not None]
    if len(given) != 1:
        found = {0: "neither", 2: "both" if max_loss is None else " and ".join(given), 3: "all"}[len(given)]
        raise ValueError(
            f"{kind}: got {found} of target= and strength=, expected exactly one: target= (share of weights to keep, "
            "with steps=) or strength= (factor of the penalty).\nOr max_loss= (with steps= and validate=)."
        )
    if target is not None and (
        not isinstance(target, (int, float)) or not 0 < target <= (float("inf") if absolute else 1)
    ):
        least = "above 0, in the unit of the cost" if absolute else "above 0 and at most 1"
        raise ValueError(f"{kind}: target is {target!r}, expected the share to keep, {least}.")
    if strength is None:
        if steps is None:
            what = f"target={target}" if max_loss is None else f"max_loss={max_loss}"
            raise ValueError(f"{kind}: {what} needs steps=, the number of optimizer steps of the whole run.")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"{kind}: steps is {steps!r}, expected a whole number of optimizer steps, at least 1.")
    elif steps is not None:
        raise ValueError(
            f"{kind}: steps= goes with target=; a penalty of fixed strength acts as long as it is attached."
        )


def check_course(
    kind: str,
    target: float | None,
    max_loss: float | None,
    validate: object,
    least: float,
    method: str,
    cost: object,
    levels: Sequence[str],
) -> None:
    """How a size is reached, and the loss that bounds it."""
    if method not in ("top-k", "shrink", "hard-concrete"):
        raise ValueError(f'{kind}: method is {method!r}, expected "top-k", "shrink" or "hard-concrete".')
    if target is None and method != "top-k":
        raise ValueError(f'{kind}: method="{method}" goes with target=, which it leads to.')
    if target is None and cost != "weights":
        raise ValueError(f"{kind}: cost= goes with target=, which it counts.")
    if method == "hard-concrete" and tuple(levels) != ("unit",):
        raise ValueError(f'{kind}: method="hard-concrete" has gates on units, got level {", ".join(levels)}.')
    if method == "hard-concrete" and callable(cost):
        raise ValueError(
            f'{kind}: method="hard-concrete" needs the expected cost and its gradient, which a function of the widths '
            'does not give: use cost="mult-adds", or another method.'
        )
    if (max_loss is None) != (validate is None):
        raise ValueError(f"{kind}: max_loss= and validate= go together: the share, and what gives the loss.")
    if max_loss is None:
        if least != 0.05:
            raise ValueError(f"{kind}: least= goes with max_loss=, as the smallest share that is tried.")
        return
    if not isinstance(least, (int, float)) or not 0 < least < 1:
        raise ValueError(f"{kind}: least is {least!r}, expected a share above 0 and below 1.")
    if not isinstance(max_loss, (int, float)) or not 0 <= max_loss < float("inf"):
        raise ValueError(f"{kind}: max_loss is {max_loss!r}, expected a share of the loss, 0 or more (0.01: 1%).")
    if not callable(validate):
        raise TypeError(f"{kind}: validate is a {type(validate).__name__}, expected a function without arguments.")


def check_update(kind: str, chosen: bool, update: str, threshold: float | None, groups: str, self_weights: str) -> None:
    """Options of the penalty, which have no meaning where groups are `chosen` to go (by target or max_loss)."""
    if update not in ("proximal", "subgradient"):
        raise ValueError(f'{kind}: update is {update!r}, expected "proximal" or "subgradient".')
    if groups not in ("full", "outgoing"):
        raise ValueError(f'{kind}: groups is {groups!r}, expected "full" or "outgoing".')
    if self_weights not in ("twice", "once"):
        raise ValueError(f'{kind}: self_weights is {self_weights!r}, expected "twice" (as published) or "once".')
    if chosen and update != "proximal":
        raise ValueError(f'{kind}: update="subgradient" goes with strength=; target= picks the groups itself.')
    if threshold is not None and update != "subgradient":
        raise ValueError(f'{kind}: threshold= goes with update="subgradient"; the proximal step gives exact zeros.')
    if threshold is not None and not threshold >= 0:
        raise ValueError(f"{kind}: threshold is {threshold!r}, expected 0 or more.")


def strengths(kind: str, strength: float | Mapping[str, float] | None, levels: Sequence[str]) -> list[float]:
    """One strength for each level; zeros where a target is given instead."""
    if strength is None:
        return [0.0] * len(levels)
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
