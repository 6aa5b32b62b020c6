"""A user's own cells, declared through the registry."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sparsernn.structure.cells import Cell, register_cell

from ..architecture import Architecture, features, reads


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


ARCHITECTURES = [
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
]
