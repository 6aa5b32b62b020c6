"""Recurrent highway networks: one width for all depths, the state and whoever reads it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sparsernn.nn import RHN

from ..architecture import HAND, Architecture, features, inside_rhn, lengths_of, merge, reads, tokens


class HighwayLanguageModel(nn.Module):
    """Wen's language model: the embedding is as wide as the network and decodes as well."""

    def __init__(self, ntoken=11, width=7):
        super().__init__()
        self.encoder = nn.Embedding(ntoken, width)
        self.rnn = RHN(width, width, 3)
        self.decoder = nn.Linear(width, ntoken)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(self.rnn(self.encoder(x).transpose(0, 1))[0])


class HighwayTagger(nn.Module):
    """Two layers, both directions, packed."""

    def __init__(self):
        super().__init__()
        self.rnn = RHN(5, 6, 2, 2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.fc(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class HighwayLast(nn.Module):
    """The last state is a feature; the first one is learned."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(1, 1, 8))
        self.rnn = RHN(5, 8, 2, batch_first=True, bias=False)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        _, h_n = self.rnn(x, self.start.expand(1, x.size(0), 8).contiguous())
        return self.fc(h_n[-1])


class HighwayByHand(nn.Module):
    """The paper's equations in a loop over Linears, as a user writes them."""

    def __init__(self, depth=3, width=6):
        super().__init__()
        self.width = width
        self.to_h, self.to_t = nn.Linear(5, width), nn.Linear(5, width)
        self.deep_h = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.deep_t = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.fc = nn.Linear(width, 3)

    def forward(self, x):
        s, outs = x.new_zeros(x.size(0), self.width), []
        for x_t in x.unbind(1):
            for n, (deep_h, deep_t) in enumerate(zip(self.deep_h, self.deep_t)):
                h = torch.tanh(deep_h(s) + (self.to_h(x_t) if n == 0 else 0))
                t = torch.sigmoid(deep_t(s) + (self.to_t(x_t) if n == 0 else 0))
                s = h * t + s * (1 - t)
            outs.append(s)
        return self.fc(torch.stack(outs, 1))


_hand_deep = [f"{name}.{n}" for name in ("deep_h", "deep_t") for n in range(3)]
_hand_rows = [f"{name}.{p}" for name in ("to_h", "to_t", *_hand_deep) for p in ("weight", "bias")]

ARCHITECTURES = [
    Architecture(
        "highway_tied",
        HighwayLanguageModel,
        tokens,
        merge(inside_rhn("rnn", 7, 3), {"rnn.l0": [reads("encoder.weight"), reads("rnn.weight_ih_l0")]}),
        silent=frozenset({"rnn.weight_ih_l0"}),  # it reads the embedding's column, which is zero by then
    ),
    Architecture(
        "highway_packed",
        HighwayTagger,
        lambda batch, length: (features(batch, length), lengths_of(batch, length)),
        merge(
            inside_rhn("rnn", 6, 2, 2, True),
            {"rnn.l1": [reads("fc.weight")], "rnn.l1_reverse": [reads("fc.weight", 1, 6)]},
        ),
    ),
    Architecture(
        "highway_last_state",
        HighwayLast,
        features,
        merge(inside_rhn("rnn", 8, 2), {"rnn.l0": [reads("fc.weight")]}),
        owns={"rnn.l0": [reads("start", 2)]},
    ),
    Architecture(
        "highway_by_hand",
        HighwayByHand,
        features,
        {HAND: [*(reads(f"{name}.weight") for name in _hand_deep), reads("fc.weight")]},
        owns={HAND: [reads(name, 0) for name in _hand_rows]},
    ),
]
