"""Two further tasks as the nets of this study see them: sentiment of reviews, and spoken digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ...baselines import linear_bag, majority
from ...models import FrameClassifier, TextClassifier
from ...tasks import imdb, labelled, spoken_digits
from ...tasks.frames import FrameClassification, Sequences, accuracy
from ...tasks.log_mel import MELS
from ...train import Objective
from ..sounds import Sounds

SEEN = 20  # batches of training data that a way without training may look at


@dataclass(frozen=True)
class Reviews:
    """Sentiment of IMDb reviews by their last `length` words, out of `words`. `texts`: of each part, 0 for all."""

    folder: Path | None
    words: int
    length: int
    embedding: int
    batch: int
    seed: int
    texts: int = 0

    @cached_property
    def data(self) -> labelled.Labelled:
        with torch.device("cpu"):  # the first who asks may be counting weights on "meta"
            return imdb.load(self.folder, self.words, self.length, self.texts)

    @cached_property
    def example(self) -> Tensor:
        return labelled.padded(self.data.test, range(4))

    def model(self, hidden: int) -> nn.Module:
        return TextClassifier(self.words + labelled.NUMBERS, self.embedding, hidden)

    def objective(self) -> Objective:
        return labelled.TextClassification(self.data.train, self.batch, self.seed)

    def seen(self) -> Iterator[Tensor]:
        objective = self.objective()
        return (objective.batch(step)[0] for step in range(SEEN))

    def loss(self, model: nn.Module) -> float:
        return 1 - labelled.accuracy(model, self.data.test)

    def baseline(self) -> float:
        train, test = self.data.train, self.data.test
        return 1 - linear_bag(train.words, train.classes_N, test.words, test.classes_N, self.data.symbols)


@dataclass(frozen=True)
class Digits:
    """Spoken digits, two GRU layers, speakers held out by `seed`; `kept`: where the scale of the features lies.
    `made`: tones in the place of the recordings, to try things out without data."""

    folder: Path | None
    kept: Path
    variants: int
    batch: int
    seed: int
    made: bool = False

    @cached_property
    def sounds(self) -> Sounds:
        recordings = spoken_digits.made() if self.made else spoken_digits.load(self.folder)
        return Sounds(recordings, self.seed, self.kept)

    @cached_property
    def learnt(self) -> list[Sequences]:
        with torch.device("cpu"):
            return self.sounds.training(self.variants)

    @cached_property
    def example(self) -> Tensor:
        return torch.randn(30, 4, MELS, generator=torch.Generator().manual_seed(self.seed))

    def model(self, hidden: int) -> nn.Module:
        return FrameClassifier(MELS, (hidden, hidden), len(spoken_digits.WORDS))

    def objective(self) -> Objective:
        return FrameClassification(self.learnt, self.batch, self.seed)

    def seen(self) -> Iterator[Tensor]:
        objective = self.objective()
        return (objective.batch(step)[0] for step in range(SEEN))

    def loss(self, model: nn.Module) -> float:
        _ = self.learnt  # writes the scale of the features that the test part is heard by
        return 1 - accuracy(model, self.sounds.test)

    def baseline(self) -> float:
        _ = self.learnt
        return 1 - majority(self.learnt[0].classes_N, self.sounds.test.classes_N)
