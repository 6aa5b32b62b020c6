"""A tagger whose states are alive, and data for it, for the tests of folding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tagger(nn.Module):
    def __init__(self, cell=nn.LSTM, hidden=12, bias=True, **options):
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.rnn = cell(6, hidden, bias=bias, **options)
        self.head = nn.Linear(
            options.get("proj_size", hidden) * (2 if options.get("bidirectional") else 1), 4, bias=bias
        )

    def forward(self, x_TB, state=None):
        return self.head(self.rnn(self.embedding(x_TB), state)[0])


def made(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep states alive."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-1, 1)
    return model.double().eval()


def batches(number: int = 6, steps: int = 10, batch: int = 8, seed: int = 1) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randint(9, (steps, batch), generator=source) for _ in range(number)]


def inputs(number: int = 5, *shape: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    return [torch.randn(*(shape or (6, 9, 5)), generator=source).double() for _ in range(number)]
