"""Encoders and decoders, language models, autoencoders: states that go from one layer to another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, cell, features, inside, merge, reads, tie, tokens


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


class EncoderRNN(nn.Module):
    def __init__(self, input_size=11, hidden_size=7):
        super().__init__()
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(0.1)

    def forward(self, input):
        return self.gru(self.dropout(self.embedding(input)))


class BahdanauAttention(nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.Wa = nn.Linear(hidden_size, hidden_size)
        self.Ua = nn.Linear(hidden_size, hidden_size)
        self.Va = nn.Linear(hidden_size, 1)

    def forward(self, query, keys):
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys)))
        weights = F.softmax(scores.squeeze(2).unsqueeze(1), dim=-1)
        return torch.bmm(weights, keys), weights


class DecoderRNN(nn.Module):
    def __init__(self, hidden_size=7, output_size=11):
        super().__init__()
        self.embedding = nn.Embedding(output_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.out = nn.Linear(hidden_size, output_size)

    def step(self, token, hidden, encoder_outputs):
        output, hidden = self.gru(F.relu(self.embedding(token)), hidden)
        return self.out(output), hidden

    def forward(self, encoder_outputs, encoder_hidden, steps=4):
        token = torch.zeros(encoder_outputs.size(0), 1, dtype=torch.long)
        hidden = encoder_hidden
        outputs = []
        for _ in range(steps):
            logits, hidden = self.step(token, hidden, encoder_outputs)
            outputs.append(logits)
            _, topi = logits.topk(1)
            token = topi.squeeze(-1).detach()
        return F.log_softmax(torch.cat(outputs, dim=1), dim=-1)


class AttnDecoderRNN(DecoderRNN):
    def __init__(self, hidden_size=7, output_size=11):
        super().__init__(hidden_size, output_size)
        self.attention = BahdanauAttention(hidden_size)
        self.gru = nn.GRU(2 * hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(0.1)

    def step(self, token, hidden, encoder_outputs):
        embedded = self.dropout(self.embedding(token))
        context, _ = self.attention(hidden.permute(1, 0, 2), encoder_outputs)
        output, hidden = self.gru(torch.cat((embedded, context), dim=2), hidden)
        return self.out(output), hidden


class Translation(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        self.encoder = EncoderRNN()
        self.decoder = decoder()

    def forward(self, src):
        outputs, hidden = self.encoder(src)
        return self.decoder(outputs, hidden)


class InputFeeding(nn.Module):
    """Luong's decoder: the attentional vector of the last step is a part of the next input."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 4)
        self.encoder = nn.LSTM(4, 6, batch_first=True)
        self.cell = nn.LSTMCell(4 + 5, 7)
        self.wa = nn.Linear(6, 7, bias=False)
        self.wc = nn.Linear(6 + 7, 5)
        self.out = nn.Linear(5, 11)

    def forward(self, src, tgt):
        memory, _ = self.encoder(self.emb(src))
        b = src.size(0)
        h = c = memory.new_zeros(b, self.cell.hidden_size)
        feed = memory.new_zeros(b, 5)
        logits = []
        for t in range(tgt.size(1)):
            h, c = self.cell(torch.cat([self.emb(tgt[:, t]), feed], 1), (h, c))
            scores = torch.bmm(self.wa(memory), h.unsqueeze(2)).squeeze(2)
            context = torch.bmm(F.softmax(scores, 1).unsqueeze(1), memory).squeeze(1)
            feed = torch.tanh(self.wc(torch.cat([context, h], 1)))
            logits.append(self.out(feed))
        return torch.stack(logits, 1)


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


_words = {
    "encoder.gru.l0": [
        reads("encoder.gru.weight_hh_l0"),
        reads("decoder.gru.weight_hh_l0"),
        reads("decoder.out.weight"),
    ]
}
_attended = [
    *_words["encoder.gru.l0"],
    reads("decoder.attention.Wa.weight"),
    reads("decoder.attention.Ua.weight"),
    reads("decoder.gru.weight_ih_l0", 1, 7),
]
_state = tie(
    merge(inside("encoder", 7, 2), inside("decoder", 7, 2), {"decoder.l1": [reads("fc.weight")]}),
    "encoder.l0",
    "decoder.l0",
)
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
        "seq2seq_tutorial",
        lambda: Translation(DecoderRNN),
        tokens,
        {"encoder.gru.l0": _words["encoder.gru.l0"], "decoder.gru.l0": _words["encoder.gru.l0"]},
    ),
    Architecture(
        "seq2seq_attention_tutorial",
        lambda: Translation(AttnDecoderRNN),
        tokens,
        {"encoder.gru.l0": _attended, "decoder.gru.l0": _attended},
    ),
    Architecture(
        "input_feeding",
        InputFeeding,
        lambda b, t: (tokens(b, t), tokens(b, 3)),
        merge(
            inside("encoder", 6),
            {"encoder.l0": [reads("wa.weight"), reads("wc.weight")]},
            cell("cell"),
            {"cell": [reads("wa.weight", 0), reads("wc.weight", 1, 6)]},
        ),
    ),
    Architecture(
        "captioner",
        Captioner,
        lambda b, t: torch.randn(b, 5),
        merge(cell("cell"), {"cell": [reads("out.weight")]}),
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
