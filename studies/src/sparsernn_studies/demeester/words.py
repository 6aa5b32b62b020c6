"""What the studies on word models share: dense AWD-LSTMs beside wider sparse ones with as many parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparsernn.nn.embedding import FrequencyEmbedding
from sparsernn.surgery.checkpoint import save

from ..baselines import bigram_bits
from ..results import sizes
from ..settings import Count, Part, Some, Whole, settings
from ..study import Row, Study
from ..tasks import ptb_word
from ..tasks.text import Text, bits_per_symbol
from ..word_model import Drop, WordModel, layers
from ..word_training import WordTrainer, WordTraining

Form = Literal["dense", "sparse-hidden", "sparse-all"]


@settings
class Settings:
    """`embedding` and `hidden`: widths of the dense net. Sparse ones are 1 / `reduce` as wide, their split layers and
    embeddings (`blocks` blocks of columns) hold as many numbers. `words`: only so many of the training text, 0 for all.

    `fine_tuning`: rows that go on from the first run with averaged weights from the start.
    """

    rows: Some[Form]
    embedding: Count
    hidden: Count
    reduce: Part
    training: WordTraining
    drop: Drop = field(default_factory=Drop)
    blocks: Count = 10
    words: Whole = 0
    fine_tuning: bool = False


@dataclass(frozen=True)
class Net(Row):
    """`form`: of the net, "bigram" for what needs none. `first`: the row that a fine-tuned one goes on from."""

    form: Form | Literal["bigram"]
    first: Net | None = None


class Words(Study[Settings, Net]):
    """`watched`: whether the validation text steers the training, and nets are measured on text they have not read,
    beside a smoothed bigram."""

    watched: ClassVar[bool]

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        found = [Net(form, form) for form in settings.rows]
        tuned = [Net(f"{row.name}-finetuned", row.form, row) for row in found] if settings.fine_tuning else []
        return [*found, *tuned, *([Net("bigram", "bigram")] if cls.watched else [])]

    @property
    def saved(self) -> list[Net]:
        return [row for row in self.rows if row.form != "bigram"]

    @property
    def shown(self) -> Net:
        return next((row for row in self.saved if row.form != "dense"), self.rows[0])

    @cached_property
    def text(self) -> Text:
        """The text; a slice of it has the words of that slice alone, all others are <unk>. By falling frequency."""
        return ptb_word.by_frequency(ptb_word.load(self.run.data), self.settings.words)

    @cached_property
    def example_inputs(self) -> Tensor:
        return self.text.train[:48].view(12, 4)

    def model(self, row: Net) -> WordModel:
        torch.manual_seed(self.run.seed)
        s, words = self.settings, row.form == "sparse-all"
        share = 1.0 if row.form == "dense" else s.reduce
        width = round(s.embedding / s.reduce) if words else s.embedding
        embedding: nn.Embedding | FrequencyEmbedding
        if words:
            counts = torch.bincount(self.text.train, minlength=len(self.text.symbols))
            embedding = FrequencyEmbedding(counts, width, density=s.reduce, blocks=s.blocks)
        else:
            embedding = nn.Embedding(len(self.text.symbols), width)
        return WordModel(embedding, layers(width, round(s.hidden / share), reduce=share, ends=words), s.drop)

    def make(self, row: Net) -> Mapping[str, Any]:
        if row.form == "bigram":
            bits = bigram_bits(self.text.train, self.text.test, len(self.text.symbols))
            return {"test_perplexity": 2**bits}
        model, s = self.model(row), self.settings.training
        if row.first:
            model.load_state_dict(self.load(row.first).state_dict())
            s = replace(s, averaged=True, patience=0)
        valid = self.text.valid if self.watched else None
        trainer = WordTrainer(model, self.text.train, valid, s, self.run.seed, self.run.folder / row.name)
        trainer.train(row.name)
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

    def forms(self) -> Mapping[str, nn.Module]:
        return {row.name: self.load(row) for row in self.saved}
