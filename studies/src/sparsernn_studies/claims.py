"""The claims of a study: each a number for every seed, and what the seeds together say about it.

A claim is judged only where its data can carry a judgement: at least three seeds, a dense net that clearly beats what
needs no net, and an interval of the mean that lies on one side of the limit. Else it is *not answered*,
and why is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

Measured = Mapping[str, Mapping[str, Any]]  # row, or what a study groups its rows by -> what was measured at one seed
Value = Callable[[Measured], float]  # the number of one seed; KeyError where its rows lack it
Guard = Callable[[Measured], str]  # why the rows of a seed can't answer, "" if they can
Answer = Literal["holds", "refuted", "not answered"]
SEEDS = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Claim:
    """`value` computes a number from the rows of one seed; the claim holds if its mean over the seeds is below
    `at_most` or above `at_least`. `unit` stands behind the number; `guards` say where nothing may be said."""

    text: str
    unit: str
    value: Value
    at_most: float | None = None
    at_least: float | None = None
    guards: tuple[Guard, ...] = ()

    def answer(self, low: float, high: float) -> Answer:
        """What an interval of the mean says."""
        if self.at_most is not None:
            return "holds" if high < self.at_most else "refuted" if low >= self.at_most else "not answered"
        limit = self.at_least or 0.0
        return "holds" if low > limit else "refuted" if high <= limit else "not answered"


@dataclass(frozen=True)
class Verdict:
    """A claim over the seeds: mean (None where a control is lacking), its 95% interval (Student's t; None for one
    seed), and what follows; `why` not."""

    claim: Claim
    mean: float | None
    interval: tuple[float, float] | None
    seeds: int
    answer: Answer
    why: str = ""

    @property
    def number(self) -> str:
        return "-" if self.mean is None else f"{self.mean:.2f} {self.claim.unit}"

    @property
    def said(self) -> str:
        return f"{self.answer}: {self.why}" if self.why else self.answer


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def judged(claims: Sequence[Claim], seeds: Sequence[Measured]) -> list[Verdict]:
    """The claims over those of the `seeds` whose rows have the number; what none has is left out, unless it lacks a
    control alone."""
    found = []
    for claim in claims:
        values, reasons = [], []
        for rows in seeds:
            with contextlib.suppress(KeyError):  # a row or percentage that this seed or scale does not have
                values.append(claim.value(rows))
                reasons += [reason for guard in claim.guards if (reason := guard(rows))]
        controls = [guard for guard in claim.guards if isinstance(guard, Control)]
        lacking = [why for rows in seeds for control in controls if (why := control(rows))]
        if values:
            found.append(_verdict(claim, values, reasons))
        elif lacking:
            found.append(Verdict(claim, None, None, 0, "not answered", lacking[0]))
    return found


def _verdict(claim: Claim, values: Sequence[float], reasons: Sequence[str]) -> Verdict:
    mean, between = fmean(values), interval(values)
    if reasons:
        return Verdict(claim, mean, between, len(values), "not answered", reasons[0])
    if len(values) < SEEDS or between is None:
        number = f"{len(values)} seed{'s' if len(values) > 1 else ''} of {SEEDS}"
        return Verdict(claim, mean, between, len(values), "not answered", number)
    answer = claim.answer(*between)
    return Verdict(
        claim, mean, between, len(values), answer, "the interval holds the limit" if answer == "not answered" else ""
    )


def lines(verdicts: Sequence[Verdict]) -> str:
    """The claims as text, one a line."""
    return "\n".join(f"{v.said}  {v.claim.text}: {v.number}" for v in verdicts)


def table(verdicts: Sequence[Verdict]) -> list[dict[str, str | float]]:
    """The claims as rows of a report."""
    return [
        {
            "claim": v.claim.text,
            "measured": "-" if v.mean is None else round(v.mean, 2),
            "in": v.claim.unit,
            "verdict": v.said,
        }
        for v in verdicts
    ]


def beats(metric: str, net: str, baseline: str, name: str, *, more: bool, by: float, best: float = 1.0) -> Guard:
    """A guard: `net` has to be better in `metric` than the row `baseline` by the share `by` of what that leaves to
    gain: up to `best` where `more` is better, else of the metric itself."""

    def guard(rows: Measured) -> str:
        if baseline not in rows:
            return f"{name} was not measured"
        ours, simple = rows[net][metric], rows[baseline][metric]
        enough = best - ours < (1 - by) * (best - simple) if more else ours < (1 - by) * simple
        return "" if enough else f"the dense net ({ours:.4g}) does not clearly beat {name} ({simple:.4g})"

    return guard


def stands_out(metric: str, net: str, simple: float, name: str, *, more: bool, what: str = "the dense net") -> Guard:
    """A guard: `net` has to beat the known figure `simple` of `name` in `metric` by a tenth of it."""

    def guard(rows: Measured) -> str:
        ours = rows[net][metric]
        enough = ours > 1.1 * simple if more else ours < 0.9 * simple
        return "" if enough else f"{what} ({ours:.4g}) does not clearly beat {name} ({simple:.4g})"

    return guard


@dataclass(frozen=True)
class Control:
    """A guard: where the row `beside` is, the control `row` has to be; `why` says what without it is not known."""

    row: str
    beside: str
    why: str

    def __call__(self, rows: Measured) -> str:
        return self.why if self.beside in rows and self.row not in rows else ""


def more(metric: str, row: str, other: str, scale: float = 1.0) -> Value:
    """By how much `row` has more of `metric` than `other`, times `scale`."""
    return lambda rows: scale * (rows[row][metric] - rows[other][metric])


def percent_more(metric: str, row: str, other: str) -> Value:
    """By how many percent of `other`'s `row` has more of `metric`."""
    return lambda rows: 100 * (rows[row][metric] / rows[other][metric] - 1)


def costs_little(text: str, lost: Value) -> Claim:
    """The claim that under one point is lost."""
    return Claim(text, "points lost", lost, at_most=1.0)


def greater(
    text: str, first: Value, second: Value, unit: str = "points lost less", guards: tuple[Guard, ...] = ()
) -> Claim:
    """The claim that the first number is greater than the second, by so many of `unit`."""
    return Claim(text, unit, lambda rows: first(rows) - second(rows), at_least=0.0, guards=guards)
