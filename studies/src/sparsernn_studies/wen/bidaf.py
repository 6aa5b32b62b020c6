"""Intrinsic sparse structures in BiDAF: tables 3 and 4 of Wen et al. (arXiv 1709.05027), questions of SQuAD 1.1.

The units of the six LSTMs behind the attention are learnt: both layers of the modelling stack and the output layer,
each forwards and backwards. Rows: the dense net; ISS from the dense net (table 3) and from scratch (table 4) for each
strength of the penalty; units to a target, both ways; a dense net of the sizes that the target left, trained
directly; and the commonest span of the training part as the answer to every question.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.surgery.checkpoint import save
from sparsernn.surgery.compact import compact

from ..baselines import commonest_span
from ..claims import Measured
from ..data import DataError
from ..results import Result, sizes
from ..runs import RunError
from ..scores import as_recorded
from ..study import Judge
from ..tables import Column, figure
from ..tasks.passages import Passage
from ..tasks.reading import Answering, answers, scores
from ..tasks.squad import Question
from ..thresholds import largest_harmless
from .bidaf_data import Questions
from .bidaf_model import SIX, BiDAF, Sizes, units, weights
from .bidaf_settings import SCALES, AnsweringSettings, Net
from .bidaf_times import timed
from .claims import OF_QUESTIONS

BASELINE = Net("baseline", "the commonest span", "baseline")
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


class Bidaf(Questions):
    name = "wen-bidaf"
    summary = "Intrinsic sparse structures in BiDAF, which answers questions about a text: ISS by strength, target."
    title = "Questions on passages, BiDAF"
    caption = (
        "Exact match and F1 in percent; weights without the word vectors; same: answers before and after what could go "
        "was taken out. One question, one thread; speed against the dense net in torch, twin: ours against ours on the "
        "dense net; LSTMs: their share of the time, in torch and in ours."
    )
    scales: ClassVar = SCALES
    minutes: ClassVar = {
        "smoke": "seconds",
        "cpu": "about 20 minutes",
        "paper": "hours a row on a GPU, not yet run",
    }
    columns = (
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
    labels: ClassVar = {row.name: row.label for settings in SCALES.values() for row in (*settings.nets, BASELINE)}
    papers: ClassVar = {"dense": published(TABLE_3[0])}
    judge = Judge("f1", more=True, rows="target")
    claims = OF_QUESTIONS
    timing = "ms_fast"

    @classmethod
    def rows_of(cls, settings: AnsweringSettings) -> tuple[Net, ...]:
        return *settings.nets, BASELINE

    @property
    def saved(self) -> list[Net]:
        return [row for row in self.rows if row != BASELINE]

    @property
    def timed_rows(self) -> list[Net]:
        return self.saved

    @property
    def shown(self) -> Net:
        """The first row whose units go, else the dense one."""
        return next((row for row in self.rows if row.kind in ("iss", "target")), self.rows[0])

    def model(self, row: Net) -> BiDAF:
        """The untrained net of `row`, its word vectors as well."""
        s, v = self.settings, self.vocabulary
        torch.manual_seed(self.run.seed)
        widths = tuple(units(self.load(self.named("target"), "-compact"))) if row.kind == "direct" else ()
        size = Sizes(len(v.words) + 2, len(v.letters) + 2, s.vector, s.letter, s.filters, hidden=s.hidden)
        return BiDAF(replace(size, widths=widths), s.dropout if row.kind == "dense" else s.sparse_dropout)

    def start(self, row: Net) -> BiDAF:
        model = self.model(row)
        if row.tuned:
            model.load_state_dict(self.load(self.named("dense")).state_dict())
        if self.vectors is not None:
            known = self.vectors
            with torch.no_grad():
                for n, word in enumerate(self.vocabulary.words, start=2):
                    model.words.weight[n] = known[word]
            model.words.weight.requires_grad_(False)
        return model

    def sparsifier(self, row: Net) -> Callable[[nn.Module], Sparsifier] | None:
        s, x = self.settings, self.example_inputs
        if row.kind == "iss":
            return lambda model: GroupLasso(
                model, x, strength=row.strength, update="subgradient", threshold=self.threshold, include=SIX
            )
        if row.kind == "target":
            steps = s.training(row).steps
            return lambda model: Shrink(model, x, to=s.target, steps=steps, include=SIX, score=as_recorded())
        return None

    def make(self, row: Net) -> Mapping[str, Any]:
        """Train `row` (or go on with it), take out what can go, save both nets and measure."""
        s, valid = self.settings, self.corpus.valid
        if row == BASELINE:
            return scores(valid, commonest_span(self.corpus.train, valid))
        model, training = self.start(row), self.settings.training(row)
        with warnings.catch_warnings():  # the published method is the subgradient under Adam
            warnings.filterwarnings("ignore", message=".*divides the penalty's gradient")
            learnt = Answering(self.corpus.train, self.vocabulary, s.batch, self.run.seed)
            history = self.train(row.name, model, learnt, training, self.sparsifier(row))
        device = model.end.weight.device
        before = answers(model, self.vocabulary, valid)
        save(model.cpu(), self.file(row))
        with warnings.catch_warnings():  # dense nets leave no unit without readers
            warnings.simplefilter("ignore")
            small = compact(model, self.example_inputs)
        save(small, self.file(row, "-compact"))
        after = answers(small.to(device), self.vocabulary, valid)
        chosen = row.kind == "dense" and s.threshold == 0
        further = {"harmless_threshold": self.harmless_threshold(small)} if chosen else {}
        return {
            **further,
            **scores(valid, after),
            "questions": len(valid),
            "same_answers": sum(a[:2] == b[:2] for a, b in zip(before, after)),
            "units": units(small),
            **weights(small),
            "train_questions": len(self.corpus.train),
            "steps": training.steps,
            "train_seconds": round(history.seconds, 1),
        }

    def harmless_threshold(self, dense: nn.Module) -> float:
        """The largest threshold that costs at most a tenth of a point of F1."""

        def quality(model: nn.Module) -> float:
            return scores(self.corpus.valid, answers(model, self.vocabulary, self.corpus.valid))["f1"]

        least = quality(dense) - 0.1
        device = next(dense.parameters()).device
        inputs = [tuple(each.to(device) for each in example) for example in self.example_inputs]
        return largest_harmless(dense, inputs, lambda model: quality(model) >= least, SIX)

    @property
    def threshold(self) -> float:
        """That of ISS: the one that is set, else the one that is harmless to the dense net."""
        return self.settings.threshold or self.result(self.named("dense")).measured["harmless_threshold"]

    def smallest(self) -> tuple[Net, BiDAF]:
        """The row whose compact net has the fewest parameters, and that net."""
        done = [row for row in self.rows if self.file(row, "-compact").is_file()]
        if not done:
            raise RunError(f"{self.run.folder} has no net yet, so the run is not done: run the recipe again.")
        nets = [(row, self.load(row, "-compact")) for row in done]
        return min(nets, key=lambda pair: sizes(pair[1])["parameters"])

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of one question added: one thread, side by side with the dense net."""
        torch.set_num_threads(1)
        dense, inputs, rounds = self.load(self.rows[0]), self.timing_inputs, self.settings.bench_rounds
        found = dict(rows)
        for row in self.timed_rows:
            small = self.load(row, "-compact")
            figures = timed(dense, small, inputs, rounds=rounds, clock=time.thread_time)
            found[row.name] = self.run.add(rows[row.name], {**figures, "timed_words": inputs[2].shape[1]})
        return found

    def verdict(self, measured: Measured) -> str:
        dense = measured["dense"]
        lines = [
            f"{self.label(row)}: {m['nonzero'] / dense['nonzero']:.0%} of the weights, F1 {dense['f1']:.2f} → "
            f"{m['f1']:.2f}."
            for row, m in measured.items()
            if row not in ("dense", "direct", BASELINE.name)
        ]
        if "direct" in measured:
            ours, theirs = measured["target"]["f1"], measured["direct"]["f1"]
            better = "better" if ours > theirs else "not better"
            lines.append(f"target is {better} than its sizes trained directly: F1 {ours:.2f} against {theirs:.2f}.")
        return "\n".join(lines)

    def sections(self, rows: Mapping[str, Result], found: Any) -> Mapping[str, Any]:
        drawn = [row for row in self.rows if row.kind in ("iss", "target") and row != self.shown]
        return {
            "figures": [
                (
                    inspect(self.load(row), self.example_inputs).plot_weights(),
                    f"{row.label}: weights that are not zero, dead units as white strips.",
                )
                for row in drawn
            ]
        }

    def answer(self, context: Path, question: str) -> None:
        """Show what the run's smallest net answers to `question` about the text in the file `context`, how sure it is,
        and the sentence.

        Raises DataError for a text or a question without words, and for a file that is no text.
        """
        passage, asked = Passage.of(_text(context)), Passage.of(question)
        if not len(passage):
            raise DataError(f"{context} has no words; expected a text that the question can be asked about.")
        if not len(asked):
            raise DataError(f"The question {question!r} has no words; ask with --question 'Who wrote it?'.")
        row, model = self.smallest()
        [(first, last, share)] = answers(model, self.vocabulary, [Question(passage, asked.words, (0, 0), ())])
        show = self.run.console.print
        show(f"{_one_line(passage.between(first, last))} ({share:.0%})", highlight=False, markup=False, soft_wrap=True)
        show(_one_line(passage.sentence(first)), highlight=False, markup=False, soft_wrap=True)
        kept = sum(p.numel() for name, p in model.named_parameters() if name != "words.weight")
        show(f"Read by {row.label!r}, {kept:,} parameters beside the word vectors.", highlight=False, soft_wrap=True)


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
