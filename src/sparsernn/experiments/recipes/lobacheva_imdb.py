"""Sentiment of IMDb reviews: words, inputs, units, gates and weights of an LSTM that Bayes and pruning leave.

After Lobacheva et al. (arXiv 1911.05585, table 1): vectors of 300 columns for 20,003 words, 128 LSTM units, reviews of
at most 200 words. W learns which weights go, W+N units, inputs and words as well, W+G+N gates besides.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..._benchmark import benchmark
from ...analysis.sparsity import inspect
from ...runtime.layers import accelerate
from ..results import as_rows
from ..runs import Run
from ..tables import figure, rich_table
from ._recipe import Loaded, Recipe
from ._reviews import Reviewing, Settings

COLUMNS = (
    figure("test accuracy", "test_accuracy", "{:.4f}"),
    figure("compression", "compression", "{:,}x"),
    figure("words", "words", "{:,}"),
    figure("inputs", "inputs"),
    figure("units", "units"),
    figure("gates", "gates"),
    figure("not zero", "nonzero", "{:,}"),
)
LABELS = {
    "dense": "dense, early stopping",
    "bayes-w": "W, Bayes",
    "bayes-wn": "W+N, Bayes",
    "bayes-wgn": "W+G+N, Bayes",
    "prune-wgn": "W+G+N, pruned",
}


def run(run: Run) -> None:
    """Make the rows, show the table and write the report."""
    rows = Reviewing(run).results()
    run.console.print(rich_table("IMDb reviews", COLUMNS, {LABELS[row]: result for row, result in rows.items()}))
    run.console.print(f"Report: {report(run)}")


def loaded(run: Run) -> Loaded:
    work = Reviewing(run)
    work.results()
    return Loaded({row: work.load(row) for row in work.rows}, work.example_inputs, "bayes-wgn")


def bench(run: Run) -> None:
    """Time the dense and the W+G+N net on four reviews, the latter on sparsernn's kernels as well."""
    found = loaded(run)
    torch.set_num_threads(1)
    small = found.models[found.sparsified]
    models = {"dense": found.models["dense"], "W+G+N": small, "W+G+N, sparsernn": accelerate(small)}
    source = torch.Generator().manual_seed(0)
    x_TB = torch.randint(1, run.settings.words, (run.settings.length, 4), generator=source)
    benchmark(models, x_TB, console=run.console)


def report(run: Run) -> Path:
    """Write report.html, on the W+G+N net of Bayes, in the run's folder."""
    work = Reviewing(run)
    rows = work.results()
    path = run.folder / "report.html"
    course = rows["bayes-wgn"].measured
    shown = [
        {**row, "measured": {k: v for k, v in row["measured"].items() if not isinstance(v, (list, dict))}}
        for row in as_rows(list(rows.values()))
    ]
    inspect(work.load("bayes-wgn"), work.example_inputs).html(
        path,
        title="IMDb reviews",
        command=run.command,
        runs=shown,
        history={
            "step": course["epochs"],
            "loss": course["loss_by_epoch"],
            "kept": [1 / compression for compression in course["compression_by_epoch"]],
        },
    )
    return path


RECIPE = Recipe(
    name="lobacheva-imdb",
    summary="Sentiment of reviews by an LSTM of which Bayes leaves few words, units and gates.",
    scales={
        "smoke": Settings(
            words=300,
            length=20,
            embedding=8,
            hidden=6,
            batch=16,
            score_epochs=1,
            dense_epochs=1,
            rounds=(1.0, 1.0),
            sigma_rates=(50.0, 50.0),
            mean_rates=(50.0, 50.0),
            warm_up=2,
            reviews=120,
        ),
        "cpu": Settings(dense_epochs=1),
        "paper": Settings(
            score_epochs=0,
            dense_epochs=20,
            learning_rate=5e-4,
            rounds=(1000.0,),
            sparse_rate=5e-4,
            sigma_rates=(1.0,),
            mean_rates=(1.0,),
        ),
    },
    minutes={"smoke": "seconds", "cpu": "an hour or more, not yet run to its end", "paper": "days on a GPU"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    labels=LABELS,
)
