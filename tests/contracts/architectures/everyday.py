"""What stands between the layers of models as they are found: assertions, spectra, masks, sums over neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..architecture import Architecture, features, inside, lengths_of, merge, reads, tie, tokens


class Asserts(nn.Module):
    """Checks for NaN, and that the last output is the final state, as tutorials have it."""

    def __init__(self):
        super().__init__()
        self.gru, self.fc = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        y, h = self.gru(x)
        assert not torch.isnan(y).any(), "NaN in the output"
        assert (y[:, -1] == h[-1]).all() and torch.equal(y[:, -1], h.squeeze(0))
        if not torch.isfinite(h).all():
            raise RuntimeError("infinite state")
        return self.fc(y)


class PackedTwice(nn.Module):
    """Padded between two packed layers: the second packing counts sequences, not units."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.GRU(5, 6, batch_first=True), nn.GRU(6, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.low(packed)[0], batch_first=True)
        packed = pack_padded_sequence(torch.tanh(y), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.fc(self.high(packed)[1][-1])


class CandidateScores(nn.Module):
    """Scores of candidate items: the state times each item's embedding, summed up over the units."""

    def __init__(self):
        super().__init__()
        self.items, self.out = nn.Embedding(11, 5), nn.Embedding(11, 6)
        self.gru = nn.GRU(5, 6, batch_first=True)

    def forward(self, seen, candidates):
        h = self.gru(self.items(seen))[1][-1]
        return (h.unsqueeze(1) * self.out(candidates)).sum(-1)


class SpectrumOverTime(nn.Module):
    """Spectrum of each unit over time, and its differences."""

    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(5, 6, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        y, _ = self.lstm(x)
        still = torch.fft.rfft(y, dim=1).abs().mean(1)
        moving = torch.diff(F.pad(y, (0, 0, 1, 0)), dim=1).square().mean(1)
        return self.fc(torch.cat([still, moving], -1))


class ComplexMask(nn.Module):
    """Speech enhancement: a complex mask on a spectrogram."""

    def __init__(self):
        super().__init__()
        self.gru, self.fc = nn.GRU(9, 6, 2, batch_first=True, bidirectional=True), nn.Linear(12, 18)
        self.register_buffer("window", torch.hann_window(16))

    def forward(self, wave):
        window = self.window.to(wave.dtype)
        spectrum = torch.stft(wave, 16, 4, window=window, return_complex=True)
        y, _ = self.gru(torch.log(spectrum.abs().transpose(1, 2) + 1e-3))
        real, imaginary = torch.tanh(self.fc(y)).transpose(1, 2).chunk(2, 1)
        return torch.view_as_real(spectrum * torch.complex(real, imaginary))


class Upsampled(nn.Module):
    """Every second frame, stretched again, beside the frames of a second layer."""

    def __init__(self):
        super().__init__()
        self.slow, self.quick = nn.LSTM(5, 6, batch_first=True), nn.GRU(5, 7, batch_first=True)
        self.fc = nn.Linear(13, 3)

    def forward(self, x):
        slow = self.slow(x[:, ::2])[0].transpose(1, 2)
        slow = F.interpolate(slow, size=x.size(1), mode="linear", align_corners=True).transpose(1, 2)
        return self.fc(torch.cat([slow, self.quick(x)[0]], -1))


class SegmentMeans(nn.Module):
    """Means over segments of the sequence with index_add, and the largest with full_like."""

    def __init__(self):
        super().__init__()
        self.gru, self.fc = nn.GRU(5, 6, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        y, _ = self.gru(x)
        segment = torch.arange(y.size(1)) // 2
        count = int(segment[-1]) + 1
        sums = torch.zeros(y.size(0), count, y.size(2), dtype=y.dtype).index_add(1, segment, y)
        largest = torch.where(x[..., :1] > 0, y, torch.full_like(y, -2.0)).amax(1)
        return self.fc(torch.cat([sums, largest.unsqueeze(1).expand_as(sums)], -1))


class ThreeWayEinsum(nn.Module):
    """Heads by einsum with three operands, and one that only moves axes."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.value, self.out = nn.Parameter(torch.randn(2, 6, 4)), nn.Parameter(torch.randn(2, 4, 3))

    def forward(self, x):
        h = torch.einsum("bth->bht", self.lstm(x)[0])
        return torch.einsum("bht,nhd,ndo->bto", h, self.value, self.out)


class BeamSearch(nn.Module):
    """A beam for each sequence: states repeated and picked anew at every step, reset by a mask."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(5, 6, 2, batch_first=True), nn.LSTM(4, 6, 2, batch_first=True)
        self.words, self.out = nn.Embedding(11, 4), nn.Linear(6, 11)

    def forward(self, x):
        _, (h, c) = self.encoder(x)
        h, c = h.repeat_interleave(3, dim=1), torch.repeat_interleave(c, 3, 1)
        word, score = torch.zeros(h.size(1), dtype=torch.long), torch.zeros(h.size(1), dtype=x.dtype)
        for _ in range(3):
            y, (h, c) = self.decoder(self.words(word).unsqueeze(1), (h, c))
            best, word = self.out(y.squeeze(1)).log_softmax(-1).max(-1)
            score = score + best
            order = torch.arange(len(score)).view(-1, 3).flip(1).flatten()
            h, c, word, score = h.index_select(1, order), c.index_select(1, order), word[order], score[order]
            keep = (word != 0).to(h.dtype).view(1, -1, 1)
            h, c = keep * h, c * keep
        return score


class ReadsWidths(nn.Module):
    """Asks the layer itself for its width, of weights and of the attribute."""

    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(5, 6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        self.lstm.flatten_parameters()
        h = x.new_zeros(self.lstm.num_layers, x.size(0), self.lstm.weight_hh_l0.shape[1])
        c = x.new_zeros(self.lstm.num_layers, x.size(0), self.lstm.hidden_size)
        y, _ = self.lstm(x, (h, c))
        assert y.shape == (x.size(0), x.size(1), self.lstm.hidden_size)
        return self.fc(y.reshape(-1, self.lstm.hidden_size)).view(x.size(0), -1, 3)


class DistanceOfTwo(nn.Module):
    """Manhattan LSTM with torch's own distance."""

    def __init__(self):
        super().__init__()
        self.low, self.lstm = nn.GRU(5, 6, batch_first=True), nn.LSTM(6, 7, batch_first=True)

    def encode(self, x):
        return self.lstm(self.low(x)[0])[1][0][-1]

    def forward(self, a, b):
        return torch.exp(-F.pairwise_distance(self.encode(a), self.encode(b), p=1))


low_and_head = merge(
    inside("low", 6), inside("high", 7), {"low.l0": [reads("high.weight_ih_l0")], "high.l0": [reads("fc.weight")]}
)

ARCHITECTURES = [
    Architecture("asserts", Asserts, features, merge(inside("gru", 6), {"gru.l0": [reads("fc.weight")]})),
    Architecture("packed_twice", PackedTwice, lambda b, t: (features(b, t), lengths_of(b, t)), low_and_head),
    Architecture(
        "candidate_scores",
        CandidateScores,
        lambda b, t: (tokens(b, t), tokens(b, 9)),
        merge(inside("gru", 6), {"gru.l0": [reads("out.weight")]}),
    ),
    Architecture(
        "spectrum_over_time",
        SpectrumOverTime,
        features,
        merge(inside("lstm", 6), {"lstm.l0": [reads("fc.weight", 1, 0, 6)]}),
    ),
    Architecture(
        "complex_mask",
        ComplexMask,
        lambda b, t: torch.randn(b, 12 + 8 * t),
        merge(
            inside("gru", 6, 2, True),
            {"gru.l1": [reads("fc.weight")], "gru.l1_reverse": [reads("fc.weight", 1, 6)]},
        ),
    ),
    Architecture(
        "upsampled",
        Upsampled,
        features,
        merge(
            inside("slow", 6),
            inside("quick", 7),
            {"slow.l0": [reads("fc.weight")], "quick.l0": [reads("fc.weight", 1, 6)]},
        ),
    ),
    Architecture(
        "segment_means", SegmentMeans, features, merge(inside("gru", 6), {"gru.l0": [reads("fc.weight", 1, 0, 6)]})
    ),
    Architecture("three_way_einsum", ThreeWayEinsum, features, merge(inside("lstm", 6), {"lstm.l0": [reads("value")]})),
    Architecture(
        "beam_search",
        BeamSearch,
        features,
        tie(
            tie(
                merge(inside("encoder", 6, 2), inside("decoder", 6, 2), {"decoder.l1": [reads("out.weight")]}),
                "encoder.l0",
                "decoder.l0",
            ),
            "encoder.l1",
            "decoder.l1",
        ),
    ),
    Architecture(
        "reads_widths",
        ReadsWidths,
        features,
        merge(inside("lstm", 6, 2), {"lstm.l1": [reads("fc.weight")]}),
        literal=True,
    ),
    Architecture(
        "distance_of_two",
        DistanceOfTwo,
        lambda b, t: (features(b, t), features(b, t)),
        merge(inside("low", 6), {"low.l0": [reads("lstm.weight_ih_l0")]}),
        kept={"lstm.l0": "a distance over all units"},
    ),
]
