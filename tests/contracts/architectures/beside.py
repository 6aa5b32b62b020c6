"""Recurrent layers beside one another: directions, branches, sharing, folded time."""

from __future__ import annotations

import torch
from torch import nn

from ..architecture import Architecture, Read, features, inside, merge, reads, tie


class SharedLayer(nn.Module):
    """One layer called twice: its input columns read its own units and the projection's channels."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(5, 7)
        self.rnn = nn.GRU(7, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        y = self.proj(x)
        for _ in range(2):
            y, _ = self.rnn(y)
        return self.fc(y)


class SharedOnRawInput(nn.Module):
    """As SharedLayer, but the first call reads the model's own input through the same columns."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 5, batch_first=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        y, _ = self.rnn(y)
        return self.fc(y)


class TwoBackwards(nn.Module):
    """A second layer that reads the first one's output backwards in time."""

    def __init__(self):
        super().__init__()
        self.a = nn.LSTM(5, 6, batch_first=True)
        self.b = nn.LSTM(6, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        y, _ = self.a(x)
        z, _ = self.b(y.flip(1))
        return self.fc(z.flip([1]))


class SumOfDirections(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.rnn = nn.GRU(5, hidden, bidirectional=True, batch_first=True)
        self.norm = nn.BatchNorm1d(hidden)
        self.fc = nn.Linear(hidden, 4)

    def forward(self, x):
        y, _ = self.rnn(x)
        y = y[:, :, : self.hidden] + y[:, :, self.hidden :]
        b, t, h = y.shape
        y = self.norm(y.reshape(b * t, h)).view(b, t, h)
        return self.fc(y).log_softmax(-1)


class DirectionsByView(nn.Module):
    """Directions parted by a view, as in the documentation of torch.nn.LSTM, and averaged."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, bidirectional=True)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y, _ = self.rnn(x.transpose(0, 1))
        y = y.view(y.size(0), y.size(1), 2, -1).mean(2)
        return self.fc(y)


class StackedMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.GRU(5, 7, batch_first=True)
        self.right = nn.RNN(5, 7, batch_first=True, nonlinearity="relu")
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        both = torch.stack([self.left(x)[0], self.right(x)[0]], dim=0)
        return self.fc(both.mean(dim=0))


class Pyramid(nn.Module):
    """Two consecutive steps become one, as in Listen, Attend and Spell."""

    def __init__(self):
        super().__init__()
        self.low = nn.LSTM(5, 4, bidirectional=True, batch_first=True)
        self.high = nn.LSTM(16, 6, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        y, _ = self.low(x)
        b, t, f = y.shape
        y = y[:, : t - t % 2].contiguous().view(b, t // 2, 2 * f)
        return self.fc(self.high(y)[0])


class Dilated(nn.Module):
    """Every second step goes on: time folded into the batch and back."""

    def __init__(self):
        super().__init__()
        self.a = nn.GRU(5, 6, batch_first=True)
        self.b = nn.GRU(6, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        y, _ = self.a(x)
        b, t, f = y.shape
        y = y.reshape(b, t // 2, 2, f).transpose(1, 2).reshape(b * 2, t // 2, f)
        z, _ = self.b(y)
        z = z.reshape(b, 2, t // 2, -1).transpose(1, 2).reshape(b, t, -1)
        return self.fc(z)


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.fast = nn.GRU(5, 6, batch_first=True)
        self.slow = nn.LSTM(5, 6, num_layers=2, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x, slow: bool = False):
        if slow:
            y, _ = self.slow(x)
        else:
            y, _ = self.fast(x)
        return self.fc(y)


def _folded(k: int) -> list[int]:
    return [k % 6]


ARCHITECTURES = [
    Architecture(
        "shared_layer",
        SharedLayer,
        features,
        merge(inside("rnn", 7), {"rnn.l0": [reads("rnn.weight_ih_l0"), reads("fc.weight")]}),
    ),
    Architecture(
        "shared_on_raw_input",
        SharedOnRawInput,
        features,
        merge(inside("rnn", 5), {"rnn.l0": [reads("rnn.weight_ih_l0"), reads("fc.weight")]}),
        either=frozenset({"rnn.l0"}),
    ),
    Architecture(
        "two_backwards",
        TwoBackwards,
        features,
        merge(inside("a", 6), {"a.l0": [reads("b.weight_ih_l0")]}, inside("b", 7), {"b.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "sum_of_directions",
        SumOfDirections,
        features,
        tie(
            merge(inside("rnn", 6, bidirectional=True), {"rnn.l0": [reads("fc.weight")]}),
            "rnn.l0",
            "rnn.l0_reverse",
        ),
    ),
    Architecture(
        "directions_by_view",
        DirectionsByView,
        features,
        tie(
            merge(inside("rnn", 6, bidirectional=True), {"rnn.l0": [Read("fc.weight", 1, _folded)]}),
            "rnn.l0",
            "rnn.l0_reverse",
        ),
    ),
    Architecture(
        "stacked_mean",
        StackedMean,
        features,
        tie(merge(inside("left", 7), inside("right", 7), {"left.l0": [reads("fc.weight")]}), "left.l0", "right.l0"),
    ),
    Architecture(
        "pyramid",
        Pyramid,
        features,
        merge(
            inside("low", 4, bidirectional=True),
            {
                "low.l0": [reads(f"high.weight_ih_l0{end}", 1, 0, 8) for end in ("", "_reverse")],
                "low.l0_reverse": [reads(f"high.weight_ih_l0{end}", 1, 4, 12) for end in ("", "_reverse")],
            },
            inside("high", 6, bidirectional=True),
            {"high.l0": [reads("fc.weight")], "high.l0_reverse": [reads("fc.weight", 1, 6)]},
        ),
        sizes=((3, 6), (1, 5), (4, 8)),
    ),
    Architecture(
        "dilated",
        Dilated,
        features,
        merge(inside("a", 6), {"a.l0": [reads("b.weight_ih_l0")]}, inside("b", 7), {"b.l0": [reads("fc.weight")]}),
        sizes=((3, 6), (1, 4), (2, 8)),
    ),
    Architecture(
        "two_branches",
        TwoBranches,
        lambda b, t: [(features(b, t),), {"x": features(b, t), "slow": True}],
        # One column of the head reads a unit of either branch, so it can only go with both.
        tie(
            merge(inside("fast", 6), inside("slow", 6, 2), {"fast.l0": [reads("fc.weight")]}),
            "fast.l0",
            "slow.l1",
        ),
    ),
]
