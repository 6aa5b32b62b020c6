"""IMDb movie reviews (Maas et al., ACL 2011): is a review negative or positive, by the last words of it.

The files are not ours to hand on; they come from the data folder. The last 15% of the training reviews, in an order of
their own, are kept to watch, as in Lobacheva et al. (arXiv 1911.05585).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import DataError, DataFile, read
from .text import wide

_ADDRESS = "https://ai.stanford.edu/~amaas/data/sentiment/ (as JSON lines: label, id, rating, text)"
FILES = {
    "train": DataFile(
        "imdb/train.jsonl.gz",
        "5ca71adaea2cb98801a218c859310ec684479162fcbd7af85866f2a36c3a1e87",
        "54463ab0f904faa6a17b2025bbe431d5580d931fb86747f9f062a35c39eb47d9",
        _ADDRESS,
    ),
    "test": DataFile(
        "imdb/test.jsonl.gz",
        "8e7f6851eb557f6a599319eb59e35b919a27e21350e3d3507a10eacdabaa3901",
        "546efb64a97a5aea4cd6c304f8622aebe5ee6f1e61cbba2fd4cea7c86f6af325",
        _ADDRESS,
    ),
}
PADDING, START, UNKNOWN = 0, 1, 2  # numbers that are no words
VALID = 0.15
_WORD = re.compile(r"[a-z0-9']+")


@dataclass(frozen=True)
class Reviews:
    """`words`: int64 numbers of each review, at most so many of its last ones; `classes_N`: 1 is positive."""

    words: tuple[Tensor, ...]
    classes_N: Tensor

    def __len__(self) -> int:
        return len(self.words)

    def some(self, chosen: Iterable[int]) -> Reviews:
        numbers = list(chosen)
        return Reviews(tuple(self.words[n] for n in numbers), self.classes_N[numbers])


@dataclass(frozen=True)
class Imdb:
    vocabulary: tuple[str, ...]  # word n has the number n + 3; the most frequent first
    train: Reviews
    valid: Reviews
    test: Reviews

    @property
    def symbols(self) -> int:
        return len(self.vocabulary) + 3


def load(folder: Path | None, words: int = 20_000, length: int = 200, most: int = 0) -> Imdb:
    """The reviews with the `words` most frequent words of the training part, cut to their last `length` words.

    `most`: only so many reviews of each part, 0 for all. Raises DataError, which names the file, if one is missing or
    not the expected one.
    """
    parts = {name: _parsed(read(file, folder), file.path) for name, file in FILES.items()}
    for name, found in parts.items():
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
        parts[name] = [found[n] for n in order][: most or None]
    seen = Counter(word for text, _ in parts["train"] for word in text)
    vocabulary = tuple(sorted(seen, key=lambda word: (-seen[word], word))[:words])
    number = {word: n + 3 for n, word in enumerate(vocabulary)}
    train, test = (_numbered(parts[name], number, length) for name in ("train", "test"))
    last = round(len(train) * (1 - VALID))
    return Imdb(vocabulary, train.some(range(last)), train.some(range(last, len(train))), test)


def words_of(text: str) -> list[str]:
    """Lower-case words, without markup and punctuation."""
    return _WORD.findall(text.replace("<br />", " ").lower())


def _parsed(content: bytes, path: str) -> list[tuple[list[str], int]]:
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            entry = json.loads(line)
            found.append((words_of(entry["text"]), int(entry["label"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {number} is no review with text and label ({error}).") from None
    return found


def _numbered(reviews: list[tuple[list[str], int]], number: dict[str, int], length: int) -> Reviews:
    words = tuple(
        torch.tensor([START, *(number.get(word, UNKNOWN) for word in text)][-length:], dtype=torch.int64)
        for text, _ in reviews
    )
    return Reviews(words, torch.tensor([label for _, label in reviews]))


def padded(reviews: Reviews, chosen: Iterable[int]) -> Tensor:
    """x_TB of these reviews, padding before each: all end with the last step."""
    return nn.utils.rnn.pad_sequence([reviews.words[n] for n in chosen], padding_value=PADDING, padding_side="left")


@dataclass(frozen=True)
class Sentiment:
    """The training objective: mean cross entropy (nats) of the class.

    Each epoch goes through all reviews in an order of its own, which depends on `seed` and the epoch alone. Batches
    are made of reviews of nearly one length (out of 50 batches at a time), so that little is padding. The model maps
    x_TB to logits_BC.
    """

    reviews: Reviews
    batch_size: int
    seed: int = 0
    _epochs: dict[int, list[list[int]]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def steps_an_epoch(self) -> int:
        return max(1, len(self.reviews) // self.batch_size)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """The batch of `step`: x_TB and classes_B."""
        epoch, within = divmod(step, self.steps_an_epoch)
        if epoch not in self._epochs:
            self._epochs.clear()
            self._epochs[epoch] = self._batches(epoch)
        chosen = self._epochs[epoch][within][rank::world]
        return padded(self.reviews, chosen), self.reviews.classes_N[chosen]

    def _batches(self, epoch: int) -> list[list[int]]:
        source = torch.Generator().manual_seed(self.seed * 7919 + epoch)
        order = torch.randperm(len(self.reviews), generator=source).tolist()
        size, found = self.batch_size, []
        for begin in range(0, len(order), 50 * size):
            some = sorted(order[begin : begin + 50 * size], key=lambda n: len(self.reviews.words[n]))
            found += [some[b : b + size] for b in range(0, len(some) - size + 1, size)] or [some]
        return [found[n] for n in torch.randperm(len(found), generator=source).tolist()][: self.steps_an_epoch]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        """Mean loss of the batch, a scalar; no state is carried on."""
        x_TB, classes_B = batch
        return nn.functional.cross_entropy(wide(model(x_TB)), classes_B), None


@torch.no_grad()
def accuracy(model: nn.Module, reviews: Reviews, *, batch: int = 500) -> float:
    """Share of reviews whose class is right. The model's training mode is left as it was."""
    was_training = model.training
    model.eval()
    device = next(iter(model.parameters())).device
    try:
        right = 0
        order = sorted(range(len(reviews)), key=lambda n: len(reviews.words[n]))
        for begin in range(0, len(order), batch):
            chosen = order[begin : begin + batch]
            found = model(padded(reviews, chosen).to(device)).argmax(1).cpu()
            right += int((found == reviews.classes_N[chosen]).sum())
    finally:
        model.train(was_training)
    return right / max(1, len(reviews))
