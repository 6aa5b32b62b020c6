"""Checks of what `GroupLasso` and `L1` are given: a sentence for each way to get it wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def check_goal(
    kind: str, target: float | None, steps: int | None, strength: float | Mapping[str, float] | None
) -> None:
    """Exactly one of target and strength; steps with target only."""
    if (target is None) == (strength is None):
        given = "neither" if target is None else "both"
        raise ValueError(
            f"{kind}: got {given} of target= and strength=, expected exactly one: target= (share of weights to keep, "
            "with steps=) or strength= (factor of the penalty)."
        )
    if target is not None:
        if not isinstance(target, (int, float)) or not 0 < target <= 1:
            raise ValueError(f"{kind}: target is {target!r}, expected the share to keep, above 0 and at most 1.")
        if steps is None:
            raise ValueError(f"{kind}: target={target} needs steps=, the number of optimizer steps of the whole run.")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"{kind}: steps is {steps!r}, expected a whole number of optimizer steps, at least 1.")
    elif steps is not None:
        raise ValueError(
            f"{kind}: steps= goes with target=; a penalty of fixed strength acts as long as it is attached."
        )


def check_update(
    kind: str, target: float | None, update: str, threshold: float | None, groups: str, self_weights: str
) -> None:
    """Options of the penalty, which have no meaning for a target."""
    if update not in ("proximal", "subgradient"):
        raise ValueError(f'{kind}: update is {update!r}, expected "proximal" or "subgradient".')
    if groups not in ("full", "outgoing"):
        raise ValueError(f'{kind}: groups is {groups!r}, expected "full" or "outgoing".')
    if self_weights not in ("twice", "once"):
        raise ValueError(f'{kind}: self_weights is {self_weights!r}, expected "twice" (as published) or "once".')
    if target is not None and update != "proximal":
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
