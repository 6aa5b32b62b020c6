"""Intrinsic sparse structures in BiDAF: tables 3 and 4 of Wen et al. (arXiv 1709.05027), questions of SQuAD 1.1.

The units of the six LSTMs behind the attention are learnt: both layers of the modelling stack and the output layer,
each forwards and backwards. Rows: the dense net; ISS from the dense net (table 3) and from scratch (table 4) for each
strength of the penalty; units to a target, both ways; and a dense net of the sizes that the target left, trained
directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsernn.analysis.sparsity import inspect

from ..data import DataError
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..tables import Column, figure, rich_table
from ..tasks.passages import Passage
from ..tasks.reading import answers
from ..tasks.squad import Question
from .bidaf_rows import Bidaf
from .bidaf_settings import SCALES

TITLE = "Questions on passages, BiDAF"
LARGEST = 1 << 20  # bytes of a text that questions are asked about
# EM, F1, units of the six LSTMs, millions of weights, milliseconds of one question. The strengths of the penalty behind
# the rows are not published, so none of them belongs to a row of ours but the dense one.
TABLE_3 = (
    (67.98, 77.85, (100, 100, 100, 100, 100, 100), 2.69, 6.20),
    (67.21, 76.71, (100, 95, 78, 82, 71, 52), 2.08, 5.79),
    (66.59, 76.40, (84, 90, 38, 46, 34, 21), 1.48, 4.52),
    (65.29, 75.47, (54, 47, 22, 30, 18, 12), 1.03, 3.54),
    (64.81, 75.22, (52, 50, 19, 26, 15, 12), 1.01, 3.51),
)
TABLE_4 = (
    (67.36, 77.16, (87, 81, 87, 92, 74, 96), 2.29, 5.83),
    (66.32, 76.22, (51, 33, 42, 58, 37, 26), 1.17, 4.46),
    (65.36, 75.78, (20, 33, 40, 38, 31, 16), 0.95, 3.59),
    (64.60, 74.99, (23, 22, 35, 35, 25, 14), 0.88, 2.74),
)


def published(row: tuple[float, float, tuple[int, ...], float, float]) -> dict[str, Any]:
    """A row of the paper's tables by the names of our figures."""
    em, f1, units, millions, milliseconds = row
    return {"em": em, "f1": f1, "units": list(units), "nonzero": round(millions * 1e6), "ms_paper": milliseconds}


PAPER: Mapping[str, Mapping[str, Any]] = {"dense": published(TABLE_3[0])}
COLUMNS = (
    figure("EM", "em", "{:.2f}"),
    figure("F1", "f1", "{:.2f}"),
    Column("units of the six", lambda m: " ".join(map(str, m["units"]))),
    Column("weights", lambda m: f"{m['nonzero'] / 1e6:.3f}M"),
    Column("same", lambda m: f"{m['same_answers']}/{m['questions']}"),
    figure("torch, ms", "ms_compact", "{:.2f}"),
    figure("", "speedup_compact", "{:.1f}x"),
    figure("ours, ms", "ms_fast", "{:.2f}"),
    figure("", "speedup_fast", "{:.1f}x"),
    figure("twin", "speedup_twin", "{:.1f}x"),
    Column("LSTMs", lambda m: f"{m['share_compact']:.0%}, {m['share_fast']:.0%}"),
)


def _label(row: str) -> str:
    kind, _, rest = row.partition("-")
    names = {
        "tuned": f"ISS, from the dense net, {rest}",
        "iss": f"ISS, from scratch, {rest}",
        "target": "target, from the dense net" if rest else "target, from scratch",
        "direct": "the sizes of target, directly",
    }
    return names.get(kind, row)


LABELS = {row: _label(row) for settings in SCALES.values() for row in settings.rows}


def _show(run: Run, rows: Mapping[str, Result]) -> None:
    caption = (
        "Exact match and F1 in percent; weights without the word vectors; same: answers before and after what could go "
        "was taken out. One question, one thread; speed against the dense net in torch, twin: ours against ours on the "
        "dense net; LSTMs: their share of the time, in torch and in ours."
    )
    run.console.print(rich_table(TITLE, COLUMNS, {_label(row): result for row, result in rows.items()}, caption))
    run.console.print(_verdict(rows))


def _verdict(rows: Mapping[str, Result]) -> str:
    measured = {row: result.measured for row, result in rows.items()}
    dense = measured["dense"]
    lines = [
        f"{_label(row)}: {m['nonzero'] / dense['nonzero']:.0%} of the weights, F1 {dense['f1']:.2f} → {m['f1']:.2f}."
        for row, m in measured.items()
        if row not in ("dense", "direct")
    ]
    if "direct" in measured:
        ours, theirs = measured["target"]["f1"], measured["direct"]["f1"]
        better = "better" if ours > theirs else "not better"
        lines.append(f"target is {better} than its sizes trained directly: F1 {ours:.2f} against {theirs:.2f}.")
    return "\n".join(lines)


def run(run: Run) -> None:
    """Make the rows, time them, show the table and write the report."""
    bench(run)
    run.console.print(f"Report: {report(run)}")


def bench(run: Run) -> None:
    """Time the nets anew and show the table."""
    work = Bidaf(run)
    _show(run, work.timed(work.results(PAPER)))


def _inspected(run: Run) -> str:
    """The row whose weights are shown: the first one whose units go, else the dense one."""
    return next((row for row in run.settings.rows if row not in ("dense", "direct")), "dense")


def loaded(run: Run) -> Loaded:
    """The nets of a finished run before anything is taken out."""
    work = Bidaf(run)
    return Loaded({row: work.load(row) for row in run.settings.rows}, work.example_inputs, _inspected(run))


def report(run: Run) -> Path:
    """Write report.html in the run's folder: the table, the first sparse row in full, the other ones' matrices."""
    work = Bidaf(run)
    rows = work.results(PAPER)
    figures = [
        (
            inspect(work.load(row), work.example_inputs).plot_weights(),
            f"{_label(row)}: weights that are not zero, dead units as white strips.",
        )
        for row in rows
        if row not in ("dense", "direct", _inspected(run))
    ]
    path = run.folder / "report.html"
    inspect(work.load(_inspected(run)), work.example_inputs).html(
        path,
        title=TITLE,
        verdict=_verdict(rows),
        command=run.command,
        runs=[{**row, "row": _label(row["row"])} for row in as_rows(list(rows.values()))],
        figures=figures,
    )
    return path


def answer(run: Run, context: Path, question: str) -> None:
    """Show what the run's smallest net answers to `question` about the text in the file `context`, how sure it is, and
    the sentence.

    Raises DataError for a text or a question without words, and for a file that is no text.
    """
    passage, asked = Passage.of(_text(context)), Passage.of(question)
    if not len(passage):
        raise DataError(f"{context} has no words; expected a text that the question can be asked about.")
    if not len(asked):
        raise DataError(f"The question {question!r} has no words; ask with --question 'Who wrote it?'.")
    row, model = (work := Bidaf(run)).smallest()
    [(first, last, share)] = answers(model, work.vocabulary, [Question(passage, asked.words, (0, 0), ())])
    show = run.console.print
    show(f"{_one_line(passage.between(first, last))} ({share:.0%})", highlight=False, markup=False, soft_wrap=True)
    show(_one_line(passage.sentence(first)), highlight=False, markup=False, soft_wrap=True)
    kept = sum(p.numel() for name, p in model.named_parameters() if name != "words.weight")
    show(f"Read by {_label(row)!r}, {kept:,} parameters beside the word vectors.", highlight=False, soft_wrap=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(file: Path) -> str:
    size = file.stat().st_size
    if size > LARGEST:
        raise DataError(f"{file} has {size} bytes, expected at most {LARGEST}.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 ({error.reason} at byte {error.start}).") from None


RECIPE = Recipe(
    name="wen-bidaf",
    summary="Intrinsic sparse structures in BiDAF, which answers questions about a text: ISS by strength, target.",
    scales=SCALES,
    minutes={"smoke": "seconds", "cpu": "about 12 minutes, estimated", "paper": "hours a row on a GPU, not yet run"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    answer=answer,
    columns=COLUMNS,
    judge=Judge("f1", more=True, rows="target"),
    labels=LABELS,
)
