"""Learning a text by heart: a dense word model beside wider sparse ones with as many parameters.

After Demeester et al. (arXiv 1808.08720, section 4.3): no regularisation, and what counts is the perplexity on the
training text itself.
"""

from __future__ import annotations

from pathlib import Path

from ..recipe import Judge, Loaded, Recipe
from ..runs import Run
from ..tables import figure, rich_table
from ..word_training import WordTraining
from .words import Settings, Words

TITLE = "Reciting Penn Treebank: perplexity on the training text"
ROWS = ("dense", "sparse-hidden", "sparse-all")
COLUMNS = (
    figure("train perplexity", "train_perplexity", "{:.2f}"),
    figure("± (seeds)", "train_perplexity_deviation", "{:.2f}"),
    figure("weights", "weights", "{:,}"),
    figure("parameters", "parameters", "{:,}"),
    figure("steps", "steps", "{:,}"),
)


def run(run: Run) -> None:
    """Make the rows, show the table and write the report."""
    rows = Words(run, watched=False).results({})
    run.console.print(rich_table(TITLE, COLUMNS, rows))
    run.console.print(f"Report: {report(run)}")


def loaded(run: Run) -> Loaded:
    work = Words(run, watched=False)
    work.results({})
    return work.loaded()


def bench(run: Run) -> None:
    Words(run, watched=False).bench()


def report(run: Run) -> Path:
    work = Words(run, watched=False)
    return work.report(TITLE, work.results({}))


def _training(epochs: int, batch: int, bptt: int) -> WordTraining:
    return WordTraining(epochs, 5.0, batch, bptt, momentum=0.9, decay=0.97)


RECIPE = Recipe(
    name="demeester-recite",
    summary="Learning a text by heart: a dense word model beside wider sparse ones of equal size.",
    scales={
        "smoke": Settings(ROWS, 8, 12, 0.5, _training(1, 4, 10), blocks=4, words=400),
        "cpu": Settings(ROWS, 40, 115, 0.5, _training(40, 20, 35), words=10_000),
        "paper": Settings(ROWS, 200, 575, 0.5, _training(150, 20, 70)),
    },
    minutes={"smoke": "seconds", "cpu": "about 3 minutes", "paper": "about a day on a GPU"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    judge=Judge("train_perplexity", more=False, rows="sparse-*"),
    labels={row: row for row in ROWS},
)
