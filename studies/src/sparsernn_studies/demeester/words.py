"""What the recipes on word models share: dense AWD-LSTMs beside wider sparse ones with as many parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.nn.embedding import FrequencyEmbedding
from sparsernn.surgery.checkpoint import load, save
from sparsernn.timing import benchmark

from ..recipe import Loaded
from ..results import Result, as_rows, sizes
from ..runs import Run
from ..settings import settings
from ..tasks import ptb_word
from ..tasks.text import Text, bits_per_symbol
from ..word_model import Drop, WordModel, layers
from ..word_training import WordTrainer, WordTraining

# Row -> (sparse hidden layers, sparse embedding).
FORMS = {"dense": (False, False), "sparse-hidden": (True, False), "sparse-all": (True, True)}


@settings
class Settings:
    """`embedding` and `hidden`: widths of the dense net. Sparse ones are 1 / `reduce` as wide, their split layers and
    embeddings (`blocks` blocks of columns) hold as many numbers. `words`: only so many of the training text, 0 for all.

    `fine_tuning`: rows that go on from the first run with averaged weights from the start.
    """

    rows: tuple[str, ...]
    embedding: int
    hidden: int
    reduce: float
    training: WordTraining
    drop: Drop = field(default_factory=Drop)
    blocks: int = 10
    words: int = 0
    fine_tuning: bool = False

    def check(self) -> None:
        unknown = [row for row in self.rows if row not in FORMS]
        if unknown or not self.rows:
            raise ValueError(f"rows is {','.join(self.rows)!r}, expected some of {', '.join(FORMS)}.")
        if not 0 < self.reduce < 1 or min(self.embedding, self.hidden, self.blocks) < 1 or self.words < 0:
            raise ValueError("reduce lies between 0 and 1, embedding, hidden and blocks are at least 1.")


class Words:
    """The rows of one run; `watched`: whether the validation text steers and measures the training."""

    def __init__(self, run: Run, *, watched: bool) -> None:
        self.run, self.watched = run, watched
        self.settings: Settings = run.settings

    @property
    def rows(self) -> list[str]:
        tuned = [f"{row}-finetuned" for row in self.settings.rows] if self.settings.fine_tuning else []
        return [*self.settings.rows, *tuned]

    @cached_property
    def text(self) -> Text:
        """The text; a slice of it has the words of that slice alone, all others are <unk>. By falling frequency."""
        return ptb_word.by_frequency(ptb_word.load(self.run.data), self.settings.words)

    @cached_property
    def example_inputs(self) -> Tensor:
        return self.text.train[:48].view(12, 4)

    def model(self, row: str) -> WordModel:
        torch.manual_seed(self.run.seed)
        s = self.settings
        sparse_hidden, sparse_words = FORMS[row.removesuffix("-finetuned")]
        width = round(s.embedding / s.reduce) if sparse_words else s.embedding
        units = round(s.hidden / s.reduce) if sparse_hidden else s.hidden
        if sparse_words:
            counts = torch.bincount(self.text.train, minlength=len(self.text.symbols))
            embedding: nn.Embedding | FrequencyEmbedding = FrequencyEmbedding(
                counts, width, density=s.reduce, blocks=s.blocks
            )
        else:
            embedding = nn.Embedding(len(self.text.symbols), width)
        return WordModel(
            embedding, layers(width, units, reduce=s.reduce if sparse_hidden else 1.0, ends=sparse_words), s.drop
        )

    def make(self, row: str) -> Mapping[str, Any]:
        model, s = self.model(row), self.settings.training
        if row.endswith("-finetuned"):
            model.load_state_dict(self.load(row.removesuffix("-finetuned")).state_dict())
            s = replace(s, averaged=True, patience=0)
        trainer = WordTrainer(
            model, self.text.train, self.text.valid if self.watched else None, s, self.run.seed, self.run.folder / row
        )
        trainer.train(row)
        measured: dict[str, Any] = {"steps": trainer.step}
        with trainer.averaged_weights():
            model.cpu().eval()
            save(model, self.file(row))
            parts = {"train": self.text.train[: 1 << 17]}
            if self.watched:
                parts |= {"valid": self.text.valid, "test": self.text.test}
            for part, words_N in parts.items():
                measured[f"{part}_perplexity"] = 2 ** bits_per_symbol(model, words_N, streams=10, window=s.bptt)
        return {**measured, "embedding": sum(p.numel() for p in model.embedding.parameters()), **sizes(model)}

    def file(self, row: str) -> Path:
        return self.run.folder / f"{row}.safetensors"

    def load(self, row: str) -> WordModel:
        model = load(self.model(row), self.file(row)).eval()
        assert isinstance(model, WordModel)
        return model

    def results(self, paper: Mapping[str, Mapping[str, Any]]) -> dict[str, Result]:
        return {row: self.run.row(row, lambda row=row: self.make(row), paper=paper.get(row)) for row in self.rows}

    def loaded(self) -> Loaded:
        return Loaded({row: self.load(row) for row in self.rows}, self.example_inputs, self.rows[0])

    def bench(self) -> None:
        """Time all models on one batch."""
        torch.set_num_threads(1)
        benchmark(self.loaded().models, self.example_inputs, console=self.run.console)

    def report(self, title: str, rows: Mapping[str, Result]) -> Path:
        """Write report.html, on the first sparse net, in the run's folder."""
        path = self.run.folder / "report.html"
        row = next((row for row in self.rows if row != "dense"), self.rows[0])
        inspect(self.load(row), self.example_inputs).html(
            path, title=title, command=self.run.command, runs=as_rows(list(rows.values()))
        )
        return path
