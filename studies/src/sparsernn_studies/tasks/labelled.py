"""Labelled texts: the class of each by its last words. Words as numbers, batches of nearly one length, accuracy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .evaluation import share_right
from .sequences import shuffled
from .text import wide

PADDING, START, UNKNOWN = 0, 1, 2  # numbers that are no words
NUMBERS = 3  # of them
_WORD = re.compile(r"[a-z0-9']+")

Parsed = list[tuple[list[str], int]]  # words and class of each text


@dataclass(frozen=True)
class LabelledTexts:
    """`words`: int64 numbers of each text, at most so many of its last ones; `classes_N`: int64."""

    words: tuple[Tensor, ...]
    classes_N: Tensor

    def __len__(self) -> int:
        return len(self.words)

    def some(self, chosen: Iterable[int]) -> LabelledTexts:
        numbers = list(chosen)
        return LabelledTexts(tuple(self.words[n] for n in numbers), self.classes_N[numbers])


@dataclass(frozen=True)
class Labelled:
    """A data set: what is learnt, watched and reported on."""

    vocabulary: tuple[str, ...]  # word n has the number n + 3; the most frequent first
    train: LabelledTexts
    valid: LabelledTexts
    test: LabelledTexts

    @property
    def symbols(self) -> int:
        return len(self.vocabulary) + NUMBERS


def words_of(text: str) -> list[str]:
    """Lower-case words, without markup and punctuation."""
    return _WORD.findall(text.replace("<br />", " ").lower())


def labelled(train: Parsed, test: Parsed, words: int, length: int, valid: float) -> Labelled:
    """The data set with the `words` most frequent words of `train`, texts cut to their last `length` words.

    The last share `valid` of the training texts is kept to watch.
    """
    seen = Counter(word for text, _ in train for word in text)
    vocabulary = tuple(sorted(seen, key=lambda word: (-seen[word], word))[:words])
    number = {word: n + NUMBERS for n, word in enumerate(vocabulary)}
    learnt, reported = (numbered(part, number, length) for part in (train, test))
    last = round(len(learnt) * (1 - valid))
    return Labelled(vocabulary, learnt.some(range(last)), learnt.some(range(last, len(learnt))), reported)


def numbered(texts: Sequence[tuple[list[str], int]], number: dict[str, int], length: int) -> LabelledTexts:
    """The texts by the numbers of their words, a start before each."""
    words = tuple(
        torch.tensor([START, *(number.get(word, UNKNOWN) for word in text)][-length:], dtype=torch.int64)
        for text, _ in texts
    )
    return LabelledTexts(words, torch.tensor([label for _, label in texts]))


def padded(texts: LabelledTexts, chosen: Iterable[int]) -> Tensor:
    """x_TB of these texts, padding before each: all end with the last step."""
    return nn.utils.rnn.pad_sequence([texts.words[n] for n in chosen], padding_value=PADDING, padding_side="left")


@dataclass(frozen=True)
class TextClassification:
    """The training objective: mean cross entropy (nats) of the class.

    Each epoch goes through all texts in an order of its own, which depends on `seed` and the epoch alone. Batches
    are made of texts of nearly one length (out of 50 batches at a time), so that little is padding. The model maps
    x_TB to logits_BC.
    """

    texts: LabelledTexts
    batch_size: int
    seed: int = 0
    _epochs: dict[int, list[list[int]]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def steps_an_epoch(self) -> int:
        return max(1, len(self.texts) // self.batch_size)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """The batch of `step`: x_TB and classes_B."""
        epoch, within = divmod(step, self.steps_an_epoch)
        if epoch not in self._epochs:
            self._epochs.clear()
            self._epochs[epoch] = self._batches(epoch)
        chosen = self._epochs[epoch][within][rank::world]
        return padded(self.texts, chosen), self.texts.classes_N[chosen]

    def _batches(self, epoch: int) -> list[list[int]]:
        source = torch.Generator().manual_seed(self.seed * 7919 + epoch)
        order = shuffled(range(len(self.texts)), source)
        size, found = self.batch_size, []
        for begin in range(0, len(order), 50 * size):
            some = sorted(order[begin : begin + 50 * size], key=lambda n: len(self.texts.words[n]))
            found += [some[b : b + size] for b in range(0, len(some) - size + 1, size)] or [some]
        return shuffled(found, source)[: self.steps_an_epoch]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        """Mean loss of the batch, a scalar; no state is carried on."""
        x_TB, classes_B = batch
        return nn.functional.cross_entropy(wide(model(x_TB)), classes_B), None


def accuracy(model: nn.Module, texts: LabelledTexts, *, batch: int = 500) -> float:
    """Share of texts whose class is right. The model's training mode is left as it was."""
    device = next(iter(model.parameters())).device
    order = sorted(range(len(texts)), key=lambda n: len(texts.words[n]))
    parts = (order[begin : begin + batch] for begin in range(0, len(order), batch))
    return share_right(model, (((padded(texts, part).to(device),), texts.classes_N[part]) for part in parts))
