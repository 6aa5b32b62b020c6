"""Recurrent layers on top of one another: stacks, skips, residual sums, projections."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from ..architecture import Architecture, features, inside, merge, reads, tie, tokens


class TakeOutput(nn.Module):
    def forward(self, result):
        return result[0]


def sequential_take_output():
    return nn.Sequential(nn.LSTM(5, 7, batch_first=True), TakeOutput(), nn.Linear(7, 4))


def sequential_mixed():
    return nn.Sequential(
        nn.Embedding(11, 6),
        nn.LSTM(6, 8, batch_first=True, bidirectional=True),
        TakeOutput(),
        nn.Dropout(0.3),
        nn.GRU(16, 7, batch_first=True),
        TakeOutput(),
        nn.Tanh(),
        nn.Linear(7, 4),
    )


class ModuleListStack(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [5, 9, 6, 8]
        self.rnns = nn.ModuleList(nn.GRU(a, b, batch_first=True) for a, b in pairwise(widths))
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        for rnn in self.rnns:
            x, _ = rnn(x)
            x = self.drop(torch.relu(x))
        return self.fc(x)


class ResidualStack(nn.Module):
    def __init__(self, hidden=7):
        super().__init__()
        self.proj = nn.Linear(5, hidden)
        self.layers = nn.ModuleList(nn.LSTM(hidden, hidden, batch_first=True) for _ in range(2))
        self.out = nn.Linear(hidden, 4)

    def forward(self, x):
        x = self.proj(x)
        for layer in self.layers:
            y, _ = layer(x)
            x = x + y
        return self.out(x)


class ResidualFromSecond(nn.Module):
    """Only equal widths are added, so the first layer's units are tied to the second's and not to the input."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(5, 7)
        self.second = nn.GRU(7, 7)
        self.out = nn.Linear(7, 3)

    def forward(self, x):
        a, _ = self.first(x.transpose(0, 1))
        b, _ = self.second(a)
        return self.out((a + b) / 2).transpose(0, 1)


class SkipConcat(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn1 = nn.LSTM(5, 6, batch_first=True)
        self.rnn2 = nn.LSTM(5 + 6, 7, batch_first=True)
        self.fc = nn.Linear(5 + 6 + 7, 4)

    def forward(self, x):
        h1, _ = self.rnn1(x)
        h2, _ = self.rnn2(torch.cat((x, h1), dim=-1))
        return self.fc(torch.cat((x, h1, h2), dim=2))


class LayerMix(nn.Module):
    """A learned, softmax-weighted mixture of the layers, as in ELMo."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(5, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True)])
        self.scalars = nn.Parameter(torch.zeros(2))
        self.gamma = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        outs = []
        for layer in self.layers:
            x, _ = layer(x)
            outs.append(x)
        weights = torch.softmax(self.scalars, dim=0)
        mixed = sum(w * o for w, o in zip(weights, outs))
        return self.fc(self.gamma * mixed)


class ProjectedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 8, num_layers=2, proj_size=4, bidirectional=True, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.head(out)


class UnbatchedChain(nn.Module):
    """Layers without a batch axis, one sequence at a time."""

    def __init__(self):
        super().__init__()
        self.a = nn.LSTM(5, 6)
        self.b = nn.GRU(6, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, batch):
        scores = []
        for sequence in batch:
            y, _ = self.a(sequence)
            _, h = self.b(y)
            scores.append(self.fc(h.squeeze(0)))
        return torch.stack(scores)


_residual = tie(
    merge(
        inside("layers.0", 7),
        inside("layers.1", 7),
        {f"layers.{n}.l0": [reads("layers.0.weight_ih_l0"), reads("layers.1.weight_ih_l0")] for n in (0, 1)},
        {f"layers.{n}.l0": [reads("out.weight")] for n in (0, 1)},
    ),
    "layers.0.l0",
    "layers.1.l0",
)


ARCHITECTURES = [
    Architecture(
        "sequential_take_output",
        sequential_take_output,
        features,
        merge(inside("0", 7), {"0.l0": [reads("2.weight")]}),
    ),
    Architecture(
        "sequential_mixed",
        sequential_mixed,
        tokens,
        merge(
            inside("1", 8, bidirectional=True),
            {"1.l0": [reads("4.weight_ih_l0")], "1.l0_reverse": [reads("4.weight_ih_l0", 1, 8)]},
            inside("4", 7),
            {"4.l0": [reads("7.weight")]},
        ),
    ),
    Architecture(
        "module_list_stack",
        ModuleListStack,
        features,
        merge(
            *(inside(f"rnns.{n}", 0) for n in range(3)),
            {f"rnns.{n}.l0": [reads(f"rnns.{n + 1}.weight_ih_l0")] for n in range(2)},
            {"rnns.2.l0": [reads("fc.weight")]},
        ),
    ),
    Architecture(
        "residual_stack",
        ResidualStack,
        features,
        _residual,
        owns={"layers.0.l0": [reads("proj.weight", 0), reads("proj.bias", 0)]},
    ),
    Architecture(
        "residual_from_second",
        ResidualFromSecond,
        features,
        tie(
            merge(
                inside("first", 7),
                {"first.l0": [reads("second.weight_ih_l0"), reads("out.weight")]},
                inside("second", 7),
            ),
            "first.l0",
            "second.l0",
        ),
    ),
    Architecture(
        "skip_concat",
        SkipConcat,
        features,
        merge(
            inside("rnn1", 6),
            {"rnn1.l0": [reads("rnn2.weight_ih_l0", 1, 5), reads("fc.weight", 1, 5)]},
            inside("rnn2", 7),
            {"rnn2.l0": [reads("fc.weight", 1, 11)]},
        ),
    ),
    Architecture(
        "layer_mix",
        LayerMix,
        features,
        tie(
            merge(
                inside("layers.0", 6),
                {"layers.0.l0": [reads("layers.1.weight_ih_l0"), reads("fc.weight")]},
                inside("layers.1", 6),
            ),
            "layers.0.l0",
            "layers.1.l0",
        ),
    ),
    Architecture(
        "projected_lstm",
        ProjectedLSTM,
        features,
        merge(
            inside("lstm", 8, 2, True, proj=4),
            {
                "lstm.l1.projected": [reads("head.weight")],
                "lstm.l1_reverse.projected": [reads("head.weight", 1, 4)],
            },
        ),
    ),
    Architecture(
        "unbatched_chain",
        UnbatchedChain,
        features,
        merge(inside("a", 6), {"a.l0": [reads("b.weight_ih_l0")]}, inside("b", 4), {"b.l0": [reads("fc.weight")]}),
    ),
]
