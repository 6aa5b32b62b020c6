"""The five nets that are folded, each with what it learns, what it is measured by and what does without a net."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ...baselines import bigram_bits, commonest_tag
from ...models import CELLS, CharacterLSTM, SequenceTagger
from ...tasks import narma, pos, shakespeare
from ...tasks.text import LanguageModelling, Streams, bits_per_symbol
from ...train import Objective

Kind = Literal["lstm", "stack", "gru"]
NetName = Literal[Kind, "tagger", "series"]
NETS: dict[NetName, str] = {
    "lstm": "characters, LSTM (bits)",
    "stack": "characters, two LSTM layers (bits)",
    "gru": "characters, GRU (bits)",
    "tagger": "part-of-speech tags, bidirectional LSTM (share of errors)",
    "series": "NARMA-10, two tanh RNN layers (squared error)",
}


class CharacterGRU(nn.Module):
    """Next-symbol model: embedding, GRU, linear layer. x_TB (int64) -> logits_TBV, with a state (logits, new state)."""

    def __init__(self, symbols: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.gru = nn.GRU(embedding, hidden)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, x_TB: Tensor, state: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        h_TBH, after = self.gru(self.embedding(x_TB), state)
        logits_TBV = self.head(h_TBH)
        return logits_TBV if state is None else (logits_TBV, after)

    def zero_state(self, batch: int) -> Tensor:
        """Zeros (1, batch, hidden): the state before a text begins."""
        return self.head.weight.new_zeros(1, batch, self.gru.hidden_size)


class SeriesModel(nn.Module):
    """Value of each step of a series from what drives it: x_TB1 -> y_TB1. RNN layers and a linear layer."""

    def __init__(self, hidden: int, layers: int = 2) -> None:
        super().__init__()
        self.rnn = CELLS["rnn"](1, hidden, layers)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x_TB1: Tensor) -> Tensor:
        return self.head(self.rnn(x_TB1)[0])


class Task(Protocol):
    """What a net is for. `loss`: of the test data, less is better; `seen`: inputs of the training data, no labels."""

    example: Any

    def model(self, hidden: int) -> nn.Module: ...

    def objective(self) -> Objective: ...

    def seen(self) -> Iterator[Any]: ...

    def loss(self, model: nn.Module) -> float: ...

    def baseline(self) -> float: ...


@dataclass(frozen=True)
class Characters:
    """Shakespeare a character at a time. `symbols`: of the text that is trained on, 0 for all; a tenth is tested on."""

    kind: Kind
    embedding: int
    batch: int
    length: int
    symbols: int = 0

    @cached_property
    def text(self) -> Any:
        with torch.device("cpu"):  # the first who asks may be counting weights on "meta"
            return shakespeare.load()

    @cached_property
    def example(self) -> Tensor:
        return Streams(self.text.test, 4, 16).at(0)[0]

    def model(self, hidden: int) -> nn.Module:
        symbols = len(self.text.symbols)
        if self.kind == "gru":
            return CharacterGRU(symbols, self.embedding, hidden)
        return CharacterLSTM(symbols, self.embedding, hidden, 2 if self.kind == "stack" else 1)

    def objective(self) -> Objective:
        return LanguageModelling(Streams(self.text.train[: self.symbols or None], self.batch, self.length))

    def seen(self) -> Iterator[Tensor]:
        streams = Streams(self.text.train[: self.symbols or None], 16, 250)
        return (streams.at(step)[0] for step in range(10))

    def loss(self, model: nn.Module) -> float:
        return bits_per_symbol(model, self.text.test[: self.symbols // 10 or None])

    def baseline(self) -> float:
        train, test = self.text.train[: self.symbols or None], self.text.test[: self.symbols // 10 or None]
        return bigram_bits(train, test, len(self.text.symbols))


@dataclass(frozen=True)
class Tags:
    """Part-of-speech tags of CoNLL-2000. `sentences`: only so many to train on, 0 for all."""

    folder: Path | None
    embedding: int
    batch: int
    seed: int
    sentences: int = 0

    @cached_property
    def corpus(self) -> pos.Corpus:
        with torch.device("cpu"):
            return pos.load(self.folder, "conll2000", self.sentences or None)

    @cached_property
    def example(self) -> tuple[Tensor, Tensor]:
        x_TB, lengths_B, _ = pos.padded(self.corpus.test, range(8), self.corpus.padding)
        return x_TB, lengths_B

    def model(self, hidden: int) -> nn.Module:
        words, padding = len(self.corpus.words), self.corpus.padding
        embedding = nn.Embedding(words, self.embedding, padding_idx=padding)
        return SequenceTagger(embedding, self.embedding, hidden, len(self.corpus.tags))

    def objective(self) -> Objective:
        return pos.Tagging(self.corpus, self.batch, self.seed)

    def seen(self) -> Iterator[tuple[Tensor, Tensor]]:
        for begin in range(0, min(1920, len(self.corpus.train.words)), 64):
            among = range(begin, min(begin + 64, len(self.corpus.train.words)))
            x_TB, lengths_B, _ = pos.padded(self.corpus.train, among, self.corpus.padding)
            yield x_TB, lengths_B

    def loss(self, model: nn.Module) -> float:
        return 1 - pos.accuracy(model, self.corpus, self.corpus.test)["all"]

    def baseline(self) -> float:
        return 1 - commonest_tag(self.corpus.train, self.corpus.test)


@dataclass(frozen=True)
class Narma:
    """NARMA-10: one series to train on, another to measure."""

    batch: int
    length: int
    seed: int
    steps: int

    @cached_property
    def series(self) -> tuple[narma.Series, narma.Series]:
        with torch.device("cpu"):
            return narma.series(self.steps, self.seed), narma.series(self.steps // 4, self.seed + 500_000)

    @cached_property
    def example(self) -> Tensor:
        return self.series[1].u_N[:48].reshape(12, 4, 1)

    def model(self, hidden: int) -> nn.Module:
        return SeriesModel(hidden)

    def objective(self) -> Objective:
        return narma.Following(self.series[0], self.batch, self.length + narma.BEFORE, self.seed)

    def seen(self) -> Iterator[Tensor]:
        objective = narma.Following(self.series[0], 16, 250, self.seed)
        return (objective.batch(step)[0] for step in range(10))

    def loss(self, model: nn.Module) -> float:
        return narma.error(model, self.series[1])

    def baseline(self) -> float:
        return narma.linear_error(*self.series)
