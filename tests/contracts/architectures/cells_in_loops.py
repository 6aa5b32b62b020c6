"""Python loops over torch's cells."""

from __future__ import annotations

import torch
from torch import nn

from ..architecture import Architecture, cell, features, lengths_of, merge, reads


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
]
