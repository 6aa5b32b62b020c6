"""Cells written by hand, from Linear layers or bare parameters."""

from __future__ import annotations

import torch
from torch import nn

from ..architecture import HAND, Architecture, features, gate_rows, reads


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


ARCHITECTURES = [
    Architecture(
        "hand_lstm",
        HandLSTM,
        features,
        {HAND: [reads("gates.weight", 1, 5), reads("fc.weight")]},
        owns={HAND: [gate_rows("gates.weight", 6, 4), gate_rows("gates.bias", 6, 4)]},
    ),
    Architecture(
        "hand_cell_model",
        HandCellModel,
        features,
        {HAND: [reads("rnn.h2h.weight"), reads("fc.weight")]},
        owns={HAND: [gate_rows(f"rnn.{p}", 6, 4) for p in ("x2h.weight", "x2h.bias", "h2h.weight")]},
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
                gate_rows("gates.weight", 6, 2),
                gate_rows("gates.bias", 6, 2),
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
        owns={HAND: [gate_rows("W", 6, 4, 1), gate_rows("U", 6, 4, 1), gate_rows("bias", 6, 4)]},
    ),
]
