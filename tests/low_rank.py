"""LoRA on a weight: its own value and a product of low rank, for the tests of computed weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LoRA(nn.Module):
    def __init__(self, shape: torch.Size, rank: int = 2) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.randn(rank, shape[-1])), nn.Parameter(torch.randn(shape[0], rank) / 8)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down if weight.dim() == 2 else weight + self.up.sum(1)


def lora(module: nn.Module, name: str) -> None:
    parametrize.register_parametrization(module, name, LoRA(getattr(module, name).shape))
