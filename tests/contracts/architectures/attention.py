"""Attention over recurrent outputs: learned scores read units, plain dot products keep them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, Read, features, inside, lengths_of, merge, reads, tokens


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


class TwoSequences(nn.Module):
    """An encoder and a decoder over two inputs; what joins them is for the subclasses."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(5, 6, batch_first=True)
        self.decoder = nn.LSTM(4, 7, batch_first=True)
        self.out = nn.Linear(6 + 7, 3)

    def scores(self, dec, enc):
        raise AssertionError("written by each subclass")

    def forward(self, src, tgt):
        enc, _ = self.encoder(src)
        dec, _ = self.decoder(tgt)
        weights = torch.softmax(self.scores(dec, enc), dim=-1)
        context = torch.bmm(weights, enc)
        return self.out(torch.cat([context, dec], dim=-1))


class GeneralAttention(TwoSequences):
    """Luong's general score, dec · W enc: W reads both sides, by its columns and by its rows."""

    def __init__(self):
        super().__init__()
        self.attn = nn.Linear(6, 7, bias=False)

    def scores(self, dec, enc):
        return torch.bmm(dec, self.attn(enc).transpose(1, 2))


class GeneralAttentionWithBias(TwoSequences):
    def __init__(self):
        super().__init__()
        self.attn = nn.Linear(6, 7)

    def scores(self, dec, enc):
        return dec @ self.attn(enc).mT


class BareGeneralAttention(TwoSequences):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(7, 6))

    def scores(self, dec, enc):
        return torch.einsum("bqd,de,bke->bqk", dec, self.w, enc)


class ConcatAttention(TwoSequences):
    """Bahdanau's score over every pair of steps, by expand and cat."""

    def __init__(self):
        super().__init__()
        self.attn = nn.Linear(7 + 6, 4)
        self.v = nn.Linear(4, 1, bias=False)

    def scores(self, dec, enc):
        q, k = dec.size(1), enc.size(1)
        pairs = torch.cat((dec.unsqueeze(2).expand(-1, -1, k, -1), enc.unsqueeze(1).repeat(1, q, 1, 1)), dim=3)
        return self.v(torch.tanh(self.attn(pairs))).squeeze(3)


class ProjectedAttention(TwoSequences):
    """Query and key are projections, so no unit takes part in the dot product itself."""

    def __init__(self):
        super().__init__()
        self.q = nn.Linear(7, 4)
        self.k = nn.Linear(6, 4)

    def scores(self, dec, enc):
        return torch.matmul(self.q(dec), self.k(enc).transpose(-2, -1)) / math.sqrt(4)


class BilinearPairs(TwoSequences):
    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(7, 6, 1)

    def scores(self, dec, enc):
        q, k = dec.size(1), enc.size(1)
        left = dec.unsqueeze(2).expand(-1, -1, k, -1).contiguous()
        right = enc.unsqueeze(1).expand(-1, q, -1, -1).contiguous()
        return self.bilinear(left, right).squeeze(-1)


class DotAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(5, 6, batch_first=True)
        self.decoder = nn.GRU(4, 6, batch_first=True)
        self.first = nn.GRU(4, 4, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, src, tgt):
        enc, _ = self.encoder(src)
        dec, _ = self.decoder(self.first(tgt)[0])
        weights = torch.softmax(torch.bmm(dec, enc.transpose(1, 2)), dim=2)
        return self.out(torch.cat([torch.bmm(weights, enc), dec], dim=2))


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


def with_lengths(b: int, t: int):
    return features(b, t), lengths_of(b, t)


def source_and_target(b: int, t: int):
    return features(b, t), features(b, t + 2, 4)


def _pair(*extra: dict[str, list[Read]]) -> dict[str, tuple[Read, ...]]:
    return merge(
        inside("encoder", 6),
        inside("decoder", 7),
        {"encoder.l0": [reads("out.weight")], "decoder.l0": [reads("out.weight", 1, 6)]},
        *extra,
    )


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
    Architecture(
        "general_attention",
        GeneralAttention,
        source_and_target,
        _pair({"encoder.l0": [reads("attn.weight", 1)], "decoder.l0": [reads("attn.weight", 0)]}),
    ),
    Architecture(
        "general_attention_with_bias",
        GeneralAttentionWithBias,
        source_and_target,
        _pair(
            {
                "encoder.l0": [reads("attn.weight", 1)],
                "decoder.l0": [reads("attn.weight", 0), reads("attn.bias", 0)],
            }
        ),
        # The bias adds the same score to every encoder step of one query, which softmax takes away again.
        silent=frozenset({"attn.bias"}),
    ),
    Architecture(
        "bare_general_attention",
        BareGeneralAttention,
        source_and_target,
        _pair({"encoder.l0": [reads("w", 1)], "decoder.l0": [reads("w", 0)]}),
        either=frozenset({"encoder.l0", "decoder.l0"}),
    ),
    Architecture(
        "concat_attention",
        ConcatAttention,
        source_and_target,
        _pair({"encoder.l0": [reads("attn.weight", 1, 7)], "decoder.l0": [reads("attn.weight")]}),
    ),
    Architecture(
        "projected_attention",
        ProjectedAttention,
        source_and_target,
        _pair({"encoder.l0": [reads("k.weight")], "decoder.l0": [reads("q.weight")]}),
    ),
    Architecture(
        "bilinear_pairs",
        BilinearPairs,
        source_and_target,
        _pair({"encoder.l0": [reads("bilinear.weight", 2)], "decoder.l0": [reads("bilinear.weight", 1)]}),
    ),
    Architecture(
        "dot_attention",
        DotAttention,
        source_and_target,
        merge(inside("first", 4), {"first.l0": [reads("decoder.weight_ih_l0")]}),
        kept={"encoder.l0": _dot, "decoder.l0": _dot},
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
