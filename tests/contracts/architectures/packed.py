"""Packed sequences in and out, and arguments that aren't a plain tensor."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from ..architecture import Architecture, features, inside, lengths_of, merge, reads, tokens


class PackedTagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 5)
        self.lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(12, 4)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(self.emb(x), lengths, batch_first=True)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.size(1))
        return self.fc(out)


class UnsortedFinalState(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(5, 7, bidirectional=True)
        self.fc = nn.Linear(14, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x.transpose(0, 1), lengths.cpu(), enforce_sorted=False)
        _, h = self.gru(packed)
        return self.fc(torch.cat([h[0], h[1]], -1))


class SortedByHand(nn.Module):
    """Sorted and put back by hand, as before torch could."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x, lengths):
        ordered, index = lengths.sort(descending=True)
        _, back = index.sort()
        _, (h, _) = self.rnn(pack_padded_sequence(x[index], ordered, batch_first=True))
        return self.fc(h[-1].index_select(0, back))


class PackedArgument(nn.Module):
    """A packed sequence in, packed logits out; the head works on the packed data."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, num_layers=2)
        self.fc = nn.Linear(7, 3)

    def forward(self, packed):
        out, _ = self.rnn(packed)
        return PackedSequence(self.fc(out.data), out.batch_sizes, out.sorted_indices, out.unsorted_indices)


class PackedReturned(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, num_layers=2)

    def forward(self, packed):
        return self.rnn(packed)[0]


class PackedMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, proj_size=3)
        self.fc = nn.Linear(3, 2)

    def forward(self, packed):
        out, lengths = pad_packed_sequence(self.rnn(packed)[0])
        return self.fc(out.sum(0) / lengths.unsqueeze(1))


class FirstState(nn.Module):
    """A packed sequence with a first state made for its batch."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(2, 7)
        self.rnn = nn.GRU(5, 7)
        self.fc = nn.Linear(7, 2)

    def forward(self, packed, context):
        out, _ = self.rnn(packed, self.start(context).unsqueeze(0))
        return self.fc(pad_packed_sequence(out, batch_first=True)[0])


class DictArgument(nn.Module):
    """One argument that is a dictionary, of which a key is taken away."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.fc = nn.Linear(7, 2)

    def forward(self, batch):
        x = batch.pop("x")
        out, _ = self.rnn(x)
        return {"logits": self.fc(out[:, -1]), "ids": batch["ids"]}


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 4)
        self.rnn = nn.RNN(4 + 2, 7, batch_first=True)
        self.fc = nn.Linear(7, 2)

    def forward(self, *, words, numbers, mode="last", scale=1.0):
        out, h = self.rnn(torch.cat([self.emb(words), numbers], -1))
        return scale * self.fc(h[0] if mode == "last" else out.mean(1))


class Batch(NamedTuple):
    x: Tensor
    lengths: Tensor


class NamedTupleArgument(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.fc = nn.Linear(7, 2)

    def forward(self, batch):
        out, _ = self.rnn(batch.x)
        return self.fc(out[torch.arange(len(out)), batch.lengths - 1])


@dataclass
class Sample:
    x: Tensor
    name: str


class DataclassArgument(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.fc = nn.Linear(7, 2)

    def forward(self, sample):
        assert sample.name == "a sample"
        return self.fc(self.rnn(sample.x)[0])


Result = namedtuple("Result", "logits probabilities")


class ListArgument(nn.Module):
    """A list of sequences of unequal lengths, taken apart with pop."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7)
        self.fc = nn.Linear(7, 2)

    def forward(self, sequences):
        packed = pack_sequence([sequences.pop(0) for _ in range(len(sequences))], enforce_sorted=False)
        logits = self.fc(self.rnn(packed)[1][0])
        return Result(logits, logits.softmax(-1))


def _sorted(b: int, t: int) -> tuple[Tensor, Tensor]:
    lengths = lengths_of(b, t).sort(descending=True).values
    return tokens(b, t), lengths


def _packed(b: int, t: int) -> PackedSequence:
    return pack_padded_sequence(features(b, t), lengths_of(b, t), batch_first=True, enforce_sorted=False)


def _sequences(b: int, t: int) -> tuple[list[Tensor]]:
    return ([torch.randn(int(n), 5) for n in lengths_of(b, t)],)


ARCHITECTURES = [
    Architecture(
        "packed_tagger",
        PackedTagger,
        _sorted,
        merge(
            inside("lstm", 6, 2, True),
            {"lstm.l1": [reads("fc.weight")], "lstm.l1_reverse": [reads("fc.weight", 1, 6)]},
        ),
    ),
    Architecture(
        "unsorted_final_state",
        UnsortedFinalState,
        lambda b, t: (features(b, t), lengths_of(b, t)),
        merge(
            inside("gru", 7, bidirectional=True),
            {"gru.l0": [reads("fc.weight")], "gru.l0_reverse": [reads("fc.weight", 1, 7)]},
        ),
    ),
    Architecture(
        "sorted_by_hand",
        SortedByHand,
        lambda b, t: (features(b, t), lengths_of(b, t)),
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "packed_argument", PackedArgument, _packed, merge(inside("rnn", 7, 2), {"rnn.l1": [reads("fc.weight")]})
    ),
    Architecture(
        "packed_returned",
        PackedReturned,
        _packed,
        {"rnn.l0": inside("rnn", 7, 2)["rnn.l0"]},
        kept={"rnn.l1": "handed to the caller"},
    ),
    Architecture(
        "packed_mean",
        PackedMean,
        _packed,
        merge(inside("rnn", 7, proj=3), {"rnn.l0.projected": [reads("fc.weight")]}),
    ),
    Architecture(
        "first_state",
        FirstState,
        lambda b, t: (_packed(b, t), torch.randn(b, 2)),
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "dict_argument",
        DictArgument,
        lambda b, t: ({"x": features(b, t), "ids": torch.arange(b)},),
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "keywords",
        Keywords,
        lambda b, t: {"words": tokens(b, t), "numbers": features(b, t, 2), "mode": "mean", "scale": 0.5},
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "named_tuple_argument",
        NamedTupleArgument,
        lambda b, t: Batch(features(b, t), lengths_of(b, t)),
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "dataclass_argument",
        DataclassArgument,
        lambda b, t: Sample(features(b, t), "a sample"),
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "list_argument",
        ListArgument,
        _sequences,
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
    ),
]
