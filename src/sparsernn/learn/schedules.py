"""Schedules: which sparsity is due after which optimizer step (steps count from 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """A schedule answers for each step; None: nothing changes at this step."""

    def sparsity(self, step: int, final: float) -> float | None:
        """The sparsity to reach after optimizer step `step`, on the way to `final`."""
        ...


@dataclass(frozen=True)
class OneShot:
    """Everything at once, after the first step (or after step `at`); what follows is retraining.

    Raises ValueError unless `at` is a whole number, at least 1.
    """

    at: int = 1

    def __post_init__(self) -> None:
        _whole("OneShot", "at", self.at, 1)

    def sparsity(self, step: int, final: float) -> float | None:
        """`final` at that step."""
        return final if step == self.at else None


@dataclass(frozen=True)
class Iterative:
    """`rounds` times prune, then retrain for `every` steps; each round keeps the same share of what is left.

    After round r of R the sparsity is 1 - (1 - final)^(r/R) (Han et al., arXiv 1506.02626). The first round is after
    step 1. Raises ValueError unless both are whole numbers, at least 1.
    """

    rounds: int
    every: int

    def __post_init__(self) -> None:
        _whole("Iterative", "rounds", self.rounds, 1)
        _whole("Iterative", "every", self.every, 1)

    def sparsity(self, step: int, final: float) -> float | None:
        """A round's share of what is left goes, at every round's step."""
        number, rest = divmod(step - 1, self.every)
        if rest or number >= self.rounds:
            return None
        # The last round is exactly `final`, whatever the rounding of powers.
        return final if number + 1 == self.rounds else 1 - (1 - final) ** ((number + 1) / self.rounds)


@dataclass(frozen=True)
class Gradual:
    """The cubic ramp of Zhu & Gupta (arXiv 1710.01878, equation 1).

    From step `begin` to step `end` the sparsity is final + (initial - final) (1 - (t - begin) / (end - begin))^3,
    renewed every `every` steps. Raises ValueError for steps that are no whole numbers, an `end` before `begin`, or an
    `initial` that is no share.
    """

    end: int
    begin: int = 1
    every: int = 100
    initial: float = 0.0

    def __post_init__(self) -> None:
        _whole("Gradual", "begin", self.begin, 1)
        _whole("Gradual", "end", self.end, self.begin)
        _whole("Gradual", "every", self.every, 1)
        if not 0 <= self.initial <= 1:
            raise ValueError(f"Gradual: initial is {self.initial}, expected a sparsity between 0 and 1.")

    def sparsity(self, step: int, final: float) -> float | None:
        """Along a cubic curve (Zhu and Gupta, arXiv 1710.01878)."""
        if step == self.end:
            return final
        if not self.begin <= step < self.end or (step - self.begin) % self.every:
            return None
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return final + (min(self.initial, final) - final) * left**3


def _whole(schedule: str, name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{schedule}: {name} is {value!r}, expected a whole number of steps, at least {least}.")
