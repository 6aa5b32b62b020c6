"""Normalisation and convolutions round a recurrent layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, Read, features, inside, merge, reads


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


def _both(path: str, hidden: int, reader: str, layers: int = 1) -> dict[str, tuple[Read, ...]]:
    last = f"{path}.l{layers - 1}"
    return merge(
        inside(path, hidden, layers, bidirectional=True),
        {last: [reads(reader)], f"{last}_reverse": [reads(reader, 1, hidden)]},
    )


def _one(path: str, hidden: int, *readers: Read, layers: int = 1) -> dict[str, tuple[Read, ...]]:
    return merge(inside(path, hidden, layers), {f"{path}.l{layers - 1}": readers})


ARCHITECTURES = [
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
        kept={"rnn.l0": ("divided by its norm", range(1, 2))},
    ),
]
