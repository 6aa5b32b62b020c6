"""A recipe after Lobacheva et al. (arXiv 1911.05585): its table, its claims, its times, its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsernn.analysis.sparsity import inspect
from sparsernn.timing import benchmark

from ..claims import Verdict, judged, lines, table
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..tables import Column, figure, rich_table
from .claims import all_of
from .paper import Rows
from .rows import Lobacheva
from .settings import BASELINES, LABELS
from .tasks import Task

SHARED = (
    figure("compression", "compression", "{:,}x"),
    figure("words", "words", "{:,}"),
    figure("inputs", "inputs"),
    figure("units", "units"),
    figure("gates", "gates"),
    figure("not zero", "nonzero", "{:,}"),
    figure("units out, ms", "ms_units", "{:.2f}"),
    figure("gates out too, ours, ms", "ms_gates_fast", "{:.2f}"),
    figure("", "gain_gates_fast", "{:.1f}x"),
)
ACCURACY = (figure("test accuracy", "test_accuracy", "{:.4f}"),)
BITS = (figure("valid bits", "valid_bpc", "{:.3f}"), figure("test bits", "test_bpc", "{:.3f}"))
PERPLEXITY = (figure("valid", "valid_perplexity", "{:.1f}"), figure("test", "test_perplexity", "{:.1f}"))
CAPTION = (
    "Times: 32 sequences, one thread; of a net without dead units in torch, and without constant gates as well on "
    "sparsernn's kernels."
)


def gate_recipe(
    name: str,
    tasks: Callable[[Run], Mapping[str, Task]],
    paper: Rows,
    quality: Sequence[Column],
    judge: Judge,
    title: str,
    nets: Mapping[str, str] | None = None,
    **about: Any,
) -> Recipe:
    """The recipe; `tasks` maps the prefix of each net's rows to what it learns, `nets` the prefix to words before its
    labels; `about` is the recipe's summary, scales and minutes."""
    before = {"": ""} if nets is None else nets
    labels = {f"{prefix}{row}": f"{words}{label}" for prefix, words in before.items() for row, label in LABELS.items()}
    labels |= BASELINES
    columns = (*quality, *SHARED)

    def works(run: Run) -> list[Lobacheva]:
        return [Lobacheva(run, task, prefix) for prefix, task in tasks(run).items()]

    def made(run: Run) -> dict[str, Result]:
        """All rows, with times where they are taken."""
        rows: dict[str, Result] = {}
        for row, measure in next(iter(tasks(run).values())).baselines().items():
            rows[row] = run.row(row, measure)
        for work in works(run):
            own = work.results(paper)
            timed = all("gates_gain" in own[row].measured for row in work.timed_rows)
            rows |= own if timed else work.timed(own)
        return rows

    def verdicts(rows: Mapping[str, Result]) -> list[Verdict]:
        return judged(all_of(name), [{row: result.measured for row, result in rows.items()}])

    def start(run: Run) -> None:
        rows = made(run)
        run.console.print(rich_table(title, columns, {labels[row]: result for row, result in rows.items()}, CAPTION))
        run.console.print(lines(verdicts(rows)))
        run.console.print(f"Report: {report(run)}")

    def load(run: Run) -> Loaded:
        made(run)
        every = works(run)
        models = {row: work.load(row) for work in every for row in work.rows}
        return Loaded(models, every[0].task.example_inputs, _shown(every[0]))

    def bench(run: Run) -> None:
        """Time the dense net beside the shown one without dead units and without constant gates, in both runtimes."""
        first = works(run)[0]
        first.results(paper)
        models = {"dense": first.load(f"{first.prefix}dense"), **first.forms(_shown(first))}
        benchmark(models, first.task.example_inputs, console=run.console)

    def report(run: Run) -> Path:
        rows = made(run)
        first = works(run)[0]
        shown = _shown(first)
        found = inspect(first.load(shown), first.task.example_inputs)
        course = rows[shown].measured
        path = run.folder / "report.html"
        found.html(
            path,
            title=title,
            command=run.command,
            runs=[
                {**row, "row": labels[row["row"]], "measured": _numbers(row["measured"])}
                for row in as_rows(list(rows.values()))
            ],
            gradient_lag=found.gradient_lag(run.settings.lags),
            history={
                "step": course["epochs"],
                "loss": course["loss_by_epoch"],
                "kept": [1 / compression for compression in course["compression_by_epoch"]],
            },
            checks=table(verdicts(rows)),
        )
        return path

    return Recipe(
        name=name,
        run=start,
        load=load,
        bench=bench,
        report=report,
        columns=columns,
        labels=labels,
        judge=judge,
        **about,
    )


def _shown(work: Lobacheva) -> str:
    """The row that is inspected and timed: W+G+N by Bayes, else the first one."""
    kinds = work.settings.rows
    return f"{work.prefix}{'bayes-wgn' if 'bayes-wgn' in kinds else kinds[0]}"


def _numbers(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in measured.items() if not isinstance(value, (list, dict))}
