"""Classification of symbol sequences of different lengths: padded batches with lengths, accuracy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .evaluation import share_right
from .text import wide

PADDING = 0  # symbol number of padding; letters count from 1
T = TypeVar("T")


def padded(strings: Sequence[str], letters: str) -> tuple[Tensor, Tensor]:
    """`strings` as symbol numbers x_TB, zeros after each end, and their lengths_B."""
    number = {letter: n + 1 for n, letter in enumerate(letters)}
    sequences = [torch.tensor([number[letter] for letter in string]) for string in strings]
    return nn.utils.rnn.pad_sequence(sequences, padding_value=PADDING), torch.tensor([len(s) for s in strings])


def batches(count: int, size: int, seed: int, step: int) -> Tensor:
    """Which of `count` examples are in the batch of `step`; each epoch has an order of its own."""
    epoch, within = divmod(step, max(1, count // size))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 7919 + epoch))
    return order[within * size : (within + 1) * size]


def of_one_length(items: Iterable[T], length: Callable[[T], Any], size: int) -> list[list[T]]:
    """Batches of at most `size` items that are equally long, in the order in which they come."""
    groups = defaultdict[Any, list[T]](list)
    for item in items:
        groups[length(item)].append(item)
    return [group[n : n + size] for group in groups.values() for n in range(0, len(group), size)]


def shuffled(items: Sequence[T], random: torch.Generator | None = None) -> list[T]:
    """The items in random order, without `random` always the same."""
    random = random or torch.Generator().manual_seed(0)
    return [items[n] for n in torch.randperm(len(items), generator=random).tolist()]


def epoch_of_one_length(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch through all examples: each of one length, so that nothing is padding."""
    random = torch.Generator().manual_seed(seed * 7919 + epoch)
    return shuffled(of_one_length(shuffled(range(len(lengths)), random), lengths.__getitem__, size), random)


@dataclass(frozen=True)
class Classification:
    """The training objective: mean cross entropy (nats) of the class.

    `x_TN` (padded), `lengths_N`, `classes_N` hold all examples; each epoch goes through them in an order of its own,
    which depends on `seed` and the epoch alone. The model maps (x_TB, lengths_B) to logits_BC and must not look at
    the padding.
    """

    x_TN: Tensor
    lengths_N: Tensor
    classes_N: Tensor
    batch_size: int
    seed: int = 0

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of `step`: x_TB cut to its longest sequence, lengths_B, classes_B."""
        chosen = batches(len(self.classes_N), self.batch_size, self.seed, step)[rank::world]
        lengths_B = self.lengths_N[chosen]
        return self.x_TN[: int(lengths_B.max()), chosen], lengths_B, self.classes_N[chosen]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        """Mean loss of the batch, a scalar; no state is carried on."""
        x_TB, lengths_B, classes_B = batch
        return nn.functional.cross_entropy(wide(model(x_TB, lengths_B)), classes_B), None


def in_parts(x_TN: Tensor, lengths_N: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """x_TB cut to its longest sequence, and lengths_B, of so many sequences after the other."""
    for x_TB, lengths_B in zip(x_TN.split(batch, 1), lengths_N.split(batch)):
        yield x_TB[: int(lengths_B.max())], lengths_B


def accuracy(model: nn.Module, x_TN: Tensor, lengths_N: Tensor, classes_N: Tensor, *, batch: int = 256) -> float:
    """Share of sequences whose class is right. The model's training mode is left as it was."""
    return share_right(model, zip(in_parts(x_TN, lengths_N, batch), classes_N.split(batch)))
