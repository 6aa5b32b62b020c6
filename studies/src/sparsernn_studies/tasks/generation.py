"""Generation of letters: the next one is learnt, strings are drawn letter by letter until they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .sequences import PADDING, batches
from .text import wide


class Generator(Protocol):
    def step(self, x_B: Tensor, state: Any) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class NextLetter:
    """The training objective: mean cross entropy (nats) of each string's next letter, its first one given.

    `x_TN` (padded) and `lengths_N` hold all strings; the model maps x_TB to logits_TBV. Batches as in
    `Classification`.
    """

    x_TN: Tensor
    lengths_N: Tensor
    batch_size: int
    seed: int = 0

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """The batch of `step`: x_TB, cut to its longest string."""
        chosen = batches(len(self.lengths_N), self.batch_size, self.seed, step)[rank::world]
        return self.x_TN[: int(self.lengths_N[chosen].max()), chosen]

    def loss(self, model: nn.Module, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mean loss over all letters but the first, a scalar; no state is carried on."""
        logits_NV, target_N = wide(model(batch[:-1])).flatten(0, 1), batch[1:].flatten()
        return nn.functional.cross_entropy(logits_NV, target_N, ignore_index=PADDING), None


@torch.no_grad()
def sample(
    model: Generator, letters: str, count: int, longest: int, seed: int, *, first: str = "B", last: str = "E"
) -> list[str]:
    """`count` strings that begin with `first`, each letter drawn from the model's distribution until `last`.

    Letters are numbered from 1 as `padded` does. A string that has no end after `longest` letters is cut there.
    """
    generator = torch.Generator().manual_seed(seed)
    x_B = torch.full((count,), letters.index(first) + 1)
    drawn, state = [x_B], None
    while len(drawn) < longest:
        logits_BV, state = model.step(drawn[-1], state)
        logits_BV[:, PADDING] = -torch.inf
        drawn.append(torch.multinomial(logits_BV.float().softmax(-1), 1, generator=generator)[:, 0])
    found = []
    for numbers in torch.stack(drawn, 1).tolist():
        string = "".join(letters[n - 1] for n in numbers)
        end = string.find(last, 1)
        found.append(string if end < 0 else string[: end + 1])
    return found


def share(strings: list[str], judge: Callable[[str], bool]) -> float:
    """Share of the strings that `judge` accepts."""
    return sum(map(judge, strings)) / len(strings)
