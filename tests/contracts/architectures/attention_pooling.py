"""Attention over time with learned scores, self-attention, hierarchies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, features, inside, lengths_of, merge, reads


class AdditivePooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 6, bidirectional=True, batch_first=True)
        self.attn = nn.Linear(12, 4)
        self.v = nn.Linear(4, 1, bias=False)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        out, _ = self.lstm(x)
        scores = self.v(torch.tanh(self.attn(out)))
        weights = F.softmax(scores, dim=1)
        return self.fc((weights * out).sum(dim=1))


class BmmPooling(nn.Module):
    """Several attention heads (r hops), as in a structured self-attentive sentence embedding."""

    def __init__(self, hops=2):
        super().__init__()
        self.gru = nn.GRU(5, 7, batch_first=True)
        self.ws1 = nn.Linear(7, 4, bias=False)
        self.ws2 = nn.Linear(4, hops, bias=False)
        self.fc = nn.Linear(hops * 7, 3)

    def forward(self, x):
        out, _ = self.gru(x)
        alphas = self.ws2(torch.tanh(self.ws1(out))).transpose(1, 2)
        pooled = torch.bmm(F.softmax(alphas, dim=-1), out)
        return self.fc(pooled.view(x.size(0), -1))


class MaskedPooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.score = nn.Linear(7, 1)
        self.fc = nn.Linear(7, 3)

    def forward(self, x, lengths):
        out, _ = self.rnn(x)
        energy = self.score(out).squeeze(-1)
        padding = torch.arange(out.size(1)).expand(len(lengths), -1) >= lengths.unsqueeze(1)
        weights = torch.softmax(energy.masked_fill(padding, -1e9), -1)
        context = weights.unsqueeze(1).bmm(out).squeeze(1)
        return self.fc(context)


class QueryVector(nn.Module):
    """A learned query, contracted by einsum."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.query = nn.Parameter(torch.randn(7))
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        out, _ = self.rnn(x)
        weights = torch.einsum("bth,h->bt", out, self.query).softmax(1)
        return self.fc(torch.einsum("bt,bth->bh", weights, out))


class EinsumProjection(nn.Module):
    """Heads by einsum over a three-dimensional bare parameter."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.weight = nn.Parameter(torch.randn(2, 7, 3))

    def forward(self, x):
        return torch.einsum("bth,ahk->btak", self.rnn(x)[0], self.weight)


class SelfAttention(nn.Module):
    """Query, key and value projections with several heads over the recurrent output."""

    def __init__(self, heads=2):
        super().__init__()
        self.heads = heads
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.qkv = nn.Linear(7, 24)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        b, t, _ = y.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(y).chunk(3, dim=-1))
        z = F.scaled_dot_product_attention(q, k, v)
        return self.out(z.transpose(1, 2).reshape(b, t, -1))


class RawSelfAttention(nn.Module):
    """The recurrent output is its own query, key and value."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        y = y.unsqueeze(1)
        return self.out(F.scaled_dot_product_attention(y, y, y).squeeze(1))


class MultiHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        z, _ = self.attn(y, y, y)
        return self.fc(z)


class Hierarchical(nn.Module):
    """Words to sentences to a document, an attention on each floor."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.word_rnn = nn.GRU(5, 4, bidirectional=True, batch_first=True)
        self.word_attn = nn.Linear(8, 3)
        self.word_context = nn.Linear(3, 1, bias=False)
        self.sent_rnn = nn.GRU(8, 5, bidirectional=True, batch_first=True)
        self.sent_attn = nn.Linear(10, 3)
        self.sent_context = nn.Linear(3, 1, bias=False)
        self.fc = nn.Linear(10, 2)

    def forward(self, docs):
        b, s, w = docs.shape
        words, _ = self.word_rnn(self.embed(docs.view(b * s, w)))
        alpha = torch.softmax(self.word_context(torch.tanh(self.word_attn(words))), dim=1)
        sents = (alpha * words).sum(1).view(b, s, -1)
        sents, _ = self.sent_rnn(sents)
        alpha = torch.softmax(self.sent_context(torch.tanh(self.sent_attn(sents))), dim=1)
        return self.fc((alpha * sents).sum(1))


def with_lengths(b: int, t: int):
    return features(b, t), lengths_of(b, t)


_dot = "dot|product|matmul|bmm|einsum|contract|summed"


ARCHITECTURES = [
    Architecture(
        "additive_pooling",
        AdditivePooling,
        features,
        merge(
            inside("lstm", 6, bidirectional=True),
            {
                "lstm.l0": [reads("attn.weight"), reads("fc.weight")],
                "lstm.l0_reverse": [reads("attn.weight", 1, 6), reads("fc.weight", 1, 6)],
            },
        ),
    ),
    Architecture(
        "bmm_pooling",
        BmmPooling,
        features,
        merge(inside("gru", 7), {"gru.l0": [reads("ws1.weight"), reads("fc.weight", 1, 0, 7)]}),
    ),
    Architecture(
        "attention_masked_pooling",
        MaskedPooling,
        with_lengths,
        merge(inside("rnn", 7), {"rnn.l0": [reads("score.weight"), reads("fc.weight")]}),
    ),
    Architecture(
        "query_vector",
        QueryVector,
        features,
        merge(inside("rnn", 7), {"rnn.l0": [reads("query", 0), reads("fc.weight")]}),
    ),
    Architecture(
        "einsum_projection",
        EinsumProjection,
        features,
        merge(inside("rnn", 7), {"rnn.l0": [reads("weight", 1)]}),
    ),
    Architecture("self_attention", SelfAttention, features, merge(inside("rnn", 7), {"rnn.l0": [reads("qkv.weight")]})),
    Architecture("raw_self_attention", RawSelfAttention, features, kept={"rnn.l0": "attention|" + _dot}),
    Architecture(
        "multi_head",
        MultiHead,
        features,
        merge(inside("rnn", 8), {"rnn.l0": [reads("attn.in_proj_weight")]}),
        either=frozenset({"rnn.l0"}),
    ),
    Architecture(
        "hierarchical",
        Hierarchical,
        lambda b, t: torch.randint(0, 11, (b, 3, t)),
        merge(
            inside("word_rnn", 4, bidirectional=True),
            {
                name: [
                    reads("word_attn.weight", 1, at),
                    reads("sent_rnn.weight_ih_l0", 1, at),
                    reads("sent_rnn.weight_ih_l0_reverse", 1, at),
                ]
                for name, at in (("word_rnn.l0", 0), ("word_rnn.l0_reverse", 4))
            },
            inside("sent_rnn", 5, bidirectional=True),
            {
                name: [reads("sent_attn.weight", 1, at), reads("fc.weight", 1, at)]
                for name, at in (("sent_rnn.l0", 0), ("sent_rnn.l0_reverse", 5))
            },
        ),
    ),
]
