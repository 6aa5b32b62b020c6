"""Cells of the literature written by hand: peepholes, decays, norms, depth, convolutions."""

from __future__ import annotations

import torch
from torch import nn

from ..architecture import HAND, Architecture, features, gate_rows, merge, reads


class Peephole(nn.Module):
    """Peepholes are one weight a unit: the unit's own."""

    def __init__(self, hidden=6):
        super().__init__()
        self.x2h = nn.Linear(5, 4 * hidden)
        self.h2h = nn.Linear(hidden, 4 * hidden)
        self.peep = nn.Parameter(torch.randn(3, hidden))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        h = c = x.new_zeros(x.size(0), 6)
        for t in range(x.size(1)):
            i, f, g, o = (self.x2h(x[:, t]) + self.h2h(h)).split(6, dim=1)
            i, f = torch.sigmoid(i + self.peep[0] * c), torch.sigmoid(f + self.peep[1] * c)
            c = f * c + i * torch.tanh(g)
            h = torch.sigmoid(o + self.peep[2] * c) * torch.tanh(c)
        return self.fc(h)


class DecayCell(nn.Module):
    """A decay for each unit from a bare parameter, behind a function that does not keep zero."""

    def __init__(self, decay):
        super().__init__()
        self.decay = decay
        self.x2h, self.h2h, self.fc = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.theta = nn.Parameter(torch.randn(6))

    def forward(self, x):
        h = x.new_zeros(len(x), self.x2h.out_features)
        for t in range(x.shape[1]):
            a = self.decay(self.theta)
            h = a * h + (1 - a) * torch.tanh(self.x2h(x[:, t]) + self.h2h(h))
        return self.fc(h)


class LayerNormCell(nn.Module):
    """A cell that normalises its gates: its units can't go one by one."""

    def __init__(self, hidden=6):
        super().__init__()
        self.first = nn.GRU(5, 4, batch_first=True)
        self.x2h = nn.Linear(4, hidden)
        self.h2h = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        x, _ = self.first(x)
        h = x.new_zeros(x.size(0), 6)
        for t in range(x.size(1)):
            h = torch.tanh(self.norm(self.x2h(x[:, t]) + self.h2h(h)))
        return self.fc(h)


class HandHighway(nn.Module):
    """A recurrent highway layer of depth two, written by hand (arXiv 1607.03474, equations 6 to 9)."""

    def __init__(self, hidden=6):
        super().__init__()
        self.x_h, self.x_t = nn.Linear(5, hidden, bias=False), nn.Linear(5, hidden, bias=False)
        self.r_h = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2))
        self.r_t = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        s = x.new_zeros(x.size(0), 6)
        for t in range(x.size(1)):
            for depth, (r_h, r_t) in enumerate(zip(self.r_h, self.r_t)):
                h, gate = r_h(s), r_t(s)
                if depth == 0:
                    h, gate = h + self.x_h(x[:, t]), gate + self.x_t(x[:, t])
                gate = torch.sigmoid(gate)
                s = torch.tanh(h) * gate + s * (1 - gate)
        return self.fc(s)


class ConvLSTM(nn.Module):
    """Units are channels of feature maps."""

    def __init__(self, channels=4):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(2 + channels, 4 * channels, 3, padding=1)
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, x):
        b, steps, _, rows, columns = x.shape
        h = c = x.new_zeros(b, self.channels, rows, columns)
        for t in range(steps):
            i, f, o, g = torch.split(self.conv(torch.cat([x[:, t], h], 1)), self.channels, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


ARCHITECTURES = [
    Architecture(
        "peephole",
        Peephole,
        features,
        {HAND: [reads("h2h.weight"), reads("fc.weight")]},
        owns={
            HAND: [
                *(gate_rows(p, 6, 4) for p in ("x2h.weight", "x2h.bias", "h2h.weight", "h2h.bias")),
                reads("peep", 1),
            ]
        },
        literal=True,
    ),
    *(
        Architecture(
            name,
            lambda decay=decay: DecayCell(decay),
            features,
            {HAND: [reads("h2h.weight"), reads("fc.weight")]},
            owns={HAND: [reads(p, 0) for p in ("x2h.weight", "x2h.bias", "h2h.weight", "h2h.bias", "theta")]},
        )
        for name, decay in (
            ("decay_cell", torch.sigmoid),
            ("plain_decay_cell", torch.clone),
            ("double_exponential_cell", lambda theta: torch.exp(-torch.exp(theta))),
        )
    ),
    Architecture(
        "layer_norm_cell",
        LayerNormCell,
        features,
        merge({"first.l0": [reads("first.weight_hh_l0"), reads("x2h.weight")]}),
        kept={HAND: "layer_?norm"},
    ),
    Architecture(
        "hand_highway",
        HandHighway,
        features,
        {HAND: [*(reads(f"r_{side}.{n}.weight") for side in "ht" for n in (0, 1)), reads("fc.weight")]},
        owns={
            HAND: [
                reads("x_h.weight", 0),
                reads("x_t.weight", 0),
                *(reads(f"r_{side}.{n}.{p}", 0) for side in "ht" for n in (0, 1) for p in ("weight", "bias")),
            ]
        },
    ),
    Architecture(
        "conv_lstm",
        ConvLSTM,
        lambda b, t: torch.randn(b, t, 2, 4, 3),
        {HAND: [reads("conv.weight", 1, 2), reads("head.weight")]},
        owns={HAND: [gate_rows("conv.weight", 4, 4), gate_rows("conv.bias", 4, 4)]},
        either=frozenset({HAND}),
    ),
]
