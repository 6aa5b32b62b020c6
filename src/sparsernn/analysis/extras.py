"""What a report can show beside the model: runs, times, training and checks, as plain data that is checked here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Extras:
    """Checked copies of the keyword arguments of `Report.html`; empty where nothing was given."""

    title: str | None = None
    verdict: str | None = None
    command: str | None = None
    runs: tuple[dict[str, Any], ...] = ()
    layer_times: dict[str, dict[str, float]] = field(default_factory=dict)
    gradient_lag: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    benchmark: tuple[dict[str, Any], ...] = ()
    checks: tuple[dict[str, Any], ...] = ()
    figures: tuple[tuple[Any, str], ...] = ()
    sweep: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, **given: Any) -> Extras:
        """Check the form of each argument; raises ValueError with what was expected."""
        return cls(
            title=given["title"],
            verdict=given["verdict"],
            command=given["command"],
            runs=merge_seeds(_rows("runs", given["runs"])),
            layer_times=_layer_times(given["layer_times"]),
            gradient_lag=_gradient_lag(given["gradient_lag"]),
            history=_history(given["history"]),
            benchmark=tuple(_rows("benchmark", given["benchmark"])),
            checks=_checks(given["checks"]),
            figures=tuple((figure, str(description)) for figure, description in given.get("figures") or ()),
            sweep=_sweep(given.get("sweep")),
        )


def merge_seeds(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """One row for each name, in order: {"number", "row", "seeds", "measured", "paper", "spread"}.

    `measured` are means over the seeds and `spread` their standard deviations. A metric that is a list in a row (the
    units of each layer) is taken from the first seed.
    """
    names = list(dict.fromkeys(str(row.get("row", f"row {n + 1}")) for n, row in enumerate(rows)))
    merged = []
    for number, name in enumerate(names, 1):
        same = [row for n, row in enumerate(rows) if str(row.get("row", f"row {n + 1}")) == name]
        measured, spread = {}, {}
        for metric in dict.fromkeys(m for row in same for m in row.get("measured") or {}):
            values = [row["measured"][metric] for row in same if (row.get("measured") or {}).get(metric) is not None]
            numbers = [float(v) for v in values if is_number(v)]
            if numbers and len(numbers) == len(values):
                measured[metric] = fmean(numbers) if len(numbers) > 1 else values[0]
                if len(numbers) > 1:
                    spread[metric] = stdev(numbers)
            elif values:
                measured[metric] = values[0]
        paper = {m: v for row in reversed(same) for m, v in (row.get("paper") or {}).items() if v is not None}
        merged.append(
            {"number": number, "row": name, "seeds": len(same), "measured": measured, "paper": paper, "spread": spread}
        )
    return tuple(merged)


def is_number(value: object) -> bool:
    """True for a finite int or float (a bool is an answer, not a number)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rows(name: str, given: Any) -> list[dict[str, Any]]:
    rows = list(given or ())
    for n, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"html: {name}[{n}] is {type(row).__name__}, expected a dict with a row's values by name.")
        for part in ("measured", "paper") if name == "runs" else ():
            if not isinstance(row.get(part) or {}, Mapping):
                raise ValueError(f"html: {name}[{n}][{part!r}] is {row[part]!r}, expected a dict of metrics.")
    return [dict(row) for row in rows]


def _layer_times(given: Any) -> dict[str, dict[str, float]]:
    times = dict(given or {})
    for name, row in times.items():
        if not isinstance(row, Mapping) or not row or not all(is_number(v) and v >= 0 for v in row.values()):
            raise ValueError(f'html: layer_times[{name!r}] is {row!r}, expected {{"before": ms, "after": ms}}.')
    return {name: {key: float(v) for key, v in row.items()} for name, row in times.items()}


def _gradient_lag(given: Any) -> dict[str, Any]:
    lag = dict(given or {})
    if not all(isinstance(v, Mapping) and ("kinds" in v or "skipped" in v) for v in lag.values()):
        raise ValueError("html: gradient_lag is of another form, expected what report.gradient_lag() returned.")
    return lag


def _history(given: Any) -> dict[str, list[float]]:
    if not given:
        return {}
    if not isinstance(given, Mapping):
        rows = _rows("history", given)
        given = {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)}
    series = {str(name): list(values) for name, values in given.items()}
    lengths = {name: len(values) for name, values in series.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"html: the series of history have lengths {lengths}, expected one length for all.")
    bad = next(((n, v) for n, values in series.items() for v in values if v is not None and not _real(v)), None)
    if bad is not None:
        raise ValueError(f"html: history[{bad[0]!r}] contains {bad[1]!r}, expected numbers or None.")
    return series if next(iter(lengths.values())) else {}


def _sweep(given: Any) -> dict[str, Any]:
    if not given:
        return {}
    missing = [name for name in ("trials", "quality", "more", "size") if name not in given]
    if missing:
        raise ValueError(f"html: sweep lacks {', '.join(missing)}; expected trials, quality, more, size and log.")
    for n, row in enumerate(_rows("sweep trials", given["trials"])):
        if not isinstance(row.get("settings"), Mapping) or "number" not in row:
            raise ValueError(f"html: sweep trials[{n}] is {row!r}, expected a number and settings by name.")
    return {"log": (), **given}


def _real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checks(given: Any) -> tuple[dict[str, Any], ...]:
    if isinstance(given, Mapping):
        return tuple({"check": name, "result": result} for name, result in given.items())
    return tuple(_rows("checks", given))
