"""Learned weights along time, the same for every unit: mixing, offsets, pooling."""

from __future__ import annotations

import torch
from torch import nn

from ..architecture import HAND, Architecture, features, inside, merge, reads

STEPS = 6
FIXED = ((3, STEPS), (1, STEPS), (4, STEPS))


class TimeMixing(nn.Module):
    """A linear layer along time between two along the units, with a residual (mixer, N-BEATS and TSMixer heads)."""

    def __init__(self, bias=True):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.mix = nn.Linear(STEPS, STEPS, bias=bias)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(out + torch.relu(self.mix(out.transpose(1, 2))).transpose(1, 2))


class Horizon(nn.Module):
    """Forecast: from the steps seen to the steps wanted, then from units to values."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, bidirectional=True, batch_first=True)
        self.horizon = nn.Linear(STEPS, 4)
        self.fc = nn.Linear(12, 2)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(self.horizon(out.permute(0, 2, 1)).permute(0, 2, 1))


class TimePooling(nn.Module):
    """One learned weight a step, normalised, by einsum."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(5, 7, batch_first=True)
        self.weight = nn.Parameter(torch.randn(STEPS))
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(torch.einsum("bth,t->bh", out, self.weight))


class StepOffsets(nn.Module):
    """One learned number a step, added to all units and multiplied with them."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.offset = nn.Parameter(torch.randn(STEPS, 1))
        self.scale = nn.Parameter(torch.randn(1, STEPS, 1))
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(torch.tanh(out * self.scale + self.offset))


class SharedOffsetCell(nn.Module):
    """A cell whose units share one learned offset: their value is not zero where their rows are."""

    def __init__(self):
        super().__init__()
        self.x2h = nn.Linear(5, 6, bias=False)
        self.h2h = nn.Linear(6, 6, bias=False)
        self.offset = nn.Parameter(torch.tensor(0.5))
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.h2h.in_features)
        for x_t in x.unbind(1):
            h = torch.tanh(self.x2h(x_t) + self.h2h(h) + self.offset)
        return self.fc(h)


EITHER_DIRECTION = merge(
    inside("rnn", 6, bidirectional=True),
    {"rnn.l0": [reads("fc.weight")], "rnn.l0_reverse": [reads("fc.weight", 1, 6)]},
)

ARCHITECTURES = [
    *(
        Architecture(
            f"time_mixing_{name}",
            lambda bias=bias: TimeMixing(bias),
            features,
            merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
            sizes=FIXED,
        )
        for name, bias in (("bias", True), ("no_bias", False))
    ),
    Architecture("horizon", Horizon, features, EITHER_DIRECTION, sizes=FIXED),
    Architecture(
        "time_pooling",
        TimePooling,
        features,
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
        sizes=FIXED,
    ),
    Architecture(
        "step_offsets",
        StepOffsets,
        features,
        merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]}),
        sizes=FIXED,
    ),
    Architecture(
        "shared_offset_cell",
        SharedOffsetCell,
        features,
        {HAND: [reads("h2h.weight"), reads("fc.weight")]},
        owns={HAND: [reads("x2h.weight", 0), reads("h2h.weight", 0)]},
    ),
]
