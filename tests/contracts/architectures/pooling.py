"""Last steps, lengths, pooling over time, final states as features."""

from __future__ import annotations

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
        "shifted_residual",
        ShiftedResidual,
        features,
        _one("rnn", 6, reads("fc.weight", 1, 0, 6)),
        sizes=((3, 6), (1, 4), (5, 9)),
    ),
]
