"""Part-of-speech tagging with short vectors for rare words, beside narrow dense vectors and the reversed order.

After Demeester et al. (arXiv 1808.08720, section 4.2): a bidirectional LSTM of 10 + 10 units reads word vectors of 20
columns. At each density, *sparse* gives the frequent words all columns and the rare ones few, *reversed* the other
way round, and *narrow* gives all words the same few columns: equal numbers of embedding weights in all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparsernn.nn.embedding import FrequencyEmbedding

from ..baselines import commonest_tag
from ..models import SequenceTagger
from ..results import sizes
from ..settings import Count, Positive, Share, Some, Whole, settings
from ..study import Judge, Row, Study
from ..tables import figure
from ..tasks import pos
from ..train import Training
from .claims import OF_TAGS

Kind = Literal["baseline", "dense", "sparse", "narrow", "reversed"]
KINDS: tuple[Kind, ...] = ("sparse", "narrow", "reversed")


@settings
class Settings:
    """`densities`: shares of the dense embedding's numbers; `blocks` of its columns, 1 / blocks the least density.

    `start`: the word vectors' deviation before training, small enough for rare words to leave it in few steps.
    `sentences`: only so many training sentences, 0 for all.
    """

    corpus: pos.CorpusName = "conll2000"
    densities: Some[Share] = (0.1, 0.25, 0.5)
    columns: Count = 20
    blocks: Count = 20
    hidden: Count = 10
    epochs: Count = 8
    batch: Count = 64
    start: Positive = 0.1
    learning_rate: Positive = 0.02
    warm_up: Whole = 20
    dropout: Share = 0.2
    weight_drop: Share = 0.2
    sentences: Whole = 0

    def check(self) -> None:
        if any(d < 1 / self.blocks or (d * self.columns) % 1 > 1e-9 for d in self.densities):
            raise ValueError(
                f"densities is {self.densities}, expected shares from {1 / self.blocks:g} to below 1 that make a whole "
                f"number of {self.columns} columns, so that a narrow embedding has the same size."
            )


@dataclass(frozen=True)
class Tagger(Row):
    kind: Kind = "dense"
    density: float = 1.0


class Pos(Study[Settings, Tagger]):
    name = "demeester-pos"
    summary = "Tagging with short vectors for rare words, against narrow dense vectors and the reversed order."
    title = "Part-of-speech tagging: accuracy by embedding"
    scales: ClassVar = {
        "smoke": Settings(densities=(0.25,), sentences=60, epochs=1, batch=16, warm_up=2),
        "cpu": Settings(),
        "paper": Settings(epochs=50, batch=20, start=1.0, learning_rate=1e-3),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 5 minutes a seed", "paper": "about an hour"}
    columns = (
        figure("test accuracy", "test_accuracy", "{:.4f}"),
        figure("± (seeds)", "test_accuracy_deviation", "{:.4f}"),
        figure("unknown words", "test_accuracy_unknown", "{:.4f}"),
        figure("embedding", "embedding", "{:,}"),
        figure("weights", "weights", "{:,}"),
    )
    labels: ClassVar = {"baseline": "each word's commonest tag", "dense": "dense"}
    judge = Judge("test_accuracy", more=True, rows="sparse-*")
    claims = OF_TAGS

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Tagger]:
        pairs: list[tuple[Kind, float]] = [(kind, density) for density in settings.densities for kind in KINDS]
        found = [Tagger("baseline", "baseline"), Tagger("dense")]
        return [*found, *(Tagger(f"{kind}-{density:g}", kind, density) for kind, density in pairs)]

    @property
    def shown(self) -> Tagger:
        return self.rows[2]

    @property
    def saved(self) -> list[Tagger]:
        return list(self.rows[1:])

    def forms(self) -> Mapping[str, nn.Module]:
        return {row.name: self.load(row) for row in self.rows[1:3]}

    @cached_property
    def corpus(self) -> pos.Corpus:
        return pos.load(self.run.data, self.settings.corpus, self.settings.sentences or None)

    @cached_property
    def example_inputs(self) -> tuple[Tensor, Tensor]:
        x_TB, lengths_B, _ = pos.padded(self.corpus.test, range(8), self.corpus.padding)
        return x_TB, lengths_B

    def model(self, row: Tagger) -> SequenceTagger:
        torch.manual_seed(self.run.seed)
        s, words = self.settings, self.corpus
        width = round(row.density * s.columns) if row.kind == "narrow" else s.columns
        if row.kind in ("dense", "narrow"):
            embedding: nn.Module = nn.Embedding(len(words.words), width, padding_idx=words.padding)
        else:
            embedding = FrequencyEmbedding(
                words.counts,
                width,
                density=row.density,
                blocks=s.blocks,
                reverse=row.kind == "reversed",
                padding_idx=words.padding,
            )
        with torch.no_grad():
            for numbers in embedding.parameters():  # each drawn from a normal distribution of deviation 1
                numbers.mul_(s.start)
        return SequenceTagger(embedding, width, s.hidden, len(words.tags), s.dropout, s.weight_drop)

    def objective(self, row: Tagger) -> pos.Tagging:
        return pos.Tagging(self.corpus, self.settings.batch, self.run.seed)

    def training(self, row: Tagger) -> Training:
        s, steps = self.settings, self.settings.epochs * self.objective(row).steps_an_epoch
        return Training(steps, s.learning_rate, s.warm_up, checkpoint_every=max(500, steps))

    def make(self, row: Tagger) -> Mapping[str, Any]:
        if row.kind == "baseline":
            return {"test_accuracy": commonest_tag(self.corpus.train, self.corpus.test)}
        return super().make(row)

    def measure(self, row: Tagger, model: SequenceTagger) -> Mapping[str, Any]:
        test = pos.accuracy(model, self.corpus, self.corpus.test)
        return {
            "test_accuracy": test["all"],
            "test_accuracy_unknown": test["unknown"],
            "valid_accuracy": pos.accuracy(model, self.corpus, self.corpus.valid)["all"],
            "embedding": sum(p.numel() for p in model.embedding.parameters()),
            **sizes(model),
        }
