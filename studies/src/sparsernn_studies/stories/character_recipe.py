"""A recipe whose rows are character LSTMs: its table, its times, its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparsernn.analysis.sparsity import inspect

from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..tables import Column, figure, file_size, rich_table
from .characters import Characters

Figures = Mapping[str, Mapping[str, Any]]

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


def character_recipe(
    work_of: Callable[[Run], Characters],
    labels: Mapping[str, str],
    verdict: Callable[[Figures], str],
    title: str,
    columns: tuple[Column, ...] = COLUMNS,
    **about: Any,
) -> Recipe:
    """The recipe; `about` is its name, summary, scales and minutes, `verdict` the sentence under its table."""

    def show(run: Run, rows: Mapping[str, Result]) -> None:
        s = run.settings
        run.console.print()
        run.console.print(
            rich_table(
                title,
                columns,
                {labels[row]: result for row, result in rows.items()},
                f"One thread; batch {s.bench_batch} x {s.bench_steps}; step: batch 1, torch's the faster of LSTM and "
                "LSTMCell; speed against dense.",
            )
        )
        run.console.print(verdict({row: result.measured for row, result in rows.items()}))

    def start(run: Run) -> None:
        bench(run)
        run.console.print(f"Report: {report(run)}")

    def bench(run: Run) -> None:
        work = work_of(run)
        show(run, work.timed(work.make()))

    def report(run: Run) -> Path:
        work = work_of(run)
        rows = work.make()
        if any("ms_step" not in result.measured for result in rows.values()):
            rows = work.timed(rows)
        path = run.folder / "report.html"
        inspect(work.load("sparse"), work.example_inputs).html(
            path, command=run.command, history=work.history(), **_sections(rows, labels, verdict, title)
        )
        return path

    def load(run: Run) -> Loaded:
        work = work_of(run)
        return Loaded({row: work.load(row) for row in work.make()}, work.example_inputs, "sparse")

    judge = Judge("test_bpc", more=False, rows="compact")
    return Recipe(
        run=start, load=load, bench=bench, report=report, columns=columns, labels=labels, judge=judge, **about
    )


def _sections(
    rows: Mapping[str, Result], labels: Mapping[str, str], verdict: Callable[[Figures], str], title: str
) -> dict[str, Any]:
    """What the report shows of the rows."""
    measured = {row: dict(result.measured) for row, result in rows.items()}
    first = next(iter(rows.values()))
    return {
        "title": title,
        "verdict": verdict(measured),
        "runs": [{**row, "row": labels[row["row"]]} for row in as_rows(list(rows.values()))],
        "benchmark": [
            {
                "work": f"{labels[row]}, {kind}",
                "against": "dense, torch",
                "ratio": figures[f"speedup_{kind}"],
                "spread": figures[f"spread_{kind}"],
            }
            for row, figures in measured.items()
            for kind in ("batch", "step")
            if row != "dense"
        ],
        "checks": {
            **{
                f"largest difference {labels[row]} to sparse": figures["max_error"]
                for row, figures in measured.items()
                if row != "sparse" and "max_error" in figures
            },
            "seed": first.seed,
            **first.versions,
        },
    }
