"""One encoder for two sequences, compared."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, features, inside, merge, reads, tokens


class SiameseConcat(nn.Module):
    """One encoder for both sentences; u, v, |u - v| and u*v go to the classifier."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.encoder = nn.LSTM(6, 7, batch_first=True)
        self.fc = nn.Linear(28, 3)

    def encode(self, x):
        return self.encoder(self.embed(x))[0].max(1).values

    def forward(self, a, b):
        u, v = self.encode(a), self.encode(b)
        return self.fc(torch.cat([u, v, torch.abs(u - v), u * v], dim=1))


class SiameseManhattan(nn.Module):
    """exp(-|u - v|) summed over units: the distance needs every unit."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(5, 7, batch_first=True)

    def forward(self, a, b):
        u, v = self.encoder(a)[1][0][-1], self.encoder(b)[1][0][-1]
        return torch.exp(-torch.sum(torch.abs(u - v), dim=1))


class SiameseCosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(5, 7, batch_first=True)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, a, b):
        return self.scale * F.cosine_similarity(self.encoder(a)[1][-1], self.encoder(b)[1][-1])


_dot = "dot|product|matmul|bmm|einsum|contract|summed"


ARCHITECTURES = [
    Architecture(
        "siamese_concat",
        SiameseConcat,
        lambda b, t: (tokens(b, t), tokens(b, t + 1)),
        merge(inside("encoder", 7), {"encoder.l0": [reads("fc.weight", 1, 0, 7, 14, 21)]}),
    ),
    Architecture(
        "siamese_manhattan",
        SiameseManhattan,
        lambda b, t: (features(b, t), features(b, t)),
        kept={"encoder.l0": "sum|" + _dot},
    ),
    Architecture(
        "siamese_cosine",
        SiameseCosine,
        lambda b, t: (features(b, t), features(b, t)),
        kept={"encoder.l0": "cosine"},
    ),
]
