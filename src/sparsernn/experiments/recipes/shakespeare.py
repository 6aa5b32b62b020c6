"""Tiny Shakespeare: a character LSTM made small in one run, taken apart exactly, and run fast.

Six rows: *dense*; *direct*, a dense net with as many units as the compact one, trained directly for as many steps;
*sparse*, the dense net after group lasso with a target, not compacted; *compact*, the same function as a smaller
nn.LSTM; *fast*, that on sparsernn's kernels; *int8*, the same with weights of eight bits. All nets take as many steps
in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...analysis.sparsity import inspect
from ..results import Result, as_rows
from ..runs import Run
from ..tables import Column, figure, file_size, rich_table
from ._recipe import Loaded, Recipe
from ._shakespeare import ROWS, SMOKE, Settings, Shakespeare

COLUMNS = (
    figure("bits/char", "test_bpc", "{:.3f}"),
    figure("units", "units"),
    figure("weights", "weights", "{:,}"),
    Column("file", lambda m: file_size(m["file_bytes"])),
    figure("batch", "ms_batch", "{:.2f} ms"),
    figure("", "speedup_batch", "{:.1f}x"),
    Column("step", lambda m: f"{1e3 * m['ms_step']:.1f} µs"),
    figure("", "speedup_step", "{:.1f}x"),
)


def _make(run: Run) -> tuple[Shakespeare, dict[str, Result]]:
    work = Shakespeare(run)
    order = ("dense", "sparse", "compact", "direct", "fast", "int8")  # what a row needs is made before it
    made = {row: run.row(row, getattr(work, row)) for row in order}
    return work, {row: made[row] for row in ROWS}


def _show(run: Run, rows: Mapping[str, Result]) -> None:
    s: Settings = run.settings
    run.console.print()
    run.console.print(
        rich_table(
            "Tiny Shakespeare, characters: the last tenth of the text",
            COLUMNS,
            {ROWS[row]: result for row, result in rows.items()},
            f"One thread; batch {s.bench_batch} x {s.bench_steps}; step: batch 1, torch's the faster of LSTM and "
            "LSTMCell; speed against dense.",
        )
    )
    run.console.print(_verdict({row: result.measured for row, result in rows.items()}))


def _verdict(rows: Mapping[str, Mapping[str, Any]]) -> str:
    dense, exact, fast = rows["dense"], rows["fast"], rows["int8"]
    return (
        f"{dense['units'][0]} → {fast['units'][0]} units, {dense['weights']:,} → {fast['weights']:,} weights, "
        f"{fast['speedup_batch']:.1f}x faster in a batch and {fast['speedup_step']:.1f}x in a streaming step on this "
        f"CPU, one thread; bits per character {dense['test_bpc']:.3f} → {fast['test_bpc']:.3f} "
        f"({100 * (fast['test_bpc'] / dense['test_bpc'] - 1):+.1f}%).\n"
        f"That is in int8. In float32: {exact['speedup_batch']:.1f}x and {exact['speedup_step']:.1f}x, outputs "
        f"equal to {exact['max_error']:.0e}."
    )


def run(run: Run) -> None:
    """Make the rows, time them, show the table and write the report."""
    work, made = _make(run)
    _show(run, work.timed(made))
    run.console.print(f"Report: {report(run)}")


def bench(run: Run) -> None:
    """Time the models of a finished run anew and show the table."""
    work, made = _make(run)
    _show(run, work.timed(made))


def report(run: Run) -> Path:
    """Write report.html in the run's folder and return its path."""
    work, rows = _make(run)
    if any("ms_step" not in result.measured for result in rows.values()):
        rows = work.timed(rows)
    found = inspect(work.load("sparse"), work.example_inputs)
    path = run.folder / "report.html"
    measured = {row: dict(result.measured) for row, result in rows.items()}
    found.html(
        path,
        title="Tiny Shakespeare",
        verdict=_verdict(measured),
        command=run.command,
        runs=[{**row, "row": ROWS[row["row"]]} for row in as_rows(list(rows.values()))],
        history=work.history(),
        benchmark=[
            {
                "work": f"{ROWS[row]}, {kind}",
                "against": "dense, torch",
                "ratio": figures[f"speedup_{kind}"],
                "spread": figures[f"spread_{kind}"],
            }
            for row, figures in measured.items()
            for kind in ("batch", "step")
            if row != "dense"
        ],
        checks={
            "largest difference compact (torch) to sparse": measured["compact"]["max_error"],
            "largest difference compact (sparsernn) to sparse": measured["fast"]["max_error"],
            "largest difference compact (sparsernn, int8) to sparse": measured["int8"]["max_error"],
            "seed": run.seed,
            **rows["fast"].versions,
        },
    )
    return path


def loaded(run: Run) -> Loaded:
    """The models of a finished run."""
    work, _ = _make(run)
    return Loaded({row: work.load(row) for row in ROWS}, work.example_inputs, "sparse")


RECIPE = Recipe(
    name="shakespeare",
    summary="A character LSTM on tiny Shakespeare: dense, sparse by target, compact, fast.",
    scales={"smoke": SMOKE, "cpu": Settings()},
    minutes={"smoke": "seconds", "cpu": "under 10 minutes"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    labels=ROWS,
)
