"""Python loops over time: torch's cells, hand-written cells, cells made of bare parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sparsernn.structure.cells import Cell, register_cell

from ..architecture import HAND, Architecture, Read, cell, features, lengths_of, merge, reads


class LSTMCellLoop(nn.Module):
    def __init__(self, input_size=5, hidden_size=7):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = nn.LSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, 3)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden_size, dtype=x.dtype)
        c = torch.zeros(x.size(0), self.hidden_size, dtype=x.dtype)
        outputs = []
        for x_t in x.unbind(1):
            h, c = self.cell(x_t, (h, c))
            outputs.append(h)
        return self.fc(torch.stack(outputs, dim=1))


class StackedCells(nn.Module):
    """Cells of different widths in a module list, first state left to the cell, dropout between."""

    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList([nn.GRUCell(5, 6), nn.GRUCell(6, 8)])
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        states = [None] * len(self.cells)
        for t in range(x.size(1)):
            y = x[:, t]
            for n, one in enumerate(self.cells):
                states[n] = one(y, states[n])
                y = self.drop(states[n])
        return self.fc(y)


class BothWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.forwards = nn.RNNCell(5, 6)
        self.backwards = nn.RNNCell(5, 6, nonlinearity="relu", bias=False)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        steps = list(x.transpose(0, 1))
        ahead, back = [], []
        h = g = None
        for x_t in steps:
            h = self.forwards(x_t, h)
            ahead.append(h)
        for x_t in reversed(steps):
            g = self.backwards(x_t, g)
            back.insert(0, g)
        both = torch.cat([torch.stack(ahead), torch.stack(back)], dim=-1)
        return self.fc(both).transpose(0, 1)


class Preallocated(nn.Module):
    """Outputs written into a tensor made beforehand."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(5, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        b, steps, _ = x.shape
        out = x.new_zeros(b, steps, 7)
        h = x.new_zeros(b, 7)
        for t in range(steps):
            h = self.cell(x[:, t], h)
            out[:, t] = h
        return self.fc(out)


class MaskedLoop(nn.Module):
    """Finished sequences keep their state: once by where, once by products with a mask."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(5, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x, lengths):
        h = c = x.new_zeros(x.size(0), 7)
        for t in range(x.size(1)):
            h_new, c_new = self.cell(x[:, t], (h, c))
            on = (t < lengths).unsqueeze(1)
            h = torch.where(on, h_new, h)
            m = on.to(x.dtype)
            c = m * c_new + (1 - m) * c
        return self.fc(h)


class LearnedCellState(nn.Module):
    def __init__(self):
        super().__init__()
        self.h0 = nn.Parameter(torch.zeros(7))
        self.c0 = nn.Parameter(torch.zeros(1, 7))
        self.cell = nn.LSTMCell(5, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        b = x.shape[0]
        state = (self.h0.unsqueeze(0).repeat(b, 1), self.c0.expand(b, 7))
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.fc(state[0])


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
            h, c = state = self.rnn(x[:, t], state)
            outs.append(self.fc(h))
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


class MinGRU(nn.Module):
    """Gates from the input alone (arXiv 2410.01201), declared through the registry."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.to_z = nn.Linear(input_size, hidden_size)
        self.to_h = nn.Linear(input_size, hidden_size)

    def forward(self, x):
        z, candidate = torch.sigmoid(self.to_z(x)), self.to_h(x)
        h, outs = x.new_zeros(x.size(0), candidate.size(-1)), []
        for t in range(x.size(1)):
            h = (1 - z[:, t]) * h + z[:, t] * candidate[:, t]
            outs.append(h)
        return torch.stack(outs, 1)


register_cell(
    MinGRU,
    Cell("MinGRU", ("z", "h"), ih=("to_z.weight", "to_h.weight"), hh=(), bias=("to_z.bias", "to_h.bias")),
)


class MinGRUModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([MinGRU(5, 6), MinGRU(6, 8)])
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.fc(x)


class RegisteredCell(nn.Module):
    """An Elman cell of two Linears, declared through the registry."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.i2h = nn.Linear(input_size, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x, h):
        return torch.tanh(self.i2h(x) + self.h2h(h))


register_cell(RegisteredCell, Cell("Elman", ("h",), ih=("i2h.weight",), hh=("h2h.weight",), bias=("i2h.bias",)))


class RegisteredModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = RegisteredCell(5, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        h = x.new_zeros(x.size(0), 7)
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
        return self.fc(F.dropout(h, 0.5, self.training))


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
    Architecture("lstm_cell_loop", LSTMCellLoop, features, merge(cell("cell"), {"cell": [reads("fc.weight")]})),
    Architecture(
        "stacked_cells",
        StackedCells,
        features,
        merge(
            cell("cells.0"),
            {"cells.0": [reads("cells.1.weight_ih")]},
            cell("cells.1"),
            {"cells.1": [reads("fc.weight")]},
        ),
    ),
    Architecture(
        "both_ways",
        BothWays,
        features,
        merge(
            cell("forwards"),
            cell("backwards"),
            {"forwards": [reads("fc.weight")], "backwards": [reads("fc.weight", 1, 6)]},
        ),
    ),
    Architecture("preallocated", Preallocated, features, merge(cell("cell"), {"cell": [reads("fc.weight")]})),
    Architecture(
        "masked_loop",
        MaskedLoop,
        lambda b, t: (features(b, t), lengths_of(b, t)),
        merge(cell("cell"), {"cell": [reads("fc.weight")]}),
    ),
    Architecture("learned_cell_state", LearnedCellState, features, merge(cell("cell"), {"cell": [reads("fc.weight")]})),
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
        "min_gru",
        MinGRUModel,
        features,
        {
            "layers.0": [reads("layers.1.to_z.weight"), reads("layers.1.to_h.weight")],
            "layers.1": [reads("fc.weight")],
        },
    ),
    Architecture(
        "registered_cell",
        RegisteredModel,
        features,
        {"cell": [reads("cell.h2h.weight"), reads("fc.weight")]},
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
