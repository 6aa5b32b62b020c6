"""MNIST by rows, pruned by magnitude: how far an RNN, an LSTM and a GRU can be pruned, before and after retraining.

After L. Wang's study of weights pruning for RNNs (slides and code) with the three schemes of See et al. (arXiv
1606.09274): trained densely, pruned once, retrained with the masks held. Weights of matrices only, biases are spared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparsernn.analysis.pruning import accuracy_figure, remaining_figure
from sparsernn.analysis.sparsity import inspect
from sparsernn.runtime.layers import accelerate
from sparsernn.timing import benchmark

from ..claims import Verdict, judged, lines, table
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..tables import figure, rich_table
from .claims import CLAIMS
from .figures import curves, remaining
from .rows import VARIANTS, Name, Settings, Wang, grouped, names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    figure("not zero", "nonzero", "{:,}"),
    figure("after pruning", "before", "{:.4f}"),
    figure("trained, retrained", "test_accuracy", "{:.4f}"),
)


def run(run: Run) -> None:
    """Make the rows, show them with the claims and write the report."""
    rows = Wang(run).results()
    labels = {str(name): name.label for name in names(run.settings)}
    shown = {labels[row]: result for row, result in rows.items()}
    caption = "Test accuracy; dense nets are also trained on for as long as the pruned ones are retrained."
    run.console.print(rich_table("MNIST by rows, pruned", COLUMNS, shown, caption))
    run.console.print(lines(_judged(rows)))
    run.console.print(f"Report: {report(run)}")


def _judged(rows: Mapping[str, Result]) -> list[Verdict]:
    return judged(CLAIMS, [grouped({row: result.measured for row, result in rows.items()})])


def figures(seeds: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[tuple[Figure, str, str]]:
    """The slides' plots from row -> measured for each seed: (figure, caption, name of a file)."""
    each = [grouped(rows) for rows in seeds]
    rows = {net: [found[net] for found in each] for net in (each[0] if each else ()) if all(net in f for f in each)}
    panels, dense = curves(rows)
    blocks = remaining(rows, 95)
    made = []
    if panels:
        caption = "Test accuracy over the percentage pruned, right after pruning (dashed) and retrained; one layer."
        made.append((accuracy_figure(panels, dense, y="test accuracy"), caption, "accuracy"))
    if blocks:
        caption = "Weights remaining and pruned in each gate at 95%, one threshold for all weights; one layer."
        made.append((remaining_figure(blocks), caption, "remaining"))
    return made


def _shown(settings: Settings) -> Name:
    """The pruned net that is inspected and timed: the first cell's, at the percentage nearest to 95."""
    return next(name for name in names(settings) if name.percent)


def loaded(run: Run) -> Loaded:
    """Dense and pruned net of the first cell."""
    work = Wang(run)
    work.results()
    name = _shown(run.settings)
    models = {str(each): work.load(each) for each in (name.dense, name)}
    return Loaded(models, work.example_inputs, str(name))


def bench(run: Run) -> None:
    """Time the first cell's dense and pruned net on one batch, the pruned one on sparsernn's kernels as well."""
    found = loaded(run)
    torch.set_num_threads(1)
    models = {**found.models, "pruned, sparsernn": accelerate(found.models[found.sparsified])}
    benchmark(models, found.example_inputs, console=run.console)


def report(run: Run) -> Path:
    """Write report.html, on the first cell's pruned net, in the run's folder."""
    work = Wang(run)
    rows = work.results()
    path = run.folder / "report.html"
    measured = {row: result.measured for row, result in rows.items()}
    inspect(work.load(_shown(run.settings)), work.example_inputs).html(
        path,
        title="MNIST by rows, pruned",
        command=run.command,
        runs=[
            {**row, "measured": {k: v for k, v in row["measured"].items() if not k.startswith("kept_")}}
            for row in as_rows(list(rows.values()))
        ],
        figures=[(drawn, caption) for drawn, caption, _ in figures([measured])],
        checks=table(_judged(rows)),
    )
    return path


PERCENTAGES = (50, 80, 90, 95, 97, 99)
_EVERY = Settings(variants=VARIANTS, few=PERCENTAGES)

RECIPE = Recipe(
    name="wang-mnist",
    summary="RNN, LSTM and GRU on MNIST rows, pruned once by three schemes and retrained: how far it goes.",
    scales={
        "smoke": Settings(
            cells=("gru",),
            layers=(1, 2),
            hidden=12,
            variants=("blind-hh",),
            percentages=(50, 95),
            steps=20,
            retrain_steps=10,
            warm_up=2,
            train_images=300,
            test_images=200,
            batch=32,
        ),
        "cpu": Settings(),
        "paper": Settings(
            few=PERCENTAGES,
            steps=23_400,
            retrain_steps=23_400,
            learning_rate=1e-3,
            weight_decay=0.0,
            retrain_rate=1e-3,
            rnn_rate=1.0,
            warm_up=0,
            final_rate=1.0,
            precision="float32",
        ),
    },
    minutes={
        "smoke": "seconds",
        "cpu": "about 15 minutes a seed with one layer, 15 more with two and three",
        "paper": "a day",
    },
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    judge=Judge("test_accuracy", more=True, rows="*-blind-*"),
    labels={str(name): name.label for name in names(_EVERY)},
)
