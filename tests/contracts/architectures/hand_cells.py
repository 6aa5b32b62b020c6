"""Cells written by hand, from Linear layers, bare parameters or convolutions."""

from __future__ import annotations

import torch
from torch import nn

from ..architecture import HAND, Architecture, Read, features, merge, reads


class HandLSTM(nn.Module):
    """Four gates from one Linear over [x, h]."""

    def __init__(self, input_size=5, hidden_size=6):
        super().__init__()
        self.hidden_size = hidden_size
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)
        self.fc = nn.Linear(hidden_size, 3)

    def forward(self, x):
        h = x.new_zeros(x.size(0), self.hidden_size)
        c = torch.zeros_like(h)
        for t in range(x.size(1)):
            i, f, g, o = self.gates(torch.cat([x[:, t], h], dim=1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.fc(h)


class HandLSTMCell(nn.Module):
    """x2h and h2h, gates by slices."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.x2h = nn.Linear(input_size, 4 * hidden_size)
        self.h2h = nn.Linear(hidden_size, 4 * hidden_size, bias=False)

    def forward(self, x, state):
        h, c = state
        n = self.hidden_size
        z = self.x2h(x) + self.h2h(h)
        i, f, o = torch.sigmoid(z[:, :n]), torch.sigmoid(z[:, n : 2 * n]), z[:, 2 * n : 3 * n].sigmoid()
        c = f * c + i * torch.tanh(z[:, -n:])
        return o * c.tanh(), c


class HandCellModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = HandLSTMCell(5, 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        state = (x.new_zeros(len(x), 6), x.new_zeros(len(x), 6))
        outs = []
        for t in range(x.size(1)):
            state = self.rnn(x[:, t], state)
            outs.append(self.fc(state[0]))
        return torch.stack(outs, 1)


class HandGRU(nn.Module):
    """One Linear a gate and side."""

    def __init__(self, hidden=6):
        super().__init__()
        self.w_r, self.w_z, self.w_n = (nn.Linear(5, hidden) for _ in range(3))
        self.u_r, self.u_z, self.u_n = (nn.Linear(hidden, hidden) for _ in range(3))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.u_r.in_features).type_as(x)
        for t in range(x.size(1)):
            r = torch.sigmoid(self.w_r(x[:, t]) + self.u_r(h))
            z = torch.sigmoid(self.w_z(x[:, t]) + self.u_z(h))
            n = torch.tanh(self.w_n(x[:, t]) + r * self.u_n(h))
            h = (1 - z) * n + z * h
        return self.fc(h)


class ResetBefore(nn.Module):
    """The first GRU, whose reset gate multiplies the state before the product."""

    def __init__(self, hidden=6):
        super().__init__()
        self.gates = nn.Linear(5 + hidden, 2 * hidden)
        self.candidate = nn.Linear(5 + hidden, hidden)
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        h = x.new_zeros(x.size(0), 6)
        for x_t in x.unbind(dim=1):
            z, r = torch.split(torch.sigmoid(self.gates(torch.cat((x_t, h), -1))), 6, dim=-1)
            n = torch.tanh(self.candidate(torch.cat((x_t, r * h), -1)))
            h = torch.lerp(n, h, z)
        return self.fc(h)


class BareLSTM(nn.Module):
    """As in many tutorials: x @ W + h @ U + b with bare parameters, inputs along the rows."""

    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.W = nn.Parameter(torch.randn(5, 4 * hidden))
        self.U = nn.Parameter(torch.randn(hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        h_t = torch.zeros(x.size(0), self.hidden).to(x)
        c_t = torch.zeros(x.size(0), self.hidden).to(x)
        seq = []
        n = self.hidden
        for t in range(x.size(1)):
            gates = x[:, t, :] @ self.W + h_t @ self.U + self.bias
            i_t, f_t = torch.sigmoid(gates[:, :n]), torch.sigmoid(gates[:, n : n * 2])
            g_t, o_t = torch.tanh(gates[:, n * 2 : n * 3]), torch.sigmoid(gates[:, n * 3 :])
            c_t = f_t * c_t + i_t * g_t
            h_t = o_t * torch.tanh(c_t)
            seq.append(h_t.unsqueeze(0))
        return self.fc(torch.cat(seq, dim=0).transpose(0, 1).contiguous())


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


def _gates(parameter: str, hidden: int, gates: int, axis: int = 0) -> Read:
    return Read(parameter, axis, lambda k: [g * hidden + k for g in range(gates)])


ARCHITECTURES = [
    Architecture(
        "hand_lstm",
        HandLSTM,
        features,
        {HAND: [reads("gates.weight", 1, 5), reads("fc.weight")]},
        owns={HAND: [_gates("gates.weight", 6, 4), _gates("gates.bias", 6, 4)]},
    ),
    Architecture(
        "hand_cell_model",
        HandCellModel,
        features,
        {HAND: [reads("rnn.h2h.weight"), reads("fc.weight")]},
        owns={HAND: [_gates(f"rnn.{p}", 6, 4) for p in ("x2h.weight", "x2h.bias", "h2h.weight")]},
    ),
    Architecture(
        "hand_gru",
        HandGRU,
        features,
        {HAND: [reads("u_r.weight"), reads("u_z.weight"), reads("u_n.weight"), reads("fc.weight")]},
        owns={HAND: [reads(f"{w}_{g}.{p}", 0) for w in "wu" for g in "rzn" for p in ("weight", "bias")]},
    ),
    Architecture(
        "reset_before",
        ResetBefore,
        features,
        {HAND: [reads("gates.weight", 1, 5), reads("candidate.weight", 1, 5), reads("fc.weight")]},
        owns={
            HAND: [
                _gates("gates.weight", 6, 2),
                _gates("gates.bias", 6, 2),
                reads("candidate.weight", 0),
                reads("candidate.bias", 0),
            ]
        },
    ),
    Architecture(
        "bare_lstm",
        BareLSTM,
        features,
        {HAND: [reads("U", 0), reads("fc.weight")]},
        owns={HAND: [_gates("W", 6, 4, 1), _gates("U", 6, 4, 1), _gates("bias", 6, 4)]},
    ),
    Architecture(
        "peephole",
        Peephole,
        features,
        {HAND: [reads("h2h.weight"), reads("fc.weight")]},
        owns={
            HAND: [
                *(_gates(p, 6, 4) for p in ("x2h.weight", "x2h.bias", "h2h.weight", "h2h.bias")),
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
        "conv_lstm",
        ConvLSTM,
        lambda b, t: torch.randn(b, t, 2, 4, 3),
        {HAND: [reads("conv.weight", 1, 2), reads("head.weight")]},
        owns={HAND: [_gates("conv.weight", 4, 4), _gates("conv.bias", 4, 4)]},
        either=frozenset({HAND}),
    ),
]
