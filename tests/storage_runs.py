"""Trainings with `Rewire(storage=)` on small nets, for the tests of sparse storage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learn_models import OPTIMIZERS, double_tagger
from sparsernn.learn.rewire import Rewire

METHODS = {
    "SET": {"decay": "constant", "end": 1.0},
    "RigL": {"grow": "gradient", "share": 0.3},
    "Selfish-RNN": {"share": 0.5},
}
SETTINGS = {
    "weights of each matrix": {},
    "weights of a layer": {"scope": "layer"},
    "weights of the model": {"scope": "model", "initial": "erdos-renyi"},
    "blocks": {"level": "block"},
    "words of the model": {"level": "word", "scope": "model"},
    "all matrices": {"include": "all"},
}
ELEMENTWISE = [name for name in OPTIMIZERS if name not in ("lbfgs", "fused adam")]
MATRIX = "rnn.weight_hh_l0"


class Written(nn.Module):
    """A loop over a cell, and a matrix that the model itself multiplies with: many uses of each in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell, self.head = nn.Embedding(11, 9), nn.LSTMCell(9, 20), nn.Linear(20, 11)
        self.own = nn.Parameter(torch.randn(20, 9) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        e_BTI, state, found = self.embedding(x), None, []
        for t in range(x.shape[1]):
            h, c = self.cell(e_BTI[:, t], state)
            h = torch.tanh(h + e_BTI[:, t] @ self.own.t())
            state = h, c
            found.append(h)
        return self.head(torch.stack(found, 1))


def written() -> nn.Module:
    torch.manual_seed(0)
    return Written().double()


def begun(storage="sparse", make=double_tagger, optimizer="adam with weight decay", **options):
    model = make()
    built = OPTIMIZERS[optimizer](model)
    settings = {"steps": 16, "every": 3, "storage": storage, **options}
    return model, built, Rewire(model, None, 0.8, **settings).attach(built)


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values()):
        assert torch.equal(a, b), name
