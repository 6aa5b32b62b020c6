"""A chain for delta streams, and inputs of which some stand still."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Chain(nn.Module):
    def __init__(self, cls: Any = nn.GRU, **options: Any) -> None:
        super().__init__()
        self.rnn = cls(9, 20, 2, **options)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def walk(steps: int, features: int = 9, seed: int = 0) -> Tensor:
    """(steps, 1, features): some features stand still for a while, others creep or jump."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randn(steps, 1, features, generator=generator) * torch.rand(steps, 1, 1, generator=generator) ** 3
    return (moves * (torch.rand(steps, 1, features, generator=generator) < 0.3)).cumsum(0) * 0.3
