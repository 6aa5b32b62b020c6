"""Loops that look back at themselves, and what stands round a recurrent layer without being recurrent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, cell, features, inside, merge, reads, tie


class OwnHistory(nn.Module):
    """A cell that attends to all its earlier states (LSTMN, arXiv 1601.06733), of which the first is zero."""

    def __init__(self, hidden=7):
        super().__init__()
        self.cell, self.fc = nn.LSTMCell(5, hidden), nn.Linear(hidden, 2)
        self.of_states, self.of_inputs, self.score = nn.Linear(hidden, 4), nn.Linear(5, 4), nn.Linear(4, 1, bias=False)

    def forward(self, x):
        start = x.new_zeros(x.size(0), self.cell.hidden_size)
        hidden, cells = [start], [start]
        for t in range(x.size(1)):
            h, c = torch.stack(hidden, 1), torch.stack(cells, 1)
            scores = self.score(torch.tanh(self.of_states(h) + self.of_inputs(x[:, t]).unsqueeze(1)))
            weights = scores.softmax(1)
            h, c = self.cell(x[:, t], ((weights * h).sum(1), (weights * c).sum(1)))
            hidden.append(h)
            cells.append(c)
        return self.fc(torch.stack(hidden[1:], 1))


class HighwayBefore(nn.Module):
    """A highway layer (arXiv 1505.00387) on features: gated, but nothing comes back to it."""

    def __init__(self):
        super().__init__()
        self.features, self.gate, self.change = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.rnn, self.fc = nn.LSTM(6, 7, batch_first=True), nn.Linear(7, 3)

    def forward(self, x):
        z = torch.tanh(self.features(x))
        t = torch.sigmoid(self.gate(z))
        return self.fc(self.rnn(t * F.relu(self.change(z)) + (1 - t) * z)[0])


class GaussianPolicy(nn.Module):
    """A recurrent actor whose state is reset where an episode ends; distributions check their arguments by value."""

    def __init__(self, hidden=6):
        super().__init__()
        self.cell, self.value = nn.LSTMCell(5, hidden), nn.Linear(hidden, 1)
        self.mean, self.log_std = nn.Linear(hidden, 2), nn.Parameter(torch.zeros(2))

    def forward(self, x, done):
        h = c = x.new_zeros(x.size(0), self.cell.hidden_size)
        found, values = [], []
        for t in range(x.size(1)):
            alive = (1 - done[:, t]).unsqueeze(-1)
            h, c = self.cell(x[:, t], (h * alive, c * alive))
            policy = torch.distributions.Normal(self.mean(h), self.log_std.exp())
            found.append(policy.log_prob(torch.full_like(policy.mean, 0.3)).sum(-1))
            values.append(self.value(h).squeeze(-1))
        return torch.stack(found, 1), torch.stack(values, 1)


class Pointer(nn.Module):
    """A pointer network (arXiv 1506.03134): the decoder's input is the element that it chose last."""

    def __init__(self, hidden=6):
        super().__init__()
        self.encoder, self.cell = nn.LSTM(5, hidden, batch_first=True), nn.LSTMCell(5, hidden)
        self.keys, self.query, self.score = nn.Linear(hidden, 4), nn.Linear(hidden, 4), nn.Linear(4, 1)
        self.first = nn.Parameter(torch.randn(5))

    def forward(self, x):
        memory, (h, c) = self.encoder(x)
        h, c, chosen = h[0], c[0], self.first.expand(x.size(0), -1)
        taken, scores = torch.zeros(x.shape[:2], dtype=torch.bool), []
        for _ in range(x.size(1)):
            h, c = self.cell(chosen, (h, c))
            score = self.score(torch.tanh(self.keys(memory) + self.query(h).unsqueeze(1))).squeeze(-1)
            score = score.masked_fill(taken, -1e4)
            place = score.argmax(-1)
            taken = taken.scatter(1, place.unsqueeze(1), True)
            chosen = x[torch.arange(len(x)), place]
            scores.append(score.log_softmax(-1))
        return torch.stack(scores, 1)


ARCHITECTURES = [
    Architecture(
        "own_history",
        OwnHistory,
        features,
        merge(cell("cell"), {"cell": [reads("of_states.weight"), reads("fc.weight")]}),
    ),
    Architecture("highway_before", HighwayBefore, features, merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]})),
    Architecture(
        "gaussian_policy",
        GaussianPolicy,
        lambda b, t: (torch.randn(b, t, 5), (torch.rand(b, t) < 0.3).float()),
        merge(cell("cell"), {"cell": [reads("mean.weight"), reads("value.weight")]}),
    ),
    Architecture(
        "pointer",
        Pointer,
        features,
        tie(
            merge(
                inside("encoder", 6),
                {"encoder.l0": [reads("keys.weight")]},
                cell("cell"),
                {"cell": [reads("query.weight")]},
            ),
            "encoder.l0",
            "cell",
        ),
    ),
]
