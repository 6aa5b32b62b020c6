"""Models of one step that are given their state or keep it, each with an example and where its states are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from program_networks import Function

R, L = torch.randn, nn.Linear


class Silero(nn.Module):
    """A voice activity detector as it is shipped: one chunk, its state given and returned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 6, 4, stride=4)
        self.encoder = nn.Conv1d(6, 5, 3, padding=1)
        self.rnn = nn.LSTMCell(5, 5)
        self.head = nn.Conv1d(5, 1, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.encoder(F.relu(self.conv(x.unsqueeze(1))))).mean(-1)
        h, c = self.rnn(y, (state[0], state[1]))
        out = torch.sigmoid(self.head(F.relu(h).unsqueeze(-1))).mean(2)
        return out, torch.stack([h, c])


class Predictor(nn.Module):
    """A transducer's prediction net, its states in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.rnn = nn.LSTMCell(5, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, token: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h, c = self.rnn(self.embedding(token), (state["h"], state["c"]))
        return self.norm(h), {"h": h, "c": c}


class Policy(nn.Module):
    """A recurrent policy that keeps its state itself: one attribute set anew, one buffer written in place."""

    def __init__(self, rows: int = 2) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.ELU())
        self.cell = nn.GRUCell(6, 6)
        self.actor, self.critic = nn.Linear(6, 2), nn.Linear(6, 1)
        self.h = torch.zeros(rows, 6)
        self.register_buffer("mean", torch.zeros(rows, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.mean.copy_(0.9 * self.mean + 0.1 * x)
        self.h = self.cell(self.trunk(x - self.mean), self.h)
        return torch.tanh(self.actor(self.h)), self.critic(self.h)


class Lazy(nn.Module):
    """An attribute that the first call makes."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(4, 5)
        self.h: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.h is None:
            self.h = x.new_zeros(x.shape[0], 5)
        self.h = self.cell(x, self.h)
        return self.h


class Decoder(nn.Module):
    """One step of an attention decoder over a memory that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.cell = nn.GRUCell(4 + 6, 5)
        self.query, self.head = nn.Linear(5, 6), nn.Linear(5 + 6, 9)

    def forward(self, token: Tensor, h: Tensor, context: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.cell(torch.cat([self.embedding(token), context], -1), h)
        weights = torch.softmax(torch.bmm(memory, self.query(h).unsqueeze(-1)).squeeze(-1), -1)
        context = torch.bmm(weights.unsqueeze(1), memory).squeeze(1)
        return self.head(torch.cat([h, context], -1)), h, context


def _swap(m: Any, x: Tensor, other: Any) -> Any:
    """Two states that change places."""
    return m.l(other[0] + x), (other[1] * 0.5, other[0] - x)


class Written(nn.Module):
    """A window of past frames, moved on through views of its buffer, and a level that is changed twice in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.zeros(3, 4))
        self.register_buffer("level", torch.ones(4))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.window[:-1] = self.window[1:].clone()
        self.window[-1] = x.mean(0)
        self.level.mul_(0.9).add_(x.amax(0), alpha=0.1)
        return x / (1 + self.level**2) + self.head(self.window.view(-1))


def _late(m: Any, x: Tensor, past: Tensor) -> Any:
    """What was given three steps ago."""
    return past[:, 0], torch.cat([past[:, 1:], x[:, None]], 1)


STEPS: dict[str, tuple[Any, ...]] = {
    "voice detector": (Silero, lambda: (R(2, 16), torch.zeros(2, 2, 5)), {"states": {"state": 1}}),
    "transducer": (
        Predictor,
        lambda: (torch.randint(11, (2,)), {"h": R(2, 6), "c": R(2, 6)}),
        {"states": {"state": 1}},
    ),
    "policy": (Policy, lambda: R(2, 4)),
    "state made by the first call": (Lazy, lambda: R(2, 4)),
    "attention decoder": (
        Decoder,
        lambda: (torch.randint(9, (2,)), torch.zeros(2, 5), torch.zeros(2, 6), R(2, 7, 6)),
        {"states": {"h": 1, "context": 2}},
    ),
    "crossed states": (
        lambda: Function(_swap, l=L(3, 2)),
        lambda: (R(2, 3), (R(2, 3), R(2, 3))),
        {"states": {"other": 1}},
    ),
    "buffers written in place": (Written, lambda: R(2, 4)),
    "a state handed out as it was": (lambda: Function(_late), lambda: (R(2, 4), R(2, 3, 4)), {"states": {"other": 1}}),
}
