"""Heads: several outputs, gates by products, slices of units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Architecture, Read, features, inside, merge, reads


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
        "two_heads", TwoHeads, features, _one("body", 8, reads("heads.intent.weight"), reads("heads.slots.weight"))
    ),
    Architecture(
        "dataclass_output", DataclassOutput, features, _one("rnn", 7, reads("logits.weight"), reads("value.weight"))
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
    Architecture("negative_slice", NegativeSlice, features, _one("rnn", 8, reads("fc.weight", units=range(5, 8)))),
    Architecture(
        "split_units",
        SplitUnits,
        features,
        _one("rnn", 8, reads("left.weight", units=range(3)), reads("right.weight", units=range(3, 8))),
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
