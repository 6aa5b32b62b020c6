"""First states: learned, made from hidden_size or from constants, kept on the module."""

from __future__ import annotations

import torch
from torch import nn

from ..architecture import Architecture, features, inside, merge, reads


class LearnedState(nn.Module):
    def __init__(self):
        super().__init__()
        self.h0 = nn.Parameter(torch.zeros(2, 1, 7))
        self.c0 = nn.Parameter(torch.zeros(2, 1, 7))
        self.rnn = nn.LSTM(5, 7, num_layers=2, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        b = x.size(0)
        state = (self.h0.expand(-1, b, -1).contiguous(), self.c0.repeat(1, b, 1))
        return self.fc(self.rnn(x, state)[0])


class StateFromHiddenSize(nn.Module):
    def __init__(self, input_size=5, hidden_size=8, num_layers=2):
        super().__init__()
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)
        self.fc = nn.Linear(hidden_size, 2)

    def forward(self, x):
        h0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size, dtype=x.dtype, device=x.device)
        c0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size).to(x)
        out, _ = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


class StateOfOnes(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(5, 7, bidirectional=True)
        self.fc = nn.Linear(14, 2)

    def forward(self, x):
        x = x.permute(1, 0, 2)
        out, _ = self.gru(x, x.new_ones(2, x.shape[1], 7) * 0.5)
        return self.fc(out).permute(1, 0, 2)


class StateKeptOnSelf(nn.Module):
    def __init__(self, hidden_dim=7):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.rnn = nn.RNN(5, hidden_dim, batch_first=True)
        self.fc = nn.Linear(hidden_dim, 2)
        self.hidden = None

    def init_hidden(self, batch_size):
        weight = next(self.parameters()).data
        return weight.new(1, batch_size, self.hidden_dim).zero_()

    def forward(self, x):
        self.hidden = self.init_hidden(len(x))
        out, _ = self.rnn(x, self.hidden)
        return self.fc(out)


class StatesInAList(nn.Module):
    """torch takes [h, c] as well as (h, c); forecasters that repeat each state for their samples write the list."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, num_layers=2, batch_first=True)
        self.fc = nn.Linear(7, 2)

    def forward(self, x):
        state = [torch.ones(2, x.size(0), 7).to(x) * value for value in (0.5, -0.3)]
        return self.fc(self.rnn(x, state)[0])


ARCHITECTURES = [
    Architecture("learned_state", LearnedState, features, merge(inside("rnn", 7, 2), {"rnn.l1": [reads("fc.weight")]})),
    Architecture(
        "state_from_hidden_size",
        StateFromHiddenSize,
        features,
        merge(inside("lstm", 8, 2), {"lstm.l1": [reads("fc.weight")]}),
    ),
    Architecture(
        "states_in_a_list", StatesInAList, features, merge(inside("rnn", 7, 2), {"rnn.l1": [reads("fc.weight")]})
    ),
    Architecture(
        "state_of_ones",
        StateOfOnes,
        features,
        merge(
            inside("gru", 7, bidirectional=True),
            {"gru.l0": [reads("fc.weight")], "gru.l0_reverse": [reads("fc.weight", 1, 7)]},
        ),
    ),
    Architecture(
        "state_kept_on_self", StateKeptOnSelf, features, merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]})
    ),
]
