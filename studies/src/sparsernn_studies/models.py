"""The models of the recipes: plain PyTorch, as users write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .regularisation import WeightDrop, locked_dropout

Cell = Literal["lstm", "gru", "rnn"]
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class CharacterLSTM(nn.Module):
    """Next-symbol model: embedding, LSTM, linear layer. x_TB (int64) -> logits_TBV.

    With a state (h, c), each (layers, batch, hidden), the new state is returned beside the logits. In training, each
    unit of the last layer is dropped for whole sequences (Gal & Ghahramani, arXiv 1512.05287).
    """

    def __init__(self, symbols: int, embedding: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers)
        self.head = nn.Linear(hidden, symbols)
        self.dropout = dropout
        with torch.no_grad():
            for name, bias in self.lstm.named_parameters():
                if name.startswith("bias_ih"):
                    bias[hidden : 2 * hidden] = 1  # forget gates begin open

    def forward(
        self, x_TB: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        h_TBH, after = self.lstm(self.embedding(x_TB), state)
        if self.training and self.dropout:
            h_TBH = h_TBH * nn.functional.dropout(h_TBH.new_ones(h_TBH.shape[1:]), self.dropout)
        logits_TBV = self.head(h_TBH)
        return logits_TBV if state is None else (logits_TBV, after)

    def zero_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros (layers, batch, hidden), twice: the state before a text begins."""
        zeros = self.head.weight.new_zeros(self.lstm.num_layers, batch, self.lstm.hidden_size)
        return zeros, zeros.clone()


class OneHotLSTM(nn.Module):
    """Next-symbol model without an embedding: x_TB (int64) as one-hot vectors, LSTM, linear layer -> logits_TBV.

    With a state (h, c), each (1, batch, hidden), the new state is returned beside the logits. Every gate's matrices
    begin orthogonal, forget gates with the bias `forget`.
    """

    def __init__(self, symbols: int, hidden: int, forget: float = 0.0) -> None:
        super().__init__()
        self.lstm = nn.LSTM(symbols, hidden)
        self.head = nn.Linear(hidden, symbols)
        with torch.no_grad():
            for name, parameter in self.lstm.named_parameters():
                for gate in parameter.chunk(4):
                    if parameter.dim() == 2:
                        nn.init.orthogonal_(gate)
                    else:
                        gate.zero_()
                if name == "bias_ih_l0":
                    parameter[hidden : 2 * hidden] = forget

    def forward(
        self, x_TB: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        x_TBV = nn.functional.one_hot(x_TB, self.lstm.input_size).to(self.head.weight.dtype)
        h_TBH, after = self.lstm(x_TBV, state)
        logits_TBV = self.head(h_TBH)
        return logits_TBV if state is None else (logits_TBV, after)

    def zero_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros (1, batch, hidden), twice: the state before a text begins."""
        zeros = self.head.weight.new_zeros(1, batch, self.lstm.hidden_size)
        return zeros, zeros.clone()


class SequenceClassifier(nn.Module):
    """Class of a padded sequence: (x_TB, lengths_B) -> logits_BC. Packed, so that padding is never looked at."""

    def __init__(self, cell: Cell, symbols: int, embedding: int, hidden: int, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding, padding_idx=0)
        self.recurrent = CELLS[cell](embedding, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x_TB: Tensor, lengths_B: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(x_TB), lengths_B.cpu(), enforce_sorted=False)
        _, state = self.recurrent(packed)
        last_LBH = state[0] if isinstance(state, tuple) else state
        return self.head(last_LBH[-1])


class TextClassifier(nn.Module):
    """Class of a text by the last state of an LSTM: x_TB, padded before each text -> logits_BC.

    The vector of padding (word 0) is zero. Forget gates begin open.
    """

    def __init__(self, symbols: int, embedding: int, hidden: int, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding, padding_idx=0)
        self.lstm = nn.LSTM(embedding, hidden)
        self.head = nn.Linear(hidden, classes)
        with torch.no_grad():
            self.embedding.weight.mul_(0.05)
            self.lstm.get_parameter("bias_ih_l0")[hidden : 2 * hidden] = 1

    def forward(self, x_TB: Tensor) -> Tensor:
        h_TBH, _ = self.lstm(self.embedding(x_TB))
        return self.head(h_TBH[-1])


class WordScores(nn.Module):
    """Scores of each word, summed: x_TB -> logits_BC. A few seconds of training give word vectors a start.

    Two classes need one score, which speaks for the second and against the first.
    """

    def __init__(self, symbols: int, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 1 if classes == 2 else classes, padding_idx=0)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, x_TB: Tensor) -> Tensor:
        scores_BC = self.embedding(x_TB).sum(0) / x_TB.ne(0).sum(0).clamp_min(1).sqrt()[:, None]
        return torch.cat([-scores_BC, scores_BC], 1) if scores_BC.shape[1] == 1 else scores_BC


class FrameClassifier(nn.Module):
    """Class of a sequence of feature frames, at every frame: GRU layers and a linear layer, x_TBF -> logits_TBC.

    `widths`: units of each layer. The layers are modules of their own, so that each can be as wide as it needs. No
    frame sees a later one, so the model runs as a stream.
    """

    def __init__(self, features: int, widths: Sequence[int], classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.GRU(i, o) for i, o in zip([features, *widths], widths))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x_TBF: Tensor) -> Tensor:
        h = x_TBF
        for layer in self.layers:
            h = self.dropout(layer(h)[0])
        return self.head(h)


class SequenceTagger(nn.Module):
    """Tag of each word: (x_TB, lengths_B) -> logits_TBC. Embedding, bidirectional LSTM, a tanh layer, the tags.

    In training, columns of the embedded sentence (share `dropout`) and recurrent weights (share `weight_drop`) are
    dropped.
    """

    def __init__(
        self, embedding: nn.Module, width: int, hidden: int, tags: int, dropout: float = 0.0, weight_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.lstm = nn.LSTM(width, hidden, bidirectional=True)
        self.middle = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, tags)
        self.dropout = dropout
        if weight_drop:
            WeightDrop(weight_drop).attach(self)

    def forward(self, x_TB: Tensor, lengths_B: Tensor) -> Tensor:
        x_TBI = locked_dropout(self.embedding(x_TB), self.dropout, self.training)
        if int(lengths_B.min()) == len(x_TB):  # nothing is padding; torch is several times faster without packing
            h_TBH, _ = self.lstm(x_TBI)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(x_TBI, lengths_B.cpu(), enforce_sorted=False)
            h_TBH, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0])
        return self.head(torch.tanh(self.middle(h_TBH)))


class RowClassifier(nn.Module):
    """Class of a sequence of vectors of one length: x_TBI -> logits_BC, read from the last step of the last layer."""

    def __init__(self, cell: Cell, inputs: int, hidden: int, layers: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.recurrent = CELLS[cell](inputs, hidden, layers)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x_TBI: Tensor) -> Tensor:
        h_TBH, _ = self.recurrent(x_TBI)
        return self.head(h_TBH[-1])
