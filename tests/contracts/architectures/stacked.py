"""Recurrent layers on top of and beside one another: stacks, skips, residual sums, sharing, first states."""

from __future__ import annotations

import torch
from torch import nn

from ..architecture import Architecture, Read, features, inside, merge, reads, tie, tokens


class TakeOutput(nn.Module):
    def forward(self, result):
        return result[0]


def sequential_take_output():
    return nn.Sequential(nn.LSTM(5, 7, batch_first=True), TakeOutput(), nn.Linear(7, 4))


def sequential_mixed():
    return nn.Sequential(
        nn.Embedding(11, 6),
        nn.LSTM(6, 8, batch_first=True, bidirectional=True),
        TakeOutput(),
        nn.Dropout(0.3),
        nn.GRU(16, 7, batch_first=True),
        TakeOutput(),
        nn.Tanh(),
        nn.Linear(7, 4),
    )


class ModuleListStack(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [5, 9, 6, 8]
        self.rnns = nn.ModuleList(nn.GRU(a, b, batch_first=True) for a, b in zip(widths, widths[1:]))
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        for rnn in self.rnns:
            x, _ = rnn(x)
            x = self.drop(torch.relu(x))
        return self.fc(x)


class ResidualStack(nn.Module):
    def __init__(self, hidden=7):
        super().__init__()
        self.proj = nn.Linear(5, hidden)
        self.layers = nn.ModuleList(nn.LSTM(hidden, hidden, batch_first=True) for _ in range(2))
        self.out = nn.Linear(hidden, 4)

    def forward(self, x):
        x = self.proj(x)
        for layer in self.layers:
            y, _ = layer(x)
            x = x + y
        return self.out(x)


class ResidualFromSecond(nn.Module):
    """Only equal widths are added, so the first layer's units are tied to the second's and not to the input."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(5, 7)
        self.second = nn.GRU(7, 7)
        self.out = nn.Linear(7, 3)

    def forward(self, x):
        a, _ = self.first(x.transpose(0, 1))
        b, _ = self.second(a)
        return self.out((a + b) / 2).transpose(0, 1)


class SkipConcat(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn1 = nn.LSTM(5, 6, batch_first=True)
        self.rnn2 = nn.LSTM(5 + 6, 7, batch_first=True)
        self.fc = nn.Linear(5 + 6 + 7, 4)

    def forward(self, x):
        h1, _ = self.rnn1(x)
        h2, _ = self.rnn2(torch.cat((x, h1), dim=-1))
        return self.fc(torch.cat((x, h1, h2), dim=2))


class LayerMix(nn.Module):
    """A learned, softmax-weighted mixture of the layers, as in ELMo."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(5, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True)])
        self.scalars = nn.Parameter(torch.zeros(2))
        self.gamma = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        outs = []
        for layer in self.layers:
            x, _ = layer(x)
            outs.append(x)
        weights = torch.softmax(self.scalars, dim=0)
        mixed = sum(w * o for w, o in zip(weights, outs))
        return self.fc(self.gamma * mixed)


class ProjectedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 8, num_layers=2, proj_size=4, bidirectional=True, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        out, (h, c) = self.lstm(x)
        return self.head(out)


class LearnedState(nn.Module):
    def __init__(self):
        super().__init__()
        self.h0 = nn.Parameter(torch.zeros(2, 1, 7))
        self.c0 = nn.Parameter(torch.zeros(2, 1, 7))
        self.rnn = nn.LSTM(5, 7, num_layers=2, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        b = x.size(0)
        state = (self.h0.expand(-1, b, -1).contiguous(), self.c0.repeat(1, b, 1))
        return self.fc(self.rnn(x, state)[0])


class StateFromHiddenSize(nn.Module):
    def __init__(self, input_size=5, hidden_size=8, num_layers=2):
        super().__init__()
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)
        self.fc = nn.Linear(hidden_size, 2)

    def forward(self, x):
        h0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size, dtype=x.dtype, device=x.device)
        c0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size).to(x)
        out, _ = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


class StateOfOnes(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(5, 7, bidirectional=True)
        self.fc = nn.Linear(14, 2)

    def forward(self, x):
        x = x.permute(1, 0, 2)
        out, _ = self.gru(x, x.new_ones(2, x.shape[1], 7) * 0.5)
        return self.fc(out).permute(1, 0, 2)


class StateKeptOnSelf(nn.Module):
    def __init__(self, hidden_dim=7):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.rnn = nn.RNN(5, hidden_dim, batch_first=True)
        self.fc = nn.Linear(hidden_dim, 2)
        self.hidden = None

    def init_hidden(self, batch_size):
        weight = next(self.parameters()).data
        return weight.new(1, batch_size, self.hidden_dim).zero_()

    def forward(self, x):
        self.hidden = self.init_hidden(len(x))
        out, _ = self.rnn(x, self.hidden)
        return self.fc(out)


class SharedLayer(nn.Module):
    """One layer called twice: its input columns read its own units and the projection's channels."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(5, 7)
        self.rnn = nn.GRU(7, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        y = self.proj(x)
        for _ in range(2):
            y, _ = self.rnn(y)
        return self.fc(y)


class SharedOnRawInput(nn.Module):
    """As SharedLayer, but the first call reads the model's own input through the same columns."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 5, batch_first=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        y, _ = self.rnn(y)
        return self.fc(y)


class TwoBackwards(nn.Module):
    """A second layer that reads the first one's output backwards in time."""

    def __init__(self):
        super().__init__()
        self.a = nn.LSTM(5, 6, batch_first=True)
        self.b = nn.LSTM(6, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        y, _ = self.a(x)
        z, _ = self.b(y.flip(1))
        return self.fc(z.flip([1]))


class SumOfDirections(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.rnn = nn.GRU(5, hidden, bidirectional=True, batch_first=True)
        self.norm = nn.BatchNorm1d(hidden)
        self.fc = nn.Linear(hidden, 4)

    def forward(self, x):
        y, _ = self.rnn(x)
        y = y[:, :, : self.hidden] + y[:, :, self.hidden :]
        b, t, h = y.shape
        y = self.norm(y.reshape(b * t, h)).view(b, t, h)
        return self.fc(y).log_softmax(-1)


class DirectionsByView(nn.Module):
    """Directions parted by a view, as in the documentation of torch.nn.LSTM, and averaged."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, bidirectional=True)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y, _ = self.rnn(x.transpose(0, 1))
        y = y.view(y.size(0), y.size(1), 2, -1).mean(2)
        return self.fc(y)


class StackedMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.GRU(5, 7, batch_first=True)
        self.right = nn.RNN(5, 7, batch_first=True, nonlinearity="relu")
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        both = torch.stack([self.left(x)[0], self.right(x)[0]], dim=0)
        return self.fc(both.mean(dim=0))


class Pyramid(nn.Module):
    """Two consecutive steps become one, as in Listen, Attend and Spell."""

    def __init__(self):
        super().__init__()
        self.low = nn.LSTM(5, 4, bidirectional=True, batch_first=True)
        self.high = nn.LSTM(16, 6, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        y, _ = self.low(x)
        b, t, f = y.shape
        y = y[:, : t - t % 2].contiguous().view(b, t // 2, 2 * f)
        return self.fc(self.high(y)[0])


class Dilated(nn.Module):
    """Every second step goes on: time folded into the batch and back."""

    def __init__(self):
        super().__init__()
        self.a = nn.GRU(5, 6, batch_first=True)
        self.b = nn.GRU(6, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        y, _ = self.a(x)
        b, t, f = y.shape
        y = y.reshape(b, t // 2, 2, f).transpose(1, 2).reshape(b * 2, t // 2, f)
        z, _ = self.b(y)
        z = z.reshape(b, 2, t // 2, -1).transpose(1, 2).reshape(b, t, -1)
        return self.fc(z)


class UnbatchedChain(nn.Module):
    """Layers without a batch axis, one sequence at a time."""

    def __init__(self):
        super().__init__()
        self.a = nn.LSTM(5, 6)
        self.b = nn.GRU(6, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, batch):
        scores = []
        for sequence in batch:
            y, _ = self.a(sequence)
            _, h = self.b(y)
            scores.append(self.fc(h.squeeze(0)))
        return torch.stack(scores)


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.fast = nn.GRU(5, 6, batch_first=True)
        self.slow = nn.LSTM(5, 6, num_layers=2, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x, slow: bool = False):
        if slow:
            y, _ = self.slow(x)
        else:
            y, _ = self.fast(x)
        return self.fc(y)


def _folded(k: int) -> list[int]:
    return [k % 6]


_residual = tie(
    merge(
        inside("layers.0", 7),
        inside("layers.1", 7),
        {f"layers.{n}.l0": [reads("layers.0.weight_ih_l0"), reads("layers.1.weight_ih_l0")] for n in (0, 1)},
        {f"layers.{n}.l0": [reads("out.weight")] for n in (0, 1)},
    ),
    "layers.0.l0",
    "layers.1.l0",
)

ARCHITECTURES = [
    Architecture(
        "sequential_take_output",
        sequential_take_output,
        features,
        merge(inside("0", 7), {"0.l0": [reads("2.weight")]}),
    ),
    Architecture(
        "sequential_mixed",
        sequential_mixed,
        tokens,
        merge(
            inside("1", 8, bidirectional=True),
            {"1.l0": [reads("4.weight_ih_l0")], "1.l0_reverse": [reads("4.weight_ih_l0", 1, 8)]},
            inside("4", 7),
            {"4.l0": [reads("7.weight")]},
        ),
    ),
    Architecture(
        "module_list_stack",
        ModuleListStack,
        features,
        merge(
            *(inside(f"rnns.{n}", 0) for n in range(3)),
            {f"rnns.{n}.l0": [reads(f"rnns.{n + 1}.weight_ih_l0")] for n in range(2)},
            {"rnns.2.l0": [reads("fc.weight")]},
        ),
    ),
    Architecture(
        "residual_stack",
        ResidualStack,
        features,
        _residual,
        owns={"layers.0.l0": [reads("proj.weight", 0), reads("proj.bias", 0)]},
    ),
    Architecture(
        "residual_from_second",
        ResidualFromSecond,
        features,
        tie(
            merge(
                inside("first", 7),
                {"first.l0": [reads("second.weight_ih_l0"), reads("out.weight")]},
                inside("second", 7),
            ),
            "first.l0",
            "second.l0",
        ),
    ),
    Architecture(
        "skip_concat",
        SkipConcat,
        features,
        merge(
            inside("rnn1", 6),
            {"rnn1.l0": [reads("rnn2.weight_ih_l0", 1, 5), reads("fc.weight", 1, 5)]},
            inside("rnn2", 7),
            {"rnn2.l0": [reads("fc.weight", 1, 11)]},
        ),
    ),
    Architecture(
        "layer_mix",
        LayerMix,
        features,
        tie(
            merge(
                inside("layers.0", 6),
                {"layers.0.l0": [reads("layers.1.weight_ih_l0"), reads("fc.weight")]},
                inside("layers.1", 6),
            ),
            "layers.0.l0",
            "layers.1.l0",
        ),
    ),
    Architecture(
        "projected_lstm",
        ProjectedLSTM,
        features,
        merge(
            inside("lstm", 8, 2, True, proj=4),
            {
                "lstm.l1.projected": [reads("head.weight")],
                "lstm.l1_reverse.projected": [reads("head.weight", 1, 4)],
            },
        ),
    ),
    Architecture("learned_state", LearnedState, features, merge(inside("rnn", 7, 2), {"rnn.l1": [reads("fc.weight")]})),
    Architecture(
        "state_from_hidden_size",
        StateFromHiddenSize,
        features,
        merge(inside("lstm", 8, 2), {"lstm.l1": [reads("fc.weight")]}),
    ),
    Architecture(
        "state_of_ones",
        StateOfOnes,
        features,
        merge(
            inside("gru", 7, bidirectional=True),
            {"gru.l0": [reads("fc.weight")], "gru.l0_reverse": [reads("fc.weight", 1, 7)]},
        ),
    ),
    Architecture(
        "state_kept_on_self", StateKeptOnSelf, features, merge(inside("rnn", 7), {"rnn.l0": [reads("fc.weight")]})
    ),
    Architecture(
        "shared_layer",
        SharedLayer,
        features,
        merge(inside("rnn", 7), {"rnn.l0": [reads("rnn.weight_ih_l0"), reads("fc.weight")]}),
    ),
    Architecture(
        "shared_on_raw_input",
        SharedOnRawInput,
        features,
        merge(inside("rnn", 5), {"rnn.l0": [reads("rnn.weight_ih_l0"), reads("fc.weight")]}),
        either=frozenset({"rnn.l0"}),
    ),
    Architecture(
        "two_backwards",
        TwoBackwards,
        features,
        merge(inside("a", 6), {"a.l0": [reads("b.weight_ih_l0")]}, inside("b", 7), {"b.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "sum_of_directions",
        SumOfDirections,
        features,
        tie(
            merge(inside("rnn", 6, bidirectional=True), {"rnn.l0": [reads("fc.weight")]}),
            "rnn.l0",
            "rnn.l0_reverse",
        ),
    ),
    Architecture(
        "directions_by_view",
        DirectionsByView,
        features,
        tie(
            merge(inside("rnn", 6, bidirectional=True), {"rnn.l0": [Read("fc.weight", 1, _folded)]}),
            "rnn.l0",
            "rnn.l0_reverse",
        ),
    ),
    Architecture(
        "stacked_mean",
        StackedMean,
        features,
        tie(merge(inside("left", 7), inside("right", 7), {"left.l0": [reads("fc.weight")]}), "left.l0", "right.l0"),
    ),
    Architecture(
        "pyramid",
        Pyramid,
        features,
        merge(
            inside("low", 4, bidirectional=True),
            {
                "low.l0": [reads(f"high.weight_ih_l0{end}", 1, 0, 8) for end in ("", "_reverse")],
                "low.l0_reverse": [reads(f"high.weight_ih_l0{end}", 1, 4, 12) for end in ("", "_reverse")],
            },
            inside("high", 6, bidirectional=True),
            {"high.l0": [reads("fc.weight")], "high.l0_reverse": [reads("fc.weight", 1, 6)]},
        ),
        sizes=((3, 6), (1, 5), (4, 8)),
    ),
    Architecture(
        "dilated",
        Dilated,
        features,
        merge(inside("a", 6), {"a.l0": [reads("b.weight_ih_l0")]}, inside("b", 7), {"b.l0": [reads("fc.weight")]}),
        sizes=((3, 6), (1, 4), (2, 8)),
    ),
    Architecture(
        "unbatched_chain",
        UnbatchedChain,
        features,
        merge(inside("a", 6), {"a.l0": [reads("b.weight_ih_l0")]}, inside("b", 4), {"b.l0": [reads("fc.weight")]}),
    ),
    Architecture(
        "two_branches",
        TwoBranches,
        lambda b, t: [(features(b, t),), {"x": features(b, t), "slow": True}],
        merge(
            inside("fast", 6),
            inside("slow", 6, 2),
            {"fast.l0": [reads("fc.weight")], "slow.l1": [reads("fc.weight")]},
        ),
    ),
]
