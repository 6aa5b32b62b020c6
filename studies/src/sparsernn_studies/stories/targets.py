"""Targets: `target=0.25` on three small nets with one setting, beside nets of that size trained directly and a sweep.

Each net is trained densely, by group lasso with a target, directly at the size that this left, and under five strengths
of the penalty; one of them also by the other methods that reach a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sparsernn.analysis.sparsity import inspect
from sparsernn.timing import benchmark

from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..tables import figure, rich_table
from .target_rows import METHODS, NETS, Settings, Targets, best_strength

COLUMNS = (
    figure("test loss", "test_loss", "{:.4f}"),
    figure("share of weights", "share", "{:.4f}"),
    figure("off the target", "off_target", "{:+.1%}"),
    figure("units", "units"),
    figure("seconds", "train_seconds", "{:.0f}"),
)
_WAYS = {
    "dense": "dense",
    "target": "target",
    "direct": "that size, trained directly",
    "direct-longer": "that size, trained directly for as many multiply-adds",
    **{f"strength{n}": f"strength, point {n + 1}" for n in range(9)},
    **{method: f"target by {method}" for method in METHODS[1:]},
}
LABELS = {f"{net}-{way}": f"{label}: {text}" for net, label in NETS.items() for way, text in _WAYS.items()}


def verdict(rows: Mapping[str, Mapping[str, Any]], settings: Settings) -> str:
    """One line a net: how near its target it came, and who of those no larger has the least loss."""
    lines = []
    for net in settings.nets:
        found = rows[f"{net}-target"]
        direct = rows[f"{net}-direct"]
        least = best_strength(net, rows, settings.target)
        best = "none: no strength came down to the size" if least is None else f"{least:.4f}"
        lines.append(
            f"{NETS[net]}: {found['share']:.4f} of the weights for a target of {settings.target}; loss "
            f"{found['test_loss']:.4f}, trained directly {direct['test_loss']:.4f}, best strength of that size {best}."
        )
    return "\n".join(lines)


def _measured(rows: Mapping[str, Result]) -> dict[str, Mapping[str, Any]]:
    return {row: result.measured for row, result in rows.items()}


def run(run: Run) -> None:
    """Make the rows, show the table and write the report."""
    rows = Targets(run).results()
    shown = {LABELS[row]: result for row, result in rows.items()}
    caption = "Loss: bits per character, nats per Reber string. Shares are of the recurrent weights."
    run.console.print(rich_table(f"To {run.settings.target} of the weights", COLUMNS, shown, caption))
    run.console.print(verdict(_measured(rows), run.settings))
    run.console.print(f"Report: {report(run)}")


def loaded(run: Run) -> Loaded:
    """The nets of the first kind before anything is taken out."""
    work, net = Targets(run), run.settings.nets[0]
    work.results()
    models = {row: work.load(row) for row in work.rows if row.startswith(f"{net}-")}
    return Loaded(models, work.example_inputs(net), f"{net}-target")


def bench(run: Run) -> None:
    """Time the first net, dense and trained directly at the small size, on one batch."""
    found, net = loaded(run), run.settings.nets[0]
    torch.set_num_threads(1)
    pair = {row: found.models[row] for row in (f"{net}-dense", f"{net}-direct")}
    benchmark(pair, found.example_inputs, console=run.console)


def report(run: Run) -> Path:
    """Write report.html, on the first net with a target, in the run's folder."""
    work, net = Targets(run), run.settings.nets[0]
    rows = work.results()
    path = run.folder / "report.html"
    inspect(work.load(f"{net}-target"), work.example_inputs(net)).html(
        path,
        title=f"To {run.settings.target} of the weights",
        verdict=verdict(_measured(rows), run.settings),
        command=run.command,
        runs=[{**row, "row": LABELS[row["row"]]} for row in as_rows(list(rows.values()))],
    )
    return path


RECIPE = Recipe(
    name="targets",
    summary="target=0.25 on three small nets: how near it lands, against direct training, a sweep and other methods.",
    scales={
        "smoke": Settings(
            hidden=24, steps=20, warm_up=2, batch=4, length=16, strings=400, symbols=20_000, strengths=(1e-4, 1e-2)
        ),
        "cpu": Settings(),
    },
    minutes={"smoke": "seconds", "cpu": "about 25 minutes a seed, estimated"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    judge=Judge("test_loss", more=False, rows="*-target"),
    labels=LABELS,
)
