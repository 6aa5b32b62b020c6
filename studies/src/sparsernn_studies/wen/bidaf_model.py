"""BiDAF (Seo et al., arXiv 1611.01603): attention that flows both ways between a passage and a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.structure.cells import recurrent_layers

from ..results import sizes

SIX = ("modelling.*", "output.*")  # the LSTMs behind the attention, whose units are learnt


@dataclass(frozen=True)
class Sizes:
    """`words` and `letters`: of the vocabulary; `vector`: columns of a word vector; `letter`: of a letter's; `filters`
    of `kernel` letters; `hidden`: units of each LSTM and direction.

    `widths`: units of the six LSTMs that read the attention's result, where they differ: first and second layer of the
    modelling stack, output layer, each forwards and backwards.
    """

    words: int
    letters: int
    vector: int = 100
    letter: int = 8
    filters: int = 100
    kernel: int = 5
    hidden: int = 100
    widths: tuple[int, ...] = ()


class Highway(nn.Module):
    """y = t * relu(A x) + (1 - t) * x with t = sigmoid(B x), on the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.gate(x))
        return t * F.relu(self.value(x)) + (1 - t) * x


class BiDAF(nn.Module):
    """Logits of each word of a passage to be the answer's first and last: start_BT, end_BT; padding has -inf.

    Takes words_U and letters_UC, the distinct words of the batch and their spelling, passage_BT and question_BJ, the
    texts as places among them, and the lengths of both. What a word is does not depend on where it stands, so its
    vector, its letters' convolution and the highway layers are worked out once.

    In training a share `dropout` of the inputs of each LSTM, of the letters and of the logits' layers is dropped.
    """

    def __init__(self, sizes: Sizes, dropout: float = 0.0) -> None:
        super().__init__()
        s, d, word = sizes, sizes.hidden, sizes.vector + sizes.filters
        self.words = nn.Embedding(s.words, s.vector)
        self.letters = nn.Embedding(s.letters, s.letter, padding_idx=0)
        self.spelling = nn.Conv1d(s.letter, s.filters, s.kernel)
        self.highway = nn.Sequential(Highway(word), Highway(word))
        self.contextual = nn.LSTM(word, d, bidirectional=True, batch_first=True)
        self.passage_score = nn.Linear(2 * d, 1)
        self.question_score = nn.Linear(2 * d, 1, bias=False)
        self.both_score = nn.Parameter(torch.empty(2 * d).uniform_(-1, 1) / (2 * d) ** 0.5)
        first, second, last = _pairs(s.widths or (d,) * 6)
        self.modelling = _lstm(8 * d, (first, second), dropout)
        self.start = nn.Linear(8 * d + sum(second), 1)
        self.output = _lstm(8 * d + 3 * sum(second), (last,), 0.0)
        self.end = nn.Linear(8 * d + sum(last), 1)
        self.dropout = nn.Dropout(dropout)
        _open_forget_gates(self)

    def forward(
        self,
        words_U: Tensor,
        letters_UC: Tensor,
        passage_BT: Tensor,
        passage_lengths_B: Tensor,
        question_BJ: Tensor,
        question_lengths_B: Tensor,
    ) -> tuple[Tensor, Tensor]:
        word_UI = self.embed(words_U, letters_UC)
        padding_BT = _padding(passage_BT, passage_lengths_B)
        h_BTI = self.read(self.contextual, word_UI[passage_BT], passage_lengths_B)
        u_BJI = self.read(self.contextual, word_UI[question_BJ], question_lengths_B)
        g_BTI = self.attend(h_BTI, u_BJI, padding_BT, _padding(question_BJ, question_lengths_B))

        m_BTI = self.read(self.modelling, g_BTI, passage_lengths_B)
        start_BT = self.start(self.dropout(torch.cat([g_BTI, m_BTI], -1))).squeeze(-1)
        start_BT = start_BT.masked_fill(padding_BT, -torch.inf)

        # Where the answer begins, on average, goes to the layer that looks for its end.
        there_BTI = (start_BT.softmax(1).unsqueeze(1) @ m_BTI).expand_as(m_BTI)
        begun_BTI = torch.cat([g_BTI, m_BTI, there_BTI, m_BTI * there_BTI], -1)
        e_BTI = self.read(self.output, begun_BTI, passage_lengths_B)
        end_BT = self.end(self.dropout(torch.cat([g_BTI, e_BTI], -1))).squeeze(-1)
        return start_BT, end_BT.masked_fill(padding_BT, -torch.inf)

    def embed(self, words_U: Tensor, letters_UC: Tensor) -> Tensor:
        """Vector and spelling of each word, through the highway layers."""
        letters_UIC = self.dropout(self.letters(letters_UC)).transpose(1, 2)
        spelled_UI = F.relu(self.spelling(letters_UIC)).amax(2)
        return self.highway(torch.cat([self.words(words_U), spelled_UI], -1))

    def read(self, lstm: nn.Module, x_BTI: Tensor, lengths_B: Tensor) -> Tensor:
        """The LSTM's outputs; padding is not read, and zero where it is."""
        x_BTI = self.dropout(x_BTI)
        if int(lengths_B.min()) == x_BTI.shape[1]:  # nothing is padding; torch is several times faster without packing
            return lstm(x_BTI)[0]
        packed = pack_padded_sequence(x_BTI, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x_BTI.shape[1])[0]

    def attend(self, h_BTI: Tensor, u_BJI: Tensor, padding_BT: Tensor, padding_BJ: Tensor) -> Tensor:
        """[h; u~; h * u~; h * h~]: u~ what each word of the passage sees of the question, h~ the words of
        the passage that the question sees most of."""
        scores_BTJ = self.passage_score(h_BTI) + self.question_score(u_BJI).transpose(1, 2)
        scores_BTJ = scores_BTJ + (h_BTI * self.both_score) @ u_BJI.transpose(1, 2)
        scores_BTJ = scores_BTJ.masked_fill(padding_BJ.unsqueeze(1), -torch.inf)
        seen_BTI = scores_BTJ.softmax(2) @ u_BJI
        most_BT = scores_BTJ.amax(2).masked_fill(padding_BT, -torch.inf)
        seen_most_B1I = most_BT.softmax(1).unsqueeze(1) @ h_BTI
        return torch.cat([h_BTI, seen_BTI, h_BTI * seen_BTI, h_BTI * seen_most_B1I], -1)


def _padding(text_BT: Tensor, lengths_B: Tensor) -> Tensor:
    return torch.arange(text_BT.shape[1], device=text_BT.device) >= lengths_B.to(text_BT.device).unsqueeze(1)


def _pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    if len(widths) != 6:
        raise ValueError(f"widths is {tuple(widths)}, expected the units of six LSTMs.")
    return list(zip(widths[::2], widths[1::2]))


def _lstm(inputs: int, widths: Sequence[tuple[int, int]], dropout: float) -> nn.Module:
    """A bidirectional stack: torch's own where all its widths are one."""
    if len(set(chain.from_iterable(widths))) == 1:
        return nn.LSTM(inputs, widths[0][0], len(widths), dropout=dropout, bidirectional=True, batch_first=True)
    return RaggedLSTM(inputs, widths, dropout=dropout, bidirectional=True, batch_first=True)


@torch.no_grad()
def _open_forget_gates(model: nn.Module) -> None:
    for name, bias in model.named_parameters():
        if ".bias_ih" in name:
            bias[len(bias) // 4 : len(bias) // 2] = 1


def six(model: nn.Module) -> list[Any]:
    """The layers and directions of the modelling stack and the output layer, in that order."""
    found = {name: [] for name in ("modelling", "output")}
    for layer in recurrent_layers(model):
        part = layer.name.partition(".")[0]
        if part in found:
            found[part].append(layer)
    return [layer for layers in found.values() for layer in layers]


def units(model: nn.Module) -> list[int]:
    """Units of the six LSTMs: modelling layers 1 and 2, output layer, each forwards and backwards."""
    return [layer.hidden_size for layer in six(model)]


def weights(model: nn.Module) -> dict[str, int]:
    """`weights`, `nonzero` and `parameters` without the word vectors, which are counted as `word_vectors`."""
    vectors = model.get_parameter("words.weight")
    whole = sizes(model)
    return {
        "weights": whole["weights"] - vectors.numel(),
        "nonzero": whole["nonzero"] - int(vectors.count_nonzero()),
        "parameters": whole["parameters"] - vectors.numel(),
        "word_vectors": vectors.numel(),
    }
