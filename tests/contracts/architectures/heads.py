"""What stands on top of a recurrent layer: pooling, last steps, final states, views, norms, convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Architecture, Read, features, inside, lengths_of, merge, reads, tokens


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6, padding_idx=0)
        self.lstm = nn.LSTM(6, 7, num_layers=2, bidirectional=True, batch_first=True, dropout=0.3)
        self.dropout = nn.Dropout(0.5)
        self.hidden2tag = nn.Linear(14, 4)

    def forward(self, sentence):
        embeds = self.dropout(self.embedding(sentence))
        lstm_out, _ = self.lstm(embeds)
        return F.log_softmax(self.hidden2tag(self.dropout(lstm_out)), dim=-1)


class LastStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(5, 8, batch_first=True)
        self.fc1 = nn.Linear(8, 6)
        self.fc2 = nn.Linear(6, 2)

    def forward(self, x):
        out, _ = self.gru(x)
        return self.fc2(F.relu(self.fc1(out[:, -1])))


class GatherByLength(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x, lengths):
        out, _ = self.rnn(x)
        index = (lengths - 1).view(-1, 1).expand(out.size(0), out.size(2)).unsqueeze(1)
        return self.fc(out.gather(1, index).squeeze(1))


class IndexByLength(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x, lengths):
        out, _ = self.rnn(x.transpose(0, 1))
        return self.fc(out[lengths - 1, torch.arange(len(lengths))])


class MaxAndMean(nn.Module):
    """Max and mean over time side by side, as text classifiers do."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        out, _ = self.rnn(x)
        longest, _ = out.max(dim=1)
        return self.fc(torch.cat([longest, torch.mean(out, 1)], dim=1))


class MaskedPooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.fc = nn.Linear(14, 3)

    def forward(self, x, lengths):
        out, _ = self.rnn(x)
        mask = torch.arange(x.size(1))[None, :] < lengths[:, None]
        mean = (out * mask.unsqueeze(-1)).sum(1) / lengths[:, None].to(out.dtype)
        peak = out.masked_fill(~mask.unsqueeze(2), float("-inf")).amax(1)
        return self.fc(torch.cat([mean, peak], -1))


class AdaptivePool(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(F.adaptive_max_pool1d(out.transpose(1, 2), 1).squeeze(-1))


class FinalStates(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(5, 7, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(14, 3)

    def forward(self, x):
        _, (hidden, _) = self.encoder(x)
        return self.fc(torch.cat((hidden[-2, :, :], hidden[-1, :, :]), dim=1))


class CellStates(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(5, 7, batch_first=True)
        self.fc = nn.Linear(14, 3)

    def forward(self, x):
        _, (hidden, cell) = self.encoder(x)
        return self.fc(torch.cat([hidden.squeeze(0), cell[0]], -1))


class StatesByView(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(5, 6, num_layers=2, bidirectional=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        _, h_n = self.gru(x.transpose(0, 1))
        last = h_n.view(2, 2, x.size(0), 6)[-1]
        return self.fc(last.transpose(0, 1).reshape(x.size(0), -1))


class EveryLayersState(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(5, 6, num_layers=3, batch_first=True)
        self.fc = nn.Linear(18, 3)

    def forward(self, x):
        _, h = self.rnn(x)
        return self.fc(h.permute(1, 0, 2).contiguous().flatten(start_dim=1))


class FlattenTime(nn.Module):
    def __init__(self, steps=6, hidden=7):
        super().__init__()
        self.rnn = nn.LSTM(5, hidden, batch_first=True)
        self.fc = nn.Linear(steps * hidden, 3)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(out.reshape(x.shape[0], -1))


class FlattenUnitsFirst(nn.Module):
    def __init__(self, steps=6, hidden=7):
        super().__init__()
        self.rnn = nn.GRU(5, hidden, batch_first=True)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(steps * hidden, 3))

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.net(out.permute(0, 2, 1))


class TimeDistributed(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        y = self.module(x.contiguous().view(-1, x.size(-1)))
        return y.contiguous().view(x.size(0), -1, y.size(-1))


def time_distributed():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(5, 7, batch_first=True)
            self.td = TimeDistributed(nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2)))

        def forward(self, x):
            return self.td(self.rnn(x)[0])

    return Model()


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.GRU(5, 8, batch_first=True)
        self.heads = nn.ModuleDict({"intent": nn.Linear(8, 3), "slots": nn.Linear(8, 4)})

    def forward(self, x):
        out, h = self.body(x)
        return {"slots": self.heads["slots"](out), "intent": self.heads["intent"](h[-1])}


@dataclass
class Scores:
    logits: Tensor
    value: Tensor | None = None


class DataclassOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.logits = nn.Linear(7, 3)
        self.value = nn.Linear(7, 1, bias=False)

    def forward(self, x):
        out, _ = self.rnn(x)
        return Scores(logits=self.logits(out), value=self.value(out).squeeze(-1))


class LayerNormHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 7, num_layers=2, batch_first=True)
        self.norm = nn.LayerNorm(7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc(self.norm(self.lstm(x)[0]))


class NormalisedFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc(F.normalize(self.rnn(x)[1][-1], dim=-1))


class SoftmaxFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0].softmax(-1))


class BatchNormFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 7, batch_first=True)
        self.bn = nn.BatchNorm1d(7)
        self.act = nn.PReLU(7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(self.act(self.bn(out[:, -1, :])))


class BatchNormOverTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 7, batch_first=True)
        self.bn = nn.BatchNorm1d(7, affine=False)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(self.bn(out.transpose(1, 2)).transpose(1, 2))


class ConvAfter(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, bidirectional=True, batch_first=True)
        self.conv = nn.Conv1d(12, 4, kernel_size=3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y, _ = self.rnn(x)
        y = F.relu(self.conv(y.transpose(1, 2)))
        return self.fc(y.max(2)[0])


class ConvBefore(nn.Module):
    """Convolutions over a spectrogram, then a recurrent layer over its columns (a CRNN)."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1))
        )
        self.rnn = nn.LSTM(3 * 4, 6, bidirectional=True)
        self.embedding = nn.Linear(12, 5)

    def forward(self, x):
        conv = self.cnn(x)
        b, c, h, w = conv.size()
        seq = conv.permute(3, 0, 1, 2).reshape(w, b, c * h)
        recurrent, _ = self.rnn(seq)
        t, b, h = recurrent.size()
        return self.embedding(recurrent.view(t * b, h)).view(t, b, -1)


class ConvTransposeAfter(nn.Module):
    def __init__(self):
        super().__init__()
        self.pre = nn.Conv1d(5, 6, 3, padding=1)
        self.rnn = nn.GRU(6, 7, batch_first=True)
        self.up = nn.ConvTranspose1d(7, 2, kernel_size=2, stride=2)

    def forward(self, x):
        y = F.leaky_relu(self.pre(x.mT))
        y, _ = self.rnn(y.mT)
        return self.up(y.mT)


class DepthwiseAfter(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.depth = nn.Conv1d(6, 6, 3, padding=1, groups=6)
        self.point = nn.Conv1d(6, 4, 1)

    def forward(self, x):
        return self.point(self.depth(self.rnn(x)[0].transpose(1, 2)))


class WeightNormHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(7, 3))

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


class BilinearHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.LSTM(5, 6, batch_first=True)
        self.b = nn.GRU(5, 7, batch_first=True)
        self.bilinear = nn.Bilinear(6, 7, 3)

    def forward(self, x):
        return self.bilinear(self.a(x)[0], self.b(x)[0])


class ChunkGate(nn.Module):
    """A gated linear unit over the recurrent output: units k and k + 4 go together."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        a, b = self.rnn(x)[0].chunk(2, dim=-1)
        return self.fc(a * torch.sigmoid(b))


class FunctionalGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(F.glu(self.rnn(x)[0], dim=-1))


class GLUOverLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True)
        self.net = nn.Sequential(nn.Linear(8, 6), nn.GLU(), nn.Linear(3, 2))

    def forward(self, x):
        return self.net(self.rnn(x)[0])


class Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.transform = nn.Linear(7, 7)
        self.plain = nn.Linear(7, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        h, _ = self.rnn(x)
        gate = torch.sigmoid(self.transform(h))
        return self.fc(gate * F.relu(self.plain(h)) + (1 - gate) * h)


class GateFromInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 7, batch_first=True)
        self.gate = nn.Linear(5, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0] * torch.sigmoid(self.gate(x)))


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


class NegativeSlice(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 8, batch_first=True)
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][..., -3:])


class SplitUnits(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True)
        self.left = nn.Linear(3, 2)
        self.right = nn.Linear(5, 2)

    def forward(self, x):
        left, right = torch.split(self.rnn(x)[0], [3, 5], dim=2)
        return self.left(left) - self.right(right)


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


class ShiftedResidual(nn.Module):
    """Each step plus the one before: the same units at other times."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        y, _ = self.rnn(x)
        before = F.pad(y, (0, 0, 1, 0))[:, :-1]
        rolled = torch.roll(y, 1, dims=1)
        return self.fc(torch.cat([y + before, y * rolled], dim=-1))


class PartlyReturned(nn.Module):
    """The first two units are an output of the model; the others are only read by the head."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc(y), y[:, :, :2]


class Crf(nn.Module):
    """Emissions and a Viterbi recursion over tags: no unit of the LSTM takes part in it."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 4, bidirectional=True, batch_first=True)
        self.emit = nn.Linear(8, 3)
        self.transitions = nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        emissions = self.emit(self.lstm(x)[0])
        score = emissions[:, 0]
        for t in range(1, x.size(1)):
            score = torch.logsumexp(score.unsqueeze(2) + self.transitions, dim=1) + emissions[:, t]
        return torch.logsumexp(score, 1)


def with_lengths(b: int, t: int) -> tuple[Tensor, Tensor]:
    return features(b, t), lengths_of(b, t)


def _both(path: str, hidden: int, reader: str, layers: int = 1) -> dict[str, tuple[Read, ...]]:
    last = f"{path}.l{layers - 1}"
    return merge(
        inside(path, hidden, layers, bidirectional=True),
        {last: [reads(reader)], f"{last}_reverse": [reads(reader, 1, hidden)]},
    )


def _one(path: str, hidden: int, *readers: Read, layers: int = 1) -> dict[str, tuple[Read, ...]]:
    return merge(inside(path, hidden, layers), {f"{path}.l{layers - 1}": readers})


_at = {"sizes": ((3, 6), (1, 6), (5, 6))}

ARCHITECTURES = [
    Architecture("tagger", Tagger, tokens, _both("lstm", 7, "hidden2tag.weight", 2)),
    Architecture("last_step", LastStep, features, _one("gru", 8, reads("fc1.weight"))),
    Architecture("gather_by_length", GatherByLength, with_lengths, _one("rnn", 7, reads("fc.weight"))),
    Architecture("index_by_length", IndexByLength, with_lengths, _one("rnn", 7, reads("fc.weight"))),
    Architecture(
        "max_and_mean",
        MaxAndMean,
        features,
        merge(
            inside("rnn", 6, bidirectional=True),
            {"rnn.l0": [reads("fc.weight", 1, 0, 12)], "rnn.l0_reverse": [reads("fc.weight", 1, 6, 18)]},
        ),
    ),
    Architecture("masked_pooling", MaskedPooling, with_lengths, _one("rnn", 7, reads("fc.weight", 1, 0, 7))),
    Architecture(
        "adaptive_pool", AdaptivePool, features, _one("rnn", 7, reads("fc.weight")), either=frozenset({"rnn.l0"})
    ),
    Architecture("final_states", FinalStates, features, _both("encoder", 7, "fc.weight", 2)),
    Architecture("cell_states", CellStates, features, _one("encoder", 7, reads("fc.weight", 1, 0, 7))),
    Architecture("states_by_view", StatesByView, features, _both("gru", 6, "fc.weight", 2)),
    Architecture(
        "every_layers_state",
        EveryLayersState,
        features,
        merge(inside("rnn", 6, 3), {f"rnn.l{n}": [reads("fc.weight", 1, 6 * n)] for n in range(3)}),
    ),
    Architecture("flatten_time", FlattenTime, features, _one("rnn", 7, reads("fc.weight", 1, *range(0, 42, 7))), **_at),
    Architecture(
        "flatten_units_first",
        FlattenUnitsFirst,
        features,
        _one("rnn", 7, reads("net.1.weight", 1, *range(6), stride=6)),
        **_at,
    ),
    Architecture("time_distributed", time_distributed, features, _one("rnn", 7, reads("td.module.0.weight"))),
    Architecture(
        "two_heads", TwoHeads, features, _one("body", 8, reads("heads.intent.weight"), reads("heads.slots.weight"))
    ),
    Architecture(
        "dataclass_output", DataclassOutput, features, _one("rnn", 7, reads("logits.weight"), reads("value.weight"))
    ),
    Architecture(
        "layer_norm_head",
        LayerNormHead,
        features,
        {"lstm.l0": inside("lstm", 7, 2)["lstm.l0"]},
        kept={"lstm.l1": "layer_?norm"},
    ),
    Architecture("normalised_features", NormalisedFeatures, features, kept={"rnn.l0": "normali[sz]|norm"}),
    Architecture("softmax_features", SoftmaxFeatures, features, kept={"rnn.l0": "softmax"}),
    Architecture("batch_norm_features", BatchNormFeatures, features, _one("lstm", 7, reads("fc.weight"))),
    Architecture("batch_norm_over_time", BatchNormOverTime, features, _one("lstm", 7, reads("fc.weight"))),
    Architecture("conv_after", ConvAfter, features, _both("rnn", 6, "conv.weight")),
    Architecture("conv_before", ConvBefore, lambda b, t: torch.randn(b, 1, 8, t), _both("rnn", 6, "embedding.weight")),
    Architecture("conv_transpose_after", ConvTransposeAfter, features, _one("rnn", 7, reads("up.weight", 0))),
    Architecture(
        "depthwise_after",
        DepthwiseAfter,
        features,
        _one("rnn", 6, reads("point.weight")),
        either=frozenset({"rnn.l0"}),
    ),
    Architecture(
        "weight_norm_head",
        WeightNormHead,
        features,
        _one("rnn", 7, reads("fc.parametrizations.weight.original1")),
    ),
    Architecture(
        "bilinear_head",
        BilinearHead,
        features,
        merge(_one("a", 6, reads("bilinear.weight", 1)), _one("b", 7, reads("bilinear.weight", 2))),
    ),
    Architecture(
        "chunk_gate",
        ChunkGate,
        features,
        {
            "rnn.l0": [
                Read("rnn.weight_hh_l0", 1, lambda k: [k % 4, k % 4 + 4]),
                Read("fc.weight", 1, lambda k: [k % 4]),
            ]
        },
    ),
    Architecture(
        "functional_glu",
        FunctionalGLU,
        features,
        {
            "rnn.l0": [
                Read("rnn.weight_hh_l0", 1, lambda k: [k % 4, k % 4 + 4]),
                Read("fc.weight", 1, lambda k: [k % 4]),
            ]
        },
        either=frozenset({"rnn.l0"}),
    ),
    Architecture("glu_over_linear", GLUOverLinear, features, _one("rnn", 8, reads("net.0.weight"))),
    Architecture(
        "highway",
        Highway,
        features,
        _one("rnn", 7, reads("transform.weight"), reads("plain.weight"), reads("fc.weight")),
    ),
    Architecture("gate_from_input", GateFromInput, features, _one("rnn", 7, reads("fc.weight"))),
    Architecture("scale_and_shift", ScaleAndShift, features, _one("rnn", 7, reads("fc.weight"))),
    Architecture("negative_slice", NegativeSlice, features, _one("rnn", 8, reads("fc.weight", units=range(5, 8)))),
    Architecture(
        "split_units",
        SplitUnits,
        features,
        _one("rnn", 8, reads("left.weight", units=range(3)), reads("right.weight", units=range(3, 8))),
    ),
    Architecture(
        "bare_weights",
        BareWeights,
        features,
        _one("rnn", 6, reads("wide", 1, 2), reads("tall", 0), reads("lin.weight")),
    ),
    Architecture(
        "joined_weights",
        JoinedWeights,
        features,
        _one("rnn", 6, reads("mu.weight"), reads("sigma.weight"), reads("tail", 0)),
    ),
    Architecture("masked_weight", MaskedWeight, features, _one("rnn", 6, reads("fc.weight"))),
    Architecture("casts", Casts, features, _one("rnn", 6, reads("fc.weight"))),
    Architecture(
        "shifted_residual",
        ShiftedResidual,
        features,
        _one("rnn", 6, reads("fc.weight", 1, 0, 6)),
        sizes=((3, 6), (1, 4), (5, 9)),
    ),
    Architecture(
        "partly_returned",
        PartlyReturned,
        features,
        _one("rnn", 6, reads("fc.weight")),
        kept={"rnn.l0": ("handed to the caller", range(2))},
    ),
    Architecture("crf", Crf, features, _both("lstm", 4, "emit.weight")),
]
