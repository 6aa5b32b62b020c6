"""Part-of-speech tagging with short vectors for rare words, beside narrow dense vectors and the reversed order.

After Demeester et al. (arXiv 1808.08720, section 4.2): a bidirectional LSTM of 10 + 10 units reads word vectors of 20
columns. At each density, *sparse* gives the frequent words all columns and the rare ones few, *reversed* the other
way round, and *narrow* gives all words the same few columns: equal numbers of embedding weights in all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.nn.embedding import FrequencyEmbedding
from sparsernn.surgery.checkpoint import load, save
from sparsernn.timing import benchmark

from .. import checkpoint
from ..models import SequenceTagger
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows, sizes
from ..runs import Run
from ..tables import figure, rich_table
from ..tasks import pos
from ..train import Training, train

KINDS = ("sparse", "narrow", "reversed")


@dataclass(frozen=True)
class Settings:
    """`densities`: shares of the dense embedding's numbers; `blocks` of its columns, 1 / blocks the least density.

    `sentences`: only so many training sentences, 0 for all.
    """

    corpus: pos.CorpusName = "conll2000"
    densities: tuple[float, ...] = (0.1, 0.25, 0.5)
    columns: int = 20
    blocks: int = 20
    hidden: int = 10
    epochs: int = 5
    batch: int = 64
    learning_rate: float = 0.02
    warm_up: int = 20
    dropout: float = 0.2
    weight_drop: float = 0.2
    sentences: int = 0

    def __post_init__(self) -> None:
        wrong = [d for d in self.densities if not 1 / self.blocks <= d < 1 or (d * self.columns) % 1 > 1e-9]
        if wrong or not self.densities:
            raise ValueError(
                f"densities is {self.densities}, expected shares from {1 / self.blocks:g} to below 1 that make a whole "
                f"number of {self.columns} columns, so that a narrow embedding has the same size."
            )
        for name in ("columns", "blocks", "hidden", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")
        self.training(1)

    def training(self, steps: int) -> Training:
        return Training(steps, self.learning_rate, self.warm_up, checkpoint_every=max(500, steps))


class _Tagging:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings

    @property
    def rows(self) -> list[str]:
        return ["dense", *(f"{kind}-{density:g}" for density in self.settings.densities for kind in KINDS)]

    @cached_property
    def corpus(self) -> pos.Corpus:
        return pos.load(self.run.data, self.settings.corpus, self.settings.sentences or None)

    @cached_property
    def example_inputs(self) -> tuple[Tensor, Tensor]:
        x_TB, lengths_B, _ = pos.padded(self.corpus.test, range(8), self.corpus.padding)
        return x_TB, lengths_B

    def model(self, row: str) -> SequenceTagger:
        torch.manual_seed(self.run.seed)
        s, words = self.settings, self.corpus
        kind, _, share = row.partition("-")
        width = round(float(share) * s.columns) if kind == "narrow" else s.columns
        if kind in ("dense", "narrow"):
            embedding: nn.Module = nn.Embedding(len(words.words), width, padding_idx=words.padding)
        else:
            embedding = FrequencyEmbedding(
                words.counts,
                width,
                density=float(share),
                blocks=s.blocks,
                reverse=kind == "reversed",
                padding_idx=words.padding,
            )
        return SequenceTagger(embedding, width, s.hidden, len(words.tags), s.dropout, s.weight_drop)

    def make(self, row: str) -> Mapping[str, Any]:
        model = self.model(row)
        objective = pos.Tagging(self.corpus, self.settings.batch, self.run.seed)
        history = train(
            model,
            objective,
            self.settings.training(self.settings.epochs * objective.steps_an_epoch),
            name=row,
            seed=self.run.seed,
            folder=self.run.folder / row,
        )
        save(model.eval(), self.file(row))
        test = pos.accuracy(model, self.corpus, self.corpus.test)
        return {
            "test_accuracy": test["all"],
            "test_accuracy_unknown": test["unknown"],
            "valid_accuracy": pos.accuracy(model, self.corpus, self.corpus.valid)["all"],
            "embedding": sum(p.numel() for p in model.embedding.parameters()),
            **sizes(model),
            "train_seconds": round(history.seconds, 1),
        }

    def file(self, row: str) -> Path:
        return self.run.folder / f"{row}.safetensors"

    def load(self, row: str) -> nn.Module:
        return load(self.model(row), self.file(row)).eval()

    def results(self) -> dict[str, Result]:
        return {row: self.run.row(row, lambda row=row: self.make(row)) for row in self.rows}


COLUMNS = (
    figure("test accuracy", "test_accuracy", "{:.4f}"),
    figure("± (seeds)", "test_accuracy_deviation", "{:.4f}"),
    figure("unknown words", "test_accuracy_unknown", "{:.4f}"),
    figure("embedding", "embedding", "{:,}"),
    figure("weights", "weights", "{:,}"),
)


def run(run: Run) -> None:
    """Make the rows, show the table and write the report."""
    rows = _Tagging(run).results()
    run.console.print(rich_table("Part-of-speech tagging: accuracy by embedding", COLUMNS, rows))
    run.console.print(f"Report: {report(run)}")


def loaded(run: Run) -> Loaded:
    work = _Tagging(run)
    work.results()
    return Loaded({row: work.load(row) for row in work.rows}, work.example_inputs, work.rows[1])


def bench(run: Run) -> None:
    """Time the dense and the first sparse model on one batch."""
    found = loaded(run)
    torch.set_num_threads(1)
    pair = {row: found.models[row] for row in ("dense", found.sparsified)}
    benchmark(pair, found.example_inputs, console=run.console)


def report(run: Run) -> Path:
    """Write report.html, on the first sparse net, in the run's folder."""
    work = _Tagging(run)
    rows = work.results()
    row = work.rows[1]
    course = checkpoint.read(run.folder / row / "checkpoint.safetensors")["history"]
    path = run.folder / "report.html"
    inspect(work.load(row), work.example_inputs).html(
        path,
        title="Part-of-speech tagging",
        command=run.command,
        runs=as_rows(list(rows.values())),
        history={"step": course["step"], "loss": course["loss"], "kept": course["density"]},
    )
    return path


RECIPE = Recipe(
    name="demeester-pos",
    summary="Tagging with short vectors for rare words, against narrow dense vectors and the reversed order.",
    scales={
        "smoke": Settings(densities=(0.25,), sentences=60, epochs=1, batch=16, warm_up=2),
        "cpu": Settings(),
        "paper": Settings(epochs=50, batch=20, learning_rate=1e-3),
    },
    minutes={"smoke": "seconds", "cpu": "about 3 minutes a seed", "paper": "about an hour"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    judge=Judge("test_accuracy", more=True, rows="sparse-*"),
    labels={"dense": "dense"},
)
