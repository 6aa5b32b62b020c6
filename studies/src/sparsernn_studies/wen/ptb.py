"""Intrinsic sparse structures on Penn Treebank: table 1 of Wen et al. (arXiv 1709.05027), on Zaremba's LSTMs.

Rows: the dense net; the same with the sparse rows' weaker dropout and no penalty, which over-fits; ISS (group lasso on
units, subgradient and threshold) from scratch and from the dense net; units to a target; L1 on single weights (appendix
A); a dense net of the sizes that ISS found, trained directly; and what ISS left, with most of its 16x1 blocks taken out
as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsernn.analysis.sparsity import inspect

from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..tables import Column, figure, rich_table
from .ptb_rows import Wen
from .ptb_settings import ROWS, Settings

# Validation and test perplexity of Zaremba et al. (table 1), and Wen's table 1 with all parameters and milliseconds.
PAPER: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "small": {"dense": {"valid_perplexity": 120.7, "test_perplexity": 114.5}},
    "medium": {"dense": {"valid_perplexity": 86.2, "test_perplexity": 82.7}},
    "large": {
        "dense": {"valid_perplexity": 82.57, "test_perplexity": 78.57, "units": [1500, 1500], "parameters": 66.0e6},
        "iss": {
            "valid_perplexity": 82.59,
            "test_perplexity": 78.65,
            "units": [373, 315],
            "parameters": 21.8e6,
            "speedup": 10.59,
        },
        "direct": {
            "valid_perplexity": 90.31,
            "test_perplexity": 85.66,
            "units": [373, 315],
            "parameters": 21.8e6,
            "speedup": 10.59,
        },
    },
}

COLUMNS = (
    figure("valid", "valid_perplexity", "{:.2f}"),
    figure("test", "test_perplexity", "{:.2f}"),
    figure("in int8", "test_perplexity_int8", "{:.2f}"),
    figure("units", "units"),
    Column("weights", lambda m: f"{m['nonzero'] / 1e6:.2f}M"),
    Column("mult-adds", lambda m: f"{m['mult_adds'] / 1e6:.2f}M"),
    figure("dense, ms", "ms_dense", "{:.2f}"),
    figure("torch, ms", "ms_compact", "{:.2f}"),
    figure("", "speedup_compact", "{:.1f}x"),
    figure("ours, ms", "ms_fast", "{:.2f}"),
    figure("", "speedup_fast", "{:.1f}x"),
    figure("int8, ms", "ms_int8", "{:.2f}"),
    figure("", "speedup_int8", "{:.1f}x"),
)


def _show(run: Run, rows: Mapping[str, Result]) -> None:
    shown = {ROWS[row]: result for row, result in rows.items()}
    caption = "Perplexities; one thread, 10 texts of 30 words with the softmax; speed against the dense net in torch."
    run.console.print(rich_table(f"Penn Treebank, {run.settings.size} LSTM", COLUMNS, shown, caption))
    if said := verdict(rows):
        run.console.print(said)


def verdict(rows: Mapping[str, Result]) -> str:
    """What the rows say: what ISS took and what it cost, and whether its sizes alone would have done."""
    if "iss" not in rows:
        return ""
    measured = {row: result.measured for row, result in rows.items()}
    sparse = measured["iss"]
    lines = []
    if "dense" in measured:
        dense = measured["dense"]
        lines.append(
            f"Units {dense['units']} → {sparse['units']}, {sparse['mult_adds'] / dense['mult_adds']:.0%} of the "
            f"multiply-adds, {sparse['speedup_fast']:.1f}x as fast ({sparse['speedup_int8']:.1f}x in int8); test "
            f"perplexity {dense['test_perplexity']:.2f} → {sparse['test_perplexity']:.2f}."
        )
    if "direct" in measured:
        direct = measured["direct"]
        sizes = "the same sizes" if direct["units"] == sparse["units"] else f"{direct['units']} units"
        lines.append(
            f"ISS {sparse['test_perplexity']:.2f}, {sizes} trained directly {direct['test_perplexity']:.2f}. Which is "
            "better is not answered: one seed, and where the nets have neither dropout nor decay, ISS's penalty is the "
            "only regulariser."
        )
    blocks = {row: m for row, m in measured.items() if row.startswith("blocks")}
    if blocks and "dense" in measured:
        wanted = measured["dense"]["test_perplexity"]
        fit = [row for row, m in blocks.items() if m["test_perplexity_int8"] <= wanted]
        best = max(fit, key=lambda row: blocks[row]["speedup_int8"], default=None)
        if best is None:
            lines.append(f"No row of blocks is in int8 as good as the dense net ({wanted:.2f}).")
        else:
            m = blocks[best]
            lines.append(
                f"No worse than the dense net ({wanted:.2f}) and fastest, at one seed: {ROWS[best]}, in int8 "
                f"{m['test_perplexity_int8']:.2f} and {m['speedup_int8']:.1f}x as fast."
            )
    return "\n".join(lines)


def run(run: Run) -> None:
    """Make the rows, time them, show the table and write the report."""
    bench(run)
    run.console.print(f"Report: {report(run)}")


def bench(run: Run) -> None:
    """Time the nets anew and show the table."""
    work = Wen(run)
    _show(run, work.timed(work.results(PAPER.get(run.settings.size, {}))))


def _inspected(run: Run) -> str:
    """The row whose weights are shown: the first one whose units go, else the first."""
    return next((row for row in run.settings.rows if row in ("iss", "iss-tuned", "target")), run.settings.rows[0])


def loaded(run: Run) -> Loaded:
    """The nets of a finished run before anything is taken out."""
    work = Wen(run)
    return Loaded({row: work.load(row) for row in run.settings.rows}, work.example_inputs, _inspected(run))


def report(run: Run) -> Path:
    """Write report.html in the run's folder: the table, and the weight matrices of each row whose units go."""
    work = Wen(run)
    rows = work.results(PAPER.get(run.settings.size, {}))
    if any("ms_fast" not in result.measured for result in rows.values()):
        rows = work.timed(rows)
    figures = [
        (
            inspect(work.load(row), work.example_inputs).plot_weights(),
            f"{ROWS[row]}: weights that are not zero, dead units as white strips (figures 4 and 5 of the paper).",
        )
        for row in rows
        if row in ("iss", "iss-tuned", "target", "l1") and row != _inspected(run)
    ]
    path = run.folder / "report.html"
    inspect(work.load(_inspected(run)), work.example_inputs).html(
        path,
        title=f"Penn Treebank, {run.settings.size} LSTM",
        verdict=verdict(rows) or None,
        command=run.command,
        runs=[
            {**row, "measured": {k: v for k, v in row["measured"].items() if not k.endswith("_course")}}
            for row in as_rows(list(rows.values()))
        ],
        figures=figures,
    )
    return path


RECIPE = Recipe(
    name="wen-ptb",
    summary="Intrinsic sparse structures in Zaremba's LSTMs on Penn Treebank: ISS, target, L1, blocks, direct design.",
    scales={
        "smoke": Settings(size="tiny", rows=tuple(ROWS), words=1500, strength=0.2, target=0.4, bench_rounds=1),
        "cpu": Settings(precision="auto"),
        "paper": Settings(size="large", rows=tuple(ROWS), schedule="code", device="any", checkpoint_every=1000),
    },
    minutes={"smoke": "seconds", "cpu": "45 to 60 minutes a row, estimated", "paper": "hours a row on a GPU"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    judge=Judge("valid_perplexity", more=False, rows="iss"),
    labels=ROWS,
)
