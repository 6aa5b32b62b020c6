"""What the tests of Bayesian sparsification have in common: levels, cells, and a sparsifier of small models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learn_models import tokens
from sparsernn.learn.bayes import Bayes

LEVELS = {"W": "weight", "W+N": ("weight", "unit"), "W+G+N": ("weight", "gate", "unit")}
CELLS = ["LSTM", "GRU", "RNN"]


def bayes(model: nn.Module, example=None, **options) -> Bayes:
    options = {"train_size": 4000, "include": "all", **options}
    return Bayes(model, tokens() if example is None else example, **options)


def without_noise(sparsifier: Bayes) -> None:
    for sigma in sparsifier._posterior.log_sigmas:
        sigma.data.fill_(-torch.inf)


def random_means(sparsifier: Bayes) -> None:
    """Multipliers of all kinds away from one, which are what the noisy forward shows."""
    for own in sparsifier._posterior.kinds.values():
        own.mean.data.uniform_(0.6, 1.6)


class Last(nn.Module):
    """A recurrent layer whose output is read by a linear one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def same_gradients(found: Tensor, expected: Tensor, wanted: list[Tensor]) -> None:
    for a, b in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


OPTIONS = {
    "plain": {},
    "layers": {"num_layers": 2},
    "both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
}
