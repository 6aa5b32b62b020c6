"""Twelve small recurrent models, written as people write them, for the comparison in peers.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

VOCABULARY, FEATURES, HIDDEN, CLASSES = 20, 12, 16, 5
BATCH, TIME = 4, 7


class Tagger(nn.Module):
    """One class a time step, from any torch layer: x_BTF -> logits_BTC."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = layer
        width = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.rnn(x)
        return self.head(output)


class Packed(nn.Module):
    """A bidirectional GRU over sequences of unequal length."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(FEATURES, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(output)


class AttentionPooling(nn.Module):
    """Additive attention over time, then one class a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.project = nn.Linear(HIDDEN, 8)
        self.score = nn.Linear(8, 1)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.rnn(x)
        weight = torch.softmax(self.score(torch.tanh(self.project(output))), dim=1)
        return self.head((weight * output).sum(1))


class Seq2Seq(nn.Module):
    """The encoder's last state is the decoder's first."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, FEATURES)
        self.encoder = nn.GRU(FEATURES, HIDDEN, batch_first=True)
        self.decoder = nn.GRU(FEATURES, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.embedding(source))
        output, _ = self.decoder(self.embedding(target), state)
        return self.head(output)


class CellLoop(nn.Module):
    """An LSTMCell in a Python loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(FEATURES, HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], self.cell.hidden_size)
        outputs = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            outputs.append(self.head(h))
        return torch.stack(outputs, dim=1)


class TiedLanguageModel(nn.Module):
    """Output weights are the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.rnn = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, VOCABULARY)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        output, _ = self.rnn(self.embedding(tokens))
        return self.head(output)


class ResidualStack(nn.Module):
    """Each layer adds to what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(FEATURES, HIDDEN)
        self.layers = nn.ModuleList(nn.LSTM(HIDDEN, HIDDEN, batch_first=True) for _ in range(2))
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = x + layer(x)[0]
        return self.head(x)


class ConvolutionThenLSTM(nn.Module):
    """Keyword spotting: a convolution over time, an LSTM, its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(FEATURES, 10, 3, padding=1)
        self.rnn = nn.LSTM(10, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.convolution(x.transpose(1, 2))).transpose(1, 2)
        output, _ = self.rnn(x)
        return self.head(output[:, -1])


class DropWeights(nn.Module):
    """DropConnect on a weight matrix (Merity et al., arXiv 1708.02182)."""

    def forward(self, weight: Tensor) -> Tensor:
        return F.dropout(weight, 0.5, self.training)


class WeightDropped(Tagger):
    """An LSTM whose recurrent matrix is dropped out in training."""

    def __init__(self) -> None:
        super().__init__(nn.LSTM(FEATURES, HIDDEN, batch_first=True))
        parametrize.register_parametrization(self.rnn, "weight_hh_l0", DropWeights())


@dataclass(frozen=True)
class Work:
    """A model and its example inputs; `heads` are the layers whose outputs are the model's own."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    heads: tuple[str, ...] = ("head",)


def _features() -> tuple[Tensor, ...]:
    return (torch.randn(BATCH, TIME, FEATURES),)


def _tokens() -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (BATCH, TIME)),)


def _layer(kind: type[nn.RNNBase], **options: object) -> Callable[[], nn.Module]:
    return lambda: Tagger(kind(FEATURES, HIDDEN, batch_first=True, **options))


WORKS: dict[str, Work] = {
    "stacked LSTM": Work(_layer(nn.LSTM, num_layers=2), _features),
    "GRU": Work(_layer(nn.GRU), _features),
    "bidirectional LSTM": Work(_layer(nn.LSTM, bidirectional=True), _features),
    "packed sequences": Work(Packed, lambda: (*_features(), torch.tensor([7, 3, 5, 1]))),
    "attention pooling": Work(AttentionPooling, _features),
    "encoder and decoder": Work(Seq2Seq, lambda: (*_tokens(), *_tokens())),
    "LSTMCell in a loop": Work(CellLoop, _features),
    "LSTM with projection": Work(_layer(nn.LSTM, proj_size=8), _features),
    "tied language model": Work(TiedLanguageModel, _tokens),
    "residual stack": Work(ResidualStack, _features),
    "convolution and LSTM": Work(ConvolutionThenLSTM, _features),
    "weight-dropped LSTM": Work(WeightDropped, _features),
}
