"""Several sparsifiers on one training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from sparsernn.learn.sparsifier import Sparsifier


class Together(Sparsifier):
    """Sparsifiers of one model as one: each is attached to the same optimizer, and they finish in their order."""

    def __init__(self, *parts: Sparsifier) -> None:
        self.parts, self.model = parts, parts[0].model

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> Self:
        for part in self.parts:
            part.attach(optimizer, *others)
        return self

    def penalty(self) -> Tensor:
        first, *rest = (part.penalty() for part in self.parts)
        return sum(rest, start=first)

    def density(self) -> float:
        """Of the first one."""
        return self.parts[0].density()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)

    def finish(self) -> nn.Module:
        for part in self.parts:
            part.finish()
        return self.model
