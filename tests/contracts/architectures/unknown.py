"""What can't be followed: the units stay, and the operation is named."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..architecture import Architecture, features, inside, merge, reads


class Softsign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x / (1 + x.abs())

    @staticmethod
    def backward(ctx, grad):
        return grad


class Below(nn.Module):
    """Two layers; what the head does with the second is for the subclasses."""

    def __init__(self):
        super().__init__()
        self.low = nn.GRU(5, 6, batch_first=True)
        self.rnn = nn.LSTM(6, 7, batch_first=True)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        return self.head(self.rnn(self.low(x)[0])[0])


@torch.library.custom_op("contracts::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + x.norm(dim=-1, keepdim=True))


class CustomOperation(Below):
    """An operation that the user brought along."""

    def head(self, y):
        return self.fc(squash(y))


class CustomFunction(Below):
    def head(self, y):
        return self.fc(Softsign.apply(y))


class ThroughNumpy(Below):
    def head(self, y):
        return self.fc(torch.from_numpy(np.tanh(y.detach().numpy())))


class ThroughLists(Below):
    def head(self, y):
        return self.fc(torch.tensor(y.tolist(), dtype=y.dtype))


class SortedUnits(Below):
    """Every step's units sorted by value: their places depend on the values."""

    def head(self, y):
        return self.fc(y.sort(dim=-1).values)


class SpectrumOfUnits(Below):
    def head(self, y):
        return self.fc(torch.fft.fft(y, dim=-1).real)


class Variance(Below):
    """Divided by the spread over units."""

    def head(self, y):
        return self.fc(y / (1 + y.std(-1, keepdim=True)))


class MaxOverUnits(Below):
    def head(self, y):
        return self.fc(y) + y.amax(-1, keepdim=True)


class ReadAsNumber(Below):
    """One unit's mean steers the computation as a Python number."""

    def head(self, y):
        return self.fc(y) * (2.0 if y[0, 0, 0].item() > 0 else 0.5)


class UnitsAsIndices(Below):
    """The strongest unit chooses a row of a table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 3)

    def head(self, y):
        return self.fc(y) + self.table(y.argmax(-1))


class CumulativeOverUnits(Below):
    def head(self, y):
        return self.fc(y.cumsum(-1))


class GroupNormHead(Below):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(1, 7)

    def head(self, y):
        return self.fc(self.norm(y.transpose(1, 2)).transpose(1, 2))


class Checkpointed(Below):
    """Recomputed parts are seen like all others."""

    def head(self, y):
        return checkpoint(self.fc, y, use_reentrant=False)


class UnusedDirection(nn.Module):
    """Only the forward direction is used: the other is read by nobody but itself."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 6, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][..., :6])


def _kept(pattern: str) -> dict:
    return {
        "readers": {"low.l0": [*inside("low", 6)["low.l0"], reads("rnn.weight_ih_l0")]},
        "kept": {"rnn.l0": pattern},
    }


ARCHITECTURES = [
    Architecture(
        "custom_function",
        CustomFunction,
        features,
        merge(
            inside("low", 6),
            {"low.l0": [reads("rnn.weight_ih_l0")]},
            inside("rnn", 7),
            {"rnn.l0": [reads("fc.weight")]},
        ),
        either=frozenset({"low.l0", "rnn.l0"}),
    ),
    Architecture("custom_operation", CustomOperation, features, **_kept("squash")),
    # A tensor that comes out of nowhere may have come from any unit.
    Architecture("through_numpy", ThroughNumpy, features, **_kept("numpy"), either=frozenset({"low.l0"})),
    Architecture("through_lists", ThroughLists, features, **_kept("tolist"), either=frozenset({"low.l0"})),
    Architecture("sorted_units", SortedUnits, features, **_kept("sort")),
    Architecture("spectrum_of_units", SpectrumOfUnits, features, **_kept("fft")),
    Architecture("variance", Variance, features, **_kept("std")),
    Architecture("max_over_units", MaxOverUnits, features, **_kept("max")),
    Architecture(
        "read_as_number",
        ReadAsNumber,
        features,
        merge(
            inside("low", 6),
            {"low.l0": [reads("rnn.weight_ih_l0")]},
            inside("rnn", 7),
            {"rnn.l0": [reads("fc.weight")]},
        ),
        kept={"rnn.l0": ("item", range(1))},
    ),
    Architecture("units_as_indices", UnitsAsIndices, features, **_kept("argmax|embedding|ind(ex|ices)")),
    Architecture("cumulative_over_units", CumulativeOverUnits, features, **_kept("cumsum")),
    Architecture("group_norm_head", GroupNormHead, features, **_kept("group_?norm")),
    Architecture(
        "checkpointed",
        Checkpointed,
        features,
        merge(
            inside("low", 6),
            {"low.l0": [reads("rnn.weight_ih_l0")]},
            inside("rnn", 7),
            {"rnn.l0": [reads("fc.weight")]},
        ),
    ),
    Architecture(
        "unused_direction",
        UnusedDirection,
        features,
        merge(inside("rnn", 6, bidirectional=True), {"rnn.l0": [reads("fc.weight")]}),
        silent=frozenset({"rnn.weight_hh_l0_reverse"}),
    ),
]
