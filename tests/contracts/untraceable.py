"""Models whose Python code looks at units: branches on values, .item(), .tolist(), numpy, step functions, at any place.

Of such code tracing sees that a value leaves, not what is done with it. Whatever `compact` makes of the model has to
take the same way on every input.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import sparsernn as srn

# What is looked at: a number, or a tensor of one.
LOOKS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda y, k: y[..., k].sum(),
    lambda y, k: y[:, -1, k].mean(),
    lambda y, k: y[0, 0, -1 - k],
    lambda y, k: y[..., :k].sum(),
    lambda y, k: y[..., k:].sum(),
    lambda y, k: y[..., : y.shape[-1] // 2].sum(),
    lambda y, k: y[..., ::2].sum(),
    lambda y, k: y.select(-1, k).max(),
    lambda y, k: y.narrow(-1, k, 1).sum(),
    lambda y, k: y.chunk(2, -1)[1].sum(),
    lambda y, k: y.index_select(-1, torch.tensor([k])).sum(),
    lambda y, k: y.unbind(-1)[k].sum(),
    lambda y, k: y.gather(-1, torch.full((*y.shape[:-1], 1), k)).sum(),
    lambda y, k: y.flip(-1)[..., k].sum(),
    lambda y, k: y.roll(1, -1)[..., k].sum(),
    lambda y, k: y.transpose(1, 2)[:, k].sum(),
    lambda y, k: y[..., torch.arange(y.shape[-1]) == k].sum(),
    lambda y, k: torch.stack([row[k] for row in y[:, -1]]).sum(),
    lambda y, k: y.reshape(-1)[k],
    lambda y, k: y.sum(),
    lambda y, k: y.norm() - 1,
    lambda y, k: (y[..., k] > 0).double().mean() - 0.5,
    lambda y, k: (y[..., : y.shape[-1] // 2] > 0.4).any().double() - 0.5,
    lambda y, k: (y[0, -1].argmax() == k).double() - 0.5,
    lambda y, k: y[..., k].tanh().cumsum(-1)[0, -1],
    lambda y, k: nn.functional.relu(y[..., k] - 0.3).sum() - 0.1,
)
# How it leaves for Python.
WAYS: tuple[Callable[[Tensor], float], ...] = (
    float,
    lambda v: v.item(),
    lambda v: v.reshape(1).tolist()[0],
    lambda v: float(v.detach().numpy()),
    lambda v: 1.0 if v > 0 else -1.0,
    lambda v: 1.0 if bool((v > 0).all()) else -1.0,
)
# What is made of it: of the units y, the number v, and as tensor t.
EFFECTS: tuple[Callable[[nn.Module, Tensor, float, Tensor], Tensor], ...] = (
    lambda m, y, v, t: m.head(y if v > 0 else -y),
    lambda m, y, v, t: m.head(y) if v > 0 else m.other(y),
    lambda m, y, v, t: m.head(y) + (1.0 if v > 0 else 0.0),
    lambda m, y, v, t: m.head(y) * m.table[int(abs(v) * 4) % 3],
    lambda m, y, v, t: m.head(y) * (t > 0),
    lambda m, y, v, t: torch.where(t > 0, m.head(y), m.other(y)),
    lambda m, y, v, t: m.head(y) + nn.functional.relu(t - 0.7),
    lambda m, y, v, t: m.head(y) + t.round(),
    lambda m, y, v, t: m.head(y)[:, : 1 + (v > 0)],
    lambda m, y, v, t: torch.from_numpy(np.asarray(m.head(y).detach().numpy() * np.sign(v))),
    lambda m, y, v, t: m.head(y[:, -1:]) if v > 0 else m.head(y[:, :1]),
)


class Looking(nn.Module):
    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        kind, self.width = draw.choice([nn.LSTM, nn.GRU, nn.RNN]), draw.randrange(5, 9)
        both = draw.random() < 0.25
        self.rnn = kind(3, self.width, draw.choice([1, 1, 2]), batch_first=True, bidirectional=both)
        size = self.width * (2 if both else 1)
        self.head, self.other, self.gate = nn.Linear(size, 2), nn.Linear(size, 2), nn.Linear(1, 1)
        self.register_buffer("table", torch.tensor([1.0, -2.0, 0.5]))
        self.look, self.way, self.effect = draw.choice(LOOKS), draw.choice(WAYS), draw.choice(EFFECTS)
        self.unit, self.by_gate = draw.randrange(self.width - 1), draw.random() < 0.25

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        t = self.look(y, self.unit)
        t = self.gate(t.reshape(1, 1)).sum() if self.by_gate else t
        return self.effect(self, y, self.way(t), t)


def changed(number: int) -> str:
    """How the function of model `number` changes when it is compacted; empty if it does not."""
    draw = random.Random(number)
    torch.manual_seed(draw.randrange(2**32))
    model = Looking(draw).double().eval()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        structure = srn.trace(model, x)
        for unit_set, free in structure.removable().items():
            for unit in free.nonzero()[:, 0].tolist():
                if draw.random() < 0.5:
                    for name, axis, index in structure.readers(unit_set, unit):
                        model.get_parameter(name).select(axis, index).zero_()
        small = srn.compact(model, x)
        for batch, length in [(2, 4)] * 20 + [(1, 2), (3, 7), (5, 3)] * 6:
            x = torch.randn(batch, length, 3, dtype=torch.float64)
            expected = model(x)
            try:
                found = small(x)
            except RuntimeError as error:  # a branch that the example did not take, in words
                if "no example reached this branch" in str(error):
                    continue
                raise
            if expected.shape != found.shape or float((expected - found).abs().max()) > 1e-8:
                looks, ways, effects = LOOKS.index(model.look), WAYS.index(model.way), EFFECTS.index(model.effect)
                return f"look {looks}, way {ways}, effect {effects}, by gate: {model.by_gate}"
    return ""
