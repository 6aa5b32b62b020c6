"""Intrinsic sparse structures in recurrent highway networks: table 2 of Wen et al. (arXiv 1709.05027), Penn Treebank.

A unit is one of the embedding, of all depths, of the state and of the output layer. Rows: the dense net; ISS for each
strength of the penalty; units to a target; and a dense net as wide as the one that reached it, trained directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsernn.analysis.sparsity import inspect

from ..recipe import Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..tables import rich_table
from .ptb import COLUMNS
from .rhn_rows import Highway
from .rhn_settings import HighwaySettings, iss_row

TITLE = "Penn Treebank, recurrent highway network"
# Strength: validation and test perplexity, units, parameters in millions (table 2; strength 0 is the dense net).
TABLE_2 = {
    0.0: (67.9, 65.4, 830, 23.5),
    0.004: (67.5, 65.0, 726, 18.9),
    0.005: (68.1, 65.4, 517, 11.1),
    0.006: (70.3, 67.7, 403, 7.6),
    0.007: (74.5, 71.2, 328, 5.7),
}
PAPER: Mapping[str, Mapping[str, Any]] = {
    iss_row(strength) if strength else "dense": {
        "valid_perplexity": valid,
        "test_perplexity": test,
        "units": [units],
        "parameters": round(millions * 1e6),
    }
    for strength, (valid, test, units, millions) in TABLE_2.items()
}
SCALES = {
    "smoke": HighwaySettings(
        12, 2, (0.3, 0.6), target=0.5, epochs=2, dropout=0.1, sparse_dropout=0.1, bptt=10, words=1500, bench_rounds=1
    ),
    # So short a training of so small a net is far from over-fitting, and takes a stronger penalty to reach zero.
    "cpu": HighwaySettings(
        64,
        4,
        (0.02, 0.04),
        epochs=3,
        learning_rate=0.4,
        dropout=0.0,
        sparse_dropout=0.0,
        keep_best=False,
        words=200_000,
        measured_words=20_000,
        precision="auto",
    ),
    "paper": HighwaySettings(device="any", checkpoint_every=1000),
}


def _label(row: str) -> str:
    kind, _, strength = row.partition("-")
    names = {"iss": f"ISS, strength {strength}", "direct": "direct design: the size of target"}
    return names.get(kind, row)


_STRENGTHS = sorted({strength for settings in SCALES.values() for strength in settings.strengths})
LABELS = {row: _label(row) for row in ("dense", *map(iss_row, _STRENGTHS), "target", "direct")}


def _show(run: Run, rows: Mapping[str, Result]) -> None:
    caption = "Perplexities; one thread, 10 texts of 30 words with the softmax; speed against the dense net in torch."
    run.console.print(rich_table(TITLE, COLUMNS, {_label(row): result for row, result in rows.items()}, caption))
    run.console.print(_verdict(rows))


def _verdict(rows: Mapping[str, Result]) -> str:
    measured = {row: result.measured for row, result in rows.items()}
    dense = measured["dense"]
    lines = [
        f"{_label(row)}: units {dense['units'][0]} → {m['units'][0]}, test perplexity {dense['test_perplexity']:.2f} → "
        f"{m['test_perplexity']:.2f}."
        for row, m in measured.items()
        if row not in ("dense", "direct")
    ]
    if "direct" in measured:
        ours, theirs = measured["target"]["test_perplexity"], measured["direct"]["test_perplexity"]
        better = "better" if ours < theirs else "not better"
        lines.append(f"target is {better} than the same size trained directly: {ours:.2f} against {theirs:.2f}.")
    return "\n".join(lines)


def run(run: Run) -> None:
    """Make the rows, time them, show the table and write the report."""
    bench(run)
    run.console.print(f"Report: {report(run)}")


def bench(run: Run) -> None:
    """Time the nets anew and show the table."""
    work = Highway(run)
    _show(run, work.timed(work.results(PAPER)))


def loaded(run: Run) -> Loaded:
    """The nets of a finished run before anything is taken out."""
    work = Highway(run)
    return Loaded({row: work.load(row) for row in run.settings.rows}, work.example_inputs, run.settings.rows[1])


def report(run: Run) -> Path:
    """Write report.html on the first sparse net in the run's folder."""
    work = Highway(run)
    rows = work.results(PAPER)
    path = run.folder / "report.html"
    inspect(work.load(run.settings.rows[1]), work.example_inputs).html(
        path,
        title=TITLE,
        verdict=_verdict(rows),
        command=run.command,
        runs=[
            {**row, "measured": {k: v for k, v in row["measured"].items() if not k.endswith("_course")}}
            for row in as_rows(list(rows.values()))
        ],
    )
    return path


RECIPE = Recipe(
    name="wen-rhn",
    summary="Intrinsic sparse structures in a recurrent highway network on Penn Treebank: ISS by strength, target.",
    scales=SCALES,
    minutes={"smoke": "seconds", "cpu": "some minutes a row, estimated", "paper": "a day a row on a GPU"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    labels=LABELS,
)
