"""Encoders and decoders whose states are tied, bridged or coded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, cell, features, inside, merge, reads, tie, tokens


class StateToDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.encoder = nn.LSTM(6, 7, num_layers=2, batch_first=True)
        self.decoder = nn.LSTM(6, 7, num_layers=2, batch_first=True)
        self.fc = nn.Linear(7, 11)

    def forward(self, src, tgt):
        _, (hidden, cell) = self.encoder(self.embedding(src))
        out, _ = self.decoder(self.embedding(tgt), (hidden, cell))
        return self.fc(out)


class DirectionsToDecoder(nn.Module):
    """Both directions' last states side by side are the decoder's first state."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(5, 4, bidirectional=True, batch_first=True)
        self.decoder = nn.GRU(3, 8, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, src, tgt):
        _, h = self.encoder(src)
        state = torch.cat([h[0], h[1]], dim=1).unsqueeze(0)
        return self.fc(self.decoder(tgt, state)[0])


class BridgeToDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(5, 6, bidirectional=True, batch_first=True)
        self.bridge_h = nn.Linear(12, 7)
        self.bridge_c = nn.Linear(12, 7)
        self.decoder = nn.LSTM(3, 7, batch_first=True)
        self.fc = nn.Linear(7, 2)

    def forward(self, src, tgt):
        _, (h, c) = self.encoder(src)
        h = torch.tanh(self.bridge_h(torch.cat(tuple(h), dim=-1)))
        c = torch.tanh(self.bridge_c(torch.cat([c[0], c[1]], dim=-1)))
        return self.fc(self.decoder(tgt, (h[None], c[None]))[0])


class Captioner(nn.Module):
    """An image's features start a GRUCell that feeds on its own argmax."""

    def __init__(self):
        super().__init__()
        self.init = nn.Linear(5, 7)
        self.emb = nn.Embedding(11, 4)
        self.cell = nn.GRUCell(4, 7)
        self.out = nn.Linear(7, 11)

    def forward(self, image):
        h = torch.tanh(self.init(image))
        word = torch.zeros(image.size(0), dtype=torch.long)
        scores = []
        for _ in range(4):
            h = self.cell(self.emb(word), h)
            logit = self.out(h)
            word = logit.argmax(-1)
            scores.append(logit)
        return torch.stack(scores, dim=1)


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(5, 6, batch_first=True)
        self.decoder = nn.LSTM(6, 8, batch_first=True)
        self.output = nn.Linear(8, 5)

    def forward(self, x):
        _, (h, _) = self.encoder(x)
        code = h[-1].unsqueeze(1).repeat(1, x.size(1), 1)
        return self.output(self.decoder(code)[0])


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(5, 6, bidirectional=True, batch_first=True)
        self.mu = nn.Linear(12, 3)
        self.logvar = nn.Linear(12, 3)
        self.start = nn.Linear(3, 7)
        self.decoder = nn.GRU(5, 7, batch_first=True)
        self.out = nn.Linear(7, 5)

    def forward(self, x):
        _, h = self.encoder(x)
        h = h.transpose(0, 1).flatten(1)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu
        if self.training:
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        shifted = F.pad(x, (0, 0, 1, 0))[:, :-1]
        y, _ = self.decoder(shifted, self.start(z).unsqueeze(0))
        return self.out(y), mu, logvar


class Forecaster(nn.Module):
    """Feeds its own prediction back for the steps to come, state and all."""

    def __init__(self, horizon=3):
        super().__init__()
        self.horizon = horizon
        self.rnn = nn.LSTM(1, 7, num_layers=2, batch_first=True)
        self.mean = nn.Linear(7, 1)
        self.spread = nn.Linear(7, 1)

    def forward(self, past):
        out, state = self.rnn(past)
        last = out[:, -1:]
        means, spreads = [], []
        for _ in range(self.horizon):
            mean = self.mean(last)
            means.append(mean)
            spreads.append(F.softplus(self.spread(last)))
            last, state = self.rnn(mean, state)
        return torch.cat(means, 1), torch.cat(spreads, 1)


class TeacherForcing(nn.Module):
    """With a target it reads that, without one its own words: two branches."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 4)
        self.encoder = nn.GRU(4, 6, batch_first=True)
        self.cell = nn.GRUCell(4, 6)
        self.out = nn.Linear(6, 11)

    def forward(self, src, tgt=None):
        h = self.encoder(self.emb(src))[1][0]
        steps = 3 if tgt is None else tgt.size(1)
        word, outs = src[:, 0], []
        for t in range(steps):
            h = self.cell(self.emb(word), h)
            outs.append(self.out(h))
            word = outs[-1].argmax(1) if tgt is None else tgt[:, t]
        return torch.stack(outs, 1)


_state = tie(
    merge(inside("encoder", 7, 2), inside("decoder", 7, 2), {"decoder.l1": [reads("fc.weight")]}),
    "encoder.l0",
    "decoder.l0",
)


ARCHITECTURES = [
    Architecture(
        "state_to_decoder",
        StateToDecoder,
        lambda b, t: (tokens(b, t), tokens(b, t + 1)),
        tie(_state, "encoder.l1", "decoder.l1"),
    ),
    Architecture(
        "directions_to_decoder",
        DirectionsToDecoder,
        lambda b, t: (features(b, t), features(b, t, 3)),
        {
            "encoder.l0": [
                reads("encoder.weight_hh_l0"),
                reads("decoder.weight_hh_l0"),
                reads("fc.weight"),
            ],
            "encoder.l0_reverse": [
                reads("encoder.weight_hh_l0_reverse"),
                reads("decoder.weight_hh_l0", 1, 4),
                reads("fc.weight", 1, 4),
            ],
            "decoder.l0": [
                reads("encoder.weight_hh_l0", units=range(4)),
                reads("encoder.weight_hh_l0_reverse", units=range(4, 8)),
                reads("decoder.weight_hh_l0"),
                reads("fc.weight"),
            ],
        },
    ),
    Architecture(
        "bridge_to_decoder",
        BridgeToDecoder,
        lambda b, t: (features(b, t), features(b, t, 3)),
        merge(
            inside("encoder", 6, bidirectional=True),
            {
                "encoder.l0": [reads("bridge_h.weight"), reads("bridge_c.weight")],
                "encoder.l0_reverse": [reads("bridge_h.weight", 1, 6), reads("bridge_c.weight", 1, 6)],
            },
            inside("decoder", 7),
            {"decoder.l0": [reads("fc.weight")]},
        ),
    ),
    Architecture(
        "autoencoder",
        Autoencoder,
        features,
        merge(
            inside("encoder", 6),
            {"encoder.l0": [reads("decoder.weight_ih_l0")]},
            inside("decoder", 8),
            {"decoder.l0": [reads("output.weight")]},
        ),
    ),
    Architecture(
        "vae",
        Vae,
        features,
        merge(
            inside("encoder", 6, bidirectional=True),
            {
                "encoder.l0": [reads("mu.weight"), reads("logvar.weight")],
                "encoder.l0_reverse": [reads("mu.weight", 1, 6), reads("logvar.weight", 1, 6)],
            },
            inside("decoder", 7),
            {"decoder.l0": [reads("out.weight")]},
        ),
    ),
    Architecture(
        "forecaster",
        Forecaster,
        lambda b, t: features(b, t, 1),
        merge(inside("rnn", 7, 2), {"rnn.l1": [reads("mean.weight"), reads("spread.weight")]}),
    ),
    Architecture(
        "teacher_forcing",
        TeacherForcing,
        lambda b, t: [(tokens(b, t), tokens(b, 4)), (tokens(b, t),)],
        tie(
            merge(inside("encoder", 6), cell("cell"), {"cell": [reads("out.weight")]}),
            "encoder.l0",
            "cell",
        ),
    ),
    Architecture(
        "captioner",
        Captioner,
        lambda b, t: torch.randn(b, 5),
        merge(cell("cell"), {"cell": [reads("out.weight")]}),
    ),
]
