"""Weights used by hand: slices, products, masks, bilinear forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import HAND, Architecture, Read, features, inside, merge, reads


class BilinearHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.LSTM(5, 6, batch_first=True)
        self.b = nn.GRU(5, 7, batch_first=True)
        self.bilinear = nn.Bilinear(6, 7, 3)

    def forward(self, x):
        return self.bilinear(self.a(x)[0], self.b(x)[0])


class ScaleAndShift(nn.Module):
    """Per-unit factors that are bare parameters, and a buffer."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.scale = nn.Parameter(torch.ones(7))
        self.shift = nn.Parameter(torch.zeros(1, 1, 7))
        self.register_buffer("mean", torch.linspace(-1, 1, 7))
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc((y - self.mean) * self.scale + self.shift)


class BareWeights(nn.Module):
    """Weights used by hand: F.linear with a slice, @ with a bare parameter, a transposed weight."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, batch_first=True)
        self.wide = nn.Parameter(torch.randn(3, 10))
        self.tall = nn.Parameter(torch.randn(6, 3))
        self.lin = nn.Linear(6, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        return F.linear(y, self.wide[:, 2:8]) + y @ self.tall + torch.matmul(y, self.lin.weight.t()) + self.lin.bias


class JoinedWeights(nn.Module):
    """Two weights joined to one product, and a product by addmm."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.mu = nn.Linear(6, 2)
        self.sigma = nn.Linear(6, 2)
        self.tail = nn.Parameter(torch.randn(6, 4))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        y, _ = self.rnn(x)
        both = F.linear(y, torch.cat([self.mu.weight, self.sigma.weight]), torch.cat([self.mu.bias, self.sigma.bias]))
        return both + torch.addmm(self.bias, y.reshape(-1, 6), self.tail).view_as(both)


class MaskedWeight(nn.Module):
    """A weight times a fixed mask, as masked networks do."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.fc = nn.Linear(6, 4)
        self.register_buffer("mask", torch.tril(torch.ones(4, 6)) + torch.triu(torch.ones(4, 6), 1))

    def forward(self, x):
        return F.linear(self.rnn(x)[0], self.fc.weight * self.mask, self.fc.bias)


class Casts(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, batch_first=True)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc(y.detach().clone().to(torch.float64).type_as(x).contiguous())


class LowRankHead(nn.Module):
    """A product of two parameters is the matrix: read from the left, transposed, and beside a weight (as LoRA adds)."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, batch_first=True)
        self.u, self.v = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 3))
        self.a, self.b = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(3, 2))
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        return y @ (self.u @ self.v) + F.linear(y, self.fc.weight + 0.5 * (self.b @ self.a), self.fc.bias)


class LowRankCell(nn.Module):
    """A cell whose recurrent matrix is a product of three, and whose units meet a learned bank of states."""

    def __init__(self, hidden=6):
        super().__init__()
        self.w_in = nn.Linear(5, hidden)
        self.left, self.right = nn.Parameter(torch.randn(hidden, 2)), nn.Parameter(torch.randn(2, hidden))
        self.middle = nn.Parameter(torch.randn(2, 2))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, x):
        recurrent = self.left @ self.middle @ self.right
        h = x.new_zeros(x.size(0), self.w_in.out_features)
        for x_t in x.unbind(1):
            h = torch.tanh(self.w_in(x_t) + h @ recurrent)
        return self.fc(h)


def _one(path: str, hidden: int, *readers: Read, layers: int = 1) -> dict[str, tuple[Read, ...]]:
    return merge(inside(path, hidden, layers), {f"{path}.l{layers - 1}": readers})


ARCHITECTURES = [
    Architecture(
        "bilinear_head",
        BilinearHead,
        features,
        merge(_one("a", 6, reads("bilinear.weight", 1)), _one("b", 7, reads("bilinear.weight", 2))),
    ),
    Architecture(
        "bare_weights",
        BareWeights,
        features,
        _one("rnn", 6, reads("wide", 1, 2), reads("tall", 0), reads("lin.weight")),
        literal=True,
    ),
    Architecture(
        "joined_weights",
        JoinedWeights,
        features,
        _one("rnn", 6, reads("mu.weight"), reads("sigma.weight"), reads("tail", 0)),
        literal=True,
    ),
    Architecture(
        "low_rank_head",
        LowRankHead,
        features,
        _one("rnn", 6, reads("u", 0), reads("a"), reads("fc.weight")),
    ),
    Architecture(
        "low_rank_cell",
        LowRankCell,
        features,
        {HAND: [reads("left", 0), reads("fc.weight")]},
        owns={HAND: [reads("right", 1), reads("w_in.weight", 0), reads("w_in.bias", 0)]},
    ),
    Architecture("masked_weight", MaskedWeight, features, _one("rnn", 6, reads("fc.weight"))),
    Architecture("casts", Casts, features, _one("rnn", 6, reads("fc.weight"))),
    Architecture("scale_and_shift", ScaleAndShift, features, _one("rnn", 7, reads("fc.weight"))),
]
