"""Word models: AWD-LSTM (Merity et al., arXiv 1708.02182), and the stacked LSTM of Zaremba et al. (arXiv 1409.2329)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsernn.nn.embedding import FrequencyEmbedding
from sparsernn.nn.split import SplitLSTM

from .regularisation import WeightDrop, embed, locked_dropout
from .softmax_loss import linear_cross_entropy
from .tasks.text import wide

State = tuple[tuple[Tensor, ...], ...]  # of each layer (h, c) or (h,)


@dataclass(frozen=True)
class Drop:
    """Shares dropped in training: of whole words (`words`), of the embedded input, between layers, of the last
    layer's output, and of recurrent weights."""

    words: float = 0.0
    input: float = 0.0
    hidden: float = 0.0
    output: float = 0.0
    weights: float = 0.0


class WordModel(nn.Module):
    """Next-word model: (x_TB, state) -> (logits_TBV, state); without a state, x_TB -> logits_TBV.

    The last layer is as wide as the embedding, whose matrix decodes as well (tied), with a bias of its own.
    """

    def __init__(self, embedding: nn.Embedding | FrequencyEmbedding, layers: Sequence[nn.Module], drop: Drop) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))
        self.drop = drop
        for weight in embedding.parameters():
            nn.init.uniform_(weight, -0.1, 0.1)
        if drop.weights:
            WeightDrop(drop.weights).attach(self)

    def run(self, x_TB: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """The last layer's output after and before its dropout, and the state."""
        d = self.drop
        h = embed(self.embedding, x_TB, self.embedding.num_embeddings, d.words, self.training)
        h = locked_dropout(h, d.input, self.training)
        raw, after = h, []
        for n, layer in enumerate(self.layers):
            raw, own = layer(h, None if state is None else state[n])
            after.append(own)
            h = locked_dropout(raw, d.output if n == len(self.layers) - 1 else d.hidden, self.training)
        return h, raw, tuple(after)

    def decode(self, h_TBI: Tensor) -> Tensor:
        """Logits_TBV of the last layer's output."""
        if isinstance(self.embedding, FrequencyEmbedding):
            return self.embedding.logits(h_TBI) + self.bias
        return F.linear(h_TBI, self.embedding.weight, self.bias)

    def nats(self, h_TBI: Tensor, y_TB: Tensor, low: torch.dtype | None) -> Tensor:
        """Mean cross entropy of the words `y_TB` after the last layer's output; logits in the dtype `low`, if given."""
        with torch.autocast(h_TBI.device.type, low or torch.bfloat16, enabled=low is not None):
            logits_TBV = self.decode(h_TBI)
        return F.cross_entropy(wide(logits_TBV).flatten(0, 1), y_TB.flatten())

    def forward(self, x_TB: Tensor, state: State | None = None) -> Tensor | tuple[Tensor, State]:
        h_TBI, _, after = self.run(x_TB, state)
        return self.decode(h_TBI) if state is None else (self.decode(h_TBI), after)

    def zero_state(self, batch: int) -> State:
        """The state before a text begins."""
        layers: list[Any] = list(self.layers)
        zeros = [self.bias.new_zeros(1, batch, layer.hidden_size) for layer in layers]
        return tuple((z, z.clone()) for z in zeros)


class StackedLSTM(nn.Module):
    """Next-word model of Zaremba et al. (arXiv 1409.2329): x_TB -> logits_TBV, or (x_TB, state) -> (logits_TBV, state).

    An embedding of `words` words, LSTM layers of `widths` units and a linear layer. Dropout acts on the embedded words
    and on every layer's output, never from step to step; a share `keep` stays. All parameters begin uniform in
    (-`start`, `start`). The layers are modules of their own, so that each can be as wide as it needs.
    """

    def __init__(self, words: int, embedding: int, widths: Sequence[int], keep: float, start: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.layers = nn.ModuleList(nn.LSTM(i, o) for i, o in zip([embedding, *widths], widths))
        self.head = nn.Linear(widths[-1], words)
        self.keep = keep
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -start, start)

    def run(self, x_TB: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """The last layer's output after and before its dropout, and the state."""
        raw, after = self.embedding(x_TB), []
        h = F.dropout(raw, 1 - self.keep, self.training)
        for n, layer in enumerate(self.layers):
            raw, own = layer(h, None if state is None else state[n])
            after.append(own)
            h = F.dropout(raw, 1 - self.keep, self.training)
        return h, raw, tuple(after)

    def nats(self, h_TBH: Tensor, y_TB: Tensor, low: torch.dtype | None) -> Tensor:
        """Mean cross entropy of the words `y_TB` after the last layer's output; products in dtype `low`, if given."""
        return linear_cross_entropy(h_TBH.flatten(0, 1), self.head, y_TB.flatten(), low or h_TBH.dtype)

    def forward(self, x_TB: Tensor, state: State | None = None) -> Tensor | tuple[Tensor, State]:
        h_TBH, _, after = self.run(x_TB, state)
        return self.head(h_TBH) if state is None else (self.head(h_TBH), after)

    def zero_state(self, batch: int) -> State:
        """The state before a text begins."""
        layers: list[Any] = list(self.layers)
        zeros = [self.head.weight.new_zeros(1, batch, layer.hidden_size) for layer in layers]
        return tuple((z, z.clone()) for z in zeros)


def layers(embedding: int, hidden: int, *, reduce: float = 1.0, ends: bool = False) -> list[nn.Module]:
    """Three LSTM layers embedding -> hidden -> hidden -> embedding.

    reduce below 1: split layers with the parameters of dense ones of reduce x hidden units; with `ends` the embedding's
    width counts as reduced, too.
    """
    if reduce == 1:
        return [nn.LSTM(embedding, hidden), nn.LSTM(hidden, hidden), nn.LSTM(hidden, embedding)]
    end = reduce if ends else 1.0
    shapes = ((embedding, hidden, end, reduce), (hidden, hidden, reduce, reduce), (hidden, embedding, reduce, end))
    return [SplitLSTM.from_reduction(i, h, reduce_in=a, reduce_out=b) for i, h, a, b in shapes]
