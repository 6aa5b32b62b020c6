"""Attention of one sequence on another: bilinear scores read units, plain dot products keep them."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..architecture import Architecture, Read, features, inside, merge, reads


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
]
