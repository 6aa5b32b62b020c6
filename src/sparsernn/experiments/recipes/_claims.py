"""The claims of a pruning study: each a number for every seed, and whether it holds over the seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

Measured = Mapping[str, Mapping[str, Any]]  # row, or what a study groups its rows by -> what was measured at one seed


@dataclass(frozen=True)
class Claim:
    """`value` computes a number from the rows of one seed; the claim holds if the mean over the seeds is `at_least`
    or `at_most` the limit given. `unit` stands behind the number."""

    text: str
    unit: str
    value: Callable[[Measured], float]
    at_most: float | None = None
    at_least: float | None = None

    def holds(self, mean: float) -> bool:
        return mean < self.at_most if self.at_most is not None else mean > (self.at_least or 0.0)


@dataclass(frozen=True)
class Verdict:
    """A claim over the seeds: mean and standard deviation (0 for one seed), and whether it holds."""

    claim: Claim
    mean: float
    deviation: float
    seeds: int
    holds: bool


def judged(claims: Sequence[Claim], seeds: Sequence[Measured]) -> list[Verdict]:
    """The claims over those of the `seeds` whose rows can answer them; what none can answer is left out."""
    found = []
    for claim in claims:
        values = []
        for rows in seeds:
            with contextlib.suppress(KeyError):  # a row or percentage that this seed or scale does not have
                values.append(claim.value(rows))
        if values:
            mean = fmean(values)
            spread = stdev(values) if len(values) > 1 else 0.0
            found.append(Verdict(claim, mean, spread, len(values), claim.holds(mean)))
    return found


def lines(verdicts: Sequence[Verdict]) -> str:
    """The claims as text, one a line."""
    return "\n".join(
        f"{'true ' if v.holds else 'false'}  {v.claim.text}: {v.mean:.2f} {v.claim.unit}" for v in verdicts
    )


def table(verdicts: Sequence[Verdict]) -> list[dict[str, str | float]]:
    """The claims as rows of a report."""
    return [
        {"claim": v.claim.text, "measured": round(v.mean, 2), "in": v.claim.unit, "holds": str(v.holds).lower()}
        for v in verdicts
    ]
