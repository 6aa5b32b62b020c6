"""Language models, policies and plain layers: what goes out, what is tied."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, features, inside, merge, reads, tokens


class WordLanguageModel(nn.Module):
    """The shape of PyTorch's word_language_model example: the hidden state goes in and out."""

    def __init__(self, rnn_type="LSTM", ntoken=11, ninp=6, nhid=7, nlayers=2, dropout=0.5):
        super().__init__()
        self.ntoken = ntoken
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = getattr(nn, rnn_type)(ninp, nhid, nlayers, dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)

    def forward(self, input, hidden):
        emb = self.drop(self.encoder(input))
        output, hidden = self.rnn(emb, hidden)
        output = self.drop(output)
        decoded = self.decoder(output)
        decoded = decoded.view(-1, self.ntoken)
        return F.log_softmax(decoded, dim=1), hidden


def gru_language_model():
    return WordLanguageModel("GRU")


class TiedLanguageModel(nn.Module):
    def __init__(self, ntoken=11, nhid=7):
        super().__init__()
        self.encoder = nn.Embedding(ntoken, nhid)
        self.rnn = nn.LSTM(nhid, nhid, num_layers=2, batch_first=True)
        self.decoder = nn.Linear(nhid, ntoken)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        out, _ = self.rnn(self.encoder(x))
        return self.decoder(out.reshape(-1, out.size(2)))


class TiedByFunctional(nn.Module):
    """The decoder is the embedding's own weight, after a projection."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.rnn = nn.GRU(6, 8, batch_first=True)
        self.proj = nn.Linear(8, 6)

    def forward(self, x):
        out, _ = self.rnn(self.emb(x))
        return F.linear(self.proj(out), self.emb.weight)


class ActorCritic(nn.Module):
    """A recurrent policy: the state goes back to whoever plays."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
        self.lstm = nn.LSTM(6, 7)
        self.actor = nn.Linear(7, 3)
        self.critic = nn.Linear(7, 1)

    def forward(self, obs, state=None):
        x = self.body(obs.transpose(0, 1))
        y, state = self.lstm(x, state)
        return {"logits": self.actor(y), "value": self.critic(y), "state": state}


class PlainLSTM(nn.LSTM):
    """A recurrent module that is the whole model."""


_lm = merge(inside("rnn", 7, 2), {"rnn.l1": [reads("decoder.weight")]})


_handed = "handed to the caller"


def _lm_inputs(b: int, t: int):
    return torch.randint(0, 11, (t, b)), (torch.randn(2, b, 7), torch.randn(2, b, 7))


ARCHITECTURES = [
    Architecture(
        "word_language_model",
        WordLanguageModel,
        _lm_inputs,
        kept={"rnn.l0": _handed, "rnn.l1": _handed},
        carried=_lm,
    ),
    Architecture(
        "gru_language_model",
        gru_language_model,
        lambda b, t: {"input": torch.randint(0, 11, (t, b)), "hidden": torch.zeros(2, b, 7)},
        kept={"rnn.l0": _handed, "rnn.l1": _handed},
        carried=_lm,
    ),
    Architecture(
        "tied_language_model",
        TiedLanguageModel,
        tokens,
        merge(
            inside("rnn", 7, 2),
            {"rnn.l1": [reads("encoder.weight"), reads("rnn.weight_ih_l0")]},
        ),
        # Once the embedding's column is zero, nothing comes through the input column any more.
        silent=frozenset({"rnn.weight_ih_l0"}),
    ),
    Architecture(
        "tied_by_functional", TiedByFunctional, tokens, merge(inside("rnn", 8), {"rnn.l0": [reads("proj.weight")]})
    ),
    Architecture(
        "actor_critic",
        ActorCritic,
        features,
        kept={"lstm.l0": _handed},
        carried=merge(inside("lstm", 7), {"lstm.l0": [reads("actor.weight"), reads("critic.weight")]}),
    ),
    Architecture(
        "plain_lstm",
        lambda: PlainLSTM(5, 6, num_layers=2, batch_first=True),
        features,
        kept={"l0": _handed, "l1": _handed},
    ),
]
