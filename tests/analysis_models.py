"""Small models with known dead units, constant gates and zeros, for the tests of the analysis."""

import torch
from torch import nn


class Tagger(nn.Module):
    """Embedding, a recurrent module, a Linear head on every step."""

    def __init__(self, cell=nn.LSTM, vocabulary=11, width=5, hidden=6, **options):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.rnn = cell(width, hidden, **options)
        read = (options.get("proj_size") or hidden) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(read, vocabulary)

    def forward(self, tokens):
        return self.head(self.rnn(self.embedding(tokens))[0])


TOKENS = torch.arange(28).reshape(7, 4) % 11  # 7 steps, 4 sequences


def tagger(*args, seed=0, **options):
    torch.manual_seed(seed)
    return Tagger(*args, **options)


@torch.no_grad()
def kill_units(model, units, hidden=6):
    """Zero what reads `units` of a one-layer Tagger, and what they are computed from."""
    for weight in (model.rnn.weight_ih_l0, model.rnn.weight_hh_l0, model.rnn.bias_ih_l0, model.rnn.bias_hh_l0):
        for gate in range(len(weight) // hidden):
            weight[[gate * hidden + k for k in units]] = 0
    model.rnn.weight_hh_l0[:, units] = 0
    model.head.weight[:, units] = 0


@torch.no_grad()
def make_constant(model, gate, units, hidden=6):
    """Zero the rows of gate number `gate` in weight_ih and weight_hh."""
    rows = [gate * hidden + k for k in units]
    model.rnn.weight_ih_l0[rows] = 0
    model.rnn.weight_hh_l0[rows] = 0
