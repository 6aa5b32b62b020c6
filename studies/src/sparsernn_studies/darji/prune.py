"""Reber strings, pruned: how far classifiers of three recurrent layers can be pruned, and how soon they recover.

After H. Darji (arXiv 2407.20601): RNN with tanh and relu, LSTM and GRU, trained densely, pruned once to a percentage
(one threshold for the input-to-hidden weights of all layers, for the hidden-to-hidden ones, or for both together; row
"matrix" takes the same share of each matrix instead) or by a fixed threshold, and retrained with the masks held. Next
to it nets that generate the strings, letter by letter. Biases and embeddings are spared.

Strings are read at their last letter; valid and invalid ones have the same letters, ends and lengths. The original's
flaws can be switched on by name, `--set flaws=padding,letters,leak,all`, in rows of their own:

    padding: each net is read at the last step of the padded batch, not at its string's end.
    letters: most invalid strings have letters that no valid one has, and a few are turned valid ones.
    leak: a string of the test is in the training set, too.
    all: these three at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sparsernn.analysis.sparsity import inspect
from sparsernn.runtime.layers import accelerate
from sparsernn.timing import benchmark

from ..claims import Verdict, judged, lines, table
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..tables import Column, rich_table
from .claims import CLAIMS
from .figures import figures
from .rows import Darji
from .settings import FLAWS, PARTS, Name, Settings, names

PERCENTAGES = (60, 70, 80, 90, 100)


def _dense(measured: Mapping[str, Any]) -> str:
    return f"{measured['share_valid' if 'share_valid' in measured else 'test_accuracy']:.3f}"


def _at(label: str) -> Column:
    def text(measured: Mapping[str, Any]) -> str:
        return f"{measured[f'before_{label}']:.3f} → {measured[f'after_{label}']:.3f}"

    return Column(f"at {label}%", text)


COLUMNS = (Column("dense", _dense), *(_at(str(percent)) for percent in PERCENTAGES))


def run(run: Run) -> None:
    """Make the rows, show them and write the report."""
    rows = Darji(run).results()
    shown = {RECIPE.labels[row]: result for row, result in rows.items() if "threshold" not in row}
    caption = "Test accuracy (generation: share of valid strings), right after pruning → retrained."
    run.console.print(rich_table("Reber strings, pruned", COLUMNS, shown, caption))
    run.console.print(lines(_judged(rows)))
    run.console.print(f"Report: {report(run)}")


def _judged(rows: Mapping[str, Result]) -> list[Verdict]:
    return judged(CLAIMS, [{row: result.measured for row, result in rows.items()}])


def _shown(run: Run) -> list[Name]:
    """The nets that are inspected and timed: the first cell's dense one, and its pruned one where there is a row."""
    pruned = Name(run.settings.cells[0], "strings", "both")
    return [pruned.dense, pruned] if "both" in run.settings.parts else [pruned.dense]


def loaded(run: Run) -> Loaded:
    """Dense net of the first cell, and pruned one: input-to-hidden and hidden-to-hidden weights, to about 90%."""
    work = Darji(run)
    work.results()
    models = {str(name): work.load(name) for name in _shown(run)}
    return Loaded(models, work.example_inputs, list(models)[-1])


def bench(run: Run) -> None:
    """Time the first cell's dense and pruned net on one batch, the pruned one on sparsernn's kernels as well."""
    found = loaded(run)
    torch.set_num_threads(1)
    models = {**found.models, "pruned, sparsernn": accelerate(found.models[found.sparsified])}
    benchmark(models, found.example_inputs, console=run.console)


def _numbers(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in measured.items() if not isinstance(value, list)}


def report(run: Run) -> Path:
    """Write report.html, on the first cell's net, in the run's folder."""
    work = Darji(run)
    rows = work.results()
    path = run.folder / "report.html"
    measured = {row: result.measured for row, result in rows.items()}
    inspect(work.load(_shown(run)[-1]), work.example_inputs).html(
        path,
        title="Reber strings, pruned",
        command=run.command,
        runs=[{**row, "measured": _numbers(row["measured"])} for row in as_rows(list(rows.values()))],
        figures=[(drawn, caption) for drawn, caption, _ in figures([measured])],
        checks=table(_judged(rows)),
    )
    return path


_EVERY = Settings(flaws=FLAWS, flaw_parts=tuple(PARTS)[:-1])

RECIPE = Recipe(
    name="darji-prune",
    summary="Classifiers and generators of Reber strings, pruned once and retrained: how far it goes, how soon.",
    scales={
        "smoke": Settings(
            cells=("gru",),
            layers=2,
            hidden=8,
            embedding=8,
            parts=("both", "head"),
            percentages=(50, 90),
            flaws=("all",),
            few=(100,),
            thresholds=(0.05,),
            wide=12,
            wide_epochs=1,
            strings=400,
            epochs=2,
            retrain_epochs=2,
            sentence_epochs=2,
            warm_up=2,
            samples=50,
        ),
        "cpu": Settings(),
        "paper": Settings(
            flaws=FLAWS,
            flaw_parts=("both", "hh", "ih"),
            few=(60, 70, 80, 90, 100),
            wide_batch=16,
            wide_epochs=12,
            strings=25_000,
            longest=53,
            epochs=50,
            retrain_epochs=10,
            sentence_epochs=50,
            learning_rate=1e-3,
            retrain_rate=1e-3,
            warm_up=0,
            final_rate=1.0,
            samples=10_000,
        ),
    },
    minutes={"smoke": "seconds", "cpu": "10 to 20 minutes, estimated", "paper": "some hours"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    labels={str(name): name.label for name in names(_EVERY)},
    judge=Judge("test_accuracy", more=True, rows="*-strings-dense"),
)
