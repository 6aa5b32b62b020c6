"""Stacks of recurrent layers over letters, as in Darji's study (arXiv 2407.20601): classifiers and generators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

STACKS: dict[str, Callable[..., nn.RNNBase]] = {
    "tanh": partial(nn.RNN, nonlinearity="tanh"),
    "relu": partial(nn.RNN, nonlinearity="relu"),
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}


class StackClassifier(nn.Module):
    """Class of a padded sequence: (x_TB, lengths_B) -> logits_BC, read from the last layer at each sequence's end."""

    def __init__(
        self, cell: str, symbols: int, embedding: int, hidden: int, layers: int = 3, *, classes: int = 2
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.recurrent = STACKS[cell](embedding, hidden, layers)
        self.head = nn.Linear(hidden, classes)

    def read(self, h_TBH: Tensor, lengths_B: Tensor) -> Tensor:
        """The step that is classified, h_BH."""
        return h_TBH[lengths_B - 1, torch.arange(len(lengths_B), device=h_TBH.device)]

    def forward(self, x_TB: Tensor, lengths_B: Tensor) -> Tensor:
        # Padding lies behind each sequence's end, which no unit has seen by then: no need to pack.
        h_TBH, _ = self.recurrent(self.embedding(x_TB))
        return self.head(self.read(h_TBH, lengths_B))


class PaddedStackClassifier(StackClassifier):
    """The same, read at the last step of the batch: shorter sequences are read after padding (the original's flaw)."""

    def read(self, h_TBH: Tensor, lengths_B: Tensor) -> Tensor:
        return h_TBH[-1]


class StackGenerator(nn.Module):
    """Next letter at every step: x_TB -> logits_TBV."""

    def __init__(self, cell: str, symbols: int, embedding: int, hidden: int, layers: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.recurrent = STACKS[cell](embedding, hidden, layers)
        self.head = nn.Linear(hidden, symbols)

    def step(self, x_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One letter of each sequence and the layers' state (None: zeros) -> logits_BV and the state after it."""
        h_TBH, state = self.recurrent(self.embedding(x_B[None]), state)
        return self.head(h_TBH[0]), state

    def forward(self, x_TB: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embedding(x_TB))[0])
