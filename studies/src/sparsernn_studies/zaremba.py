"""Zaremba's word models (arXiv 1409.2329): sizes, published trainings, and what studies of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from .precision import resolved
from .settings import Count, Fraction, NotNegative, Whole, settings
from .word_model import StackedLSTM
from .word_study import Net, WordStudy
from .word_training import WordTraining


@dataclass(frozen=True)
class Size:
    """One of Zaremba's nets (arXiv 1409.2329): `units` of both layers and of the embedding, share kept by dropout
    (`keep`), width of the uniform start, norm at which the gradient is clipped, length of a window, and the course: the
    rate 1 for `hold` epochs, then times `decay` every epoch.

    `sparse_keep` and `direct_keep`: less dropout for nets that become or are small (arXiv 1709.05027; published for the
    large net, ours for the medium one).
    """

    units: int
    keep: float
    sparse_keep: float
    direct_keep: float
    start: float
    clip: float
    bptt: int
    epochs: int
    hold: int
    decay: float


SIZES = {
    "tiny": Size(16, 1.0, 1.0, 1.0, 0.1, 5.0, 10, 2, 1, 0.5),
    "small": Size(200, 1.0, 1.0, 1.0, 0.1, 5.0, 20, 13, 4, 0.5),
    "medium": Size(650, 0.5, 0.65, 0.6, 0.05, 5.0, 35, 39, 6, 1 / 1.2),
    "large": Size(1500, 0.35, 0.6, 0.55, 0.04, 10.0, 35, 55, 14, 1 / 1.15),
}


@settings
class ZarembaSettings:
    """`size`: of the net; its published training holds where nothing else is set (`epochs` 0).

    `dense_keep`, `sparse_keep`: share kept by dropout in the rows that are dense and sparse; 0: the size's own.
    `dense_decay` and so on: their weight decay. `dense_tries` and so on: from how many pairs of both each was chosen,
    which the rows record: who is compared has to have as many.

    `words`: only so many of each part of the text, 0 for all; `measured_words`: of the validation and test parts.
    `precision`: of the products with the vocabulary's matrix; "auto": bfloat16 where the processor multiplies in it.
    `steps`: stop each training after so many, 0 never.
    `bench_rounds`: rounds in which the nets are timed side by side on the paper's batch, 10 texts of 30 words.
    """

    size: Literal["tiny", "small", "medium", "large"] = "small"
    epochs: Whole = 0
    dense_keep: Fraction = 0.0
    sparse_keep: Fraction = 0.0
    dense_decay: NotNegative = 0.0
    sparse_decay: NotNegative = 0.0
    dense_tries: Count = 1
    sparse_tries: Count = 1
    words: Whole = 0
    measured_words: Whole = 0
    steps: Whole = 0
    batch: Count = 20
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: Count = 200
    bench_rounds: Count = 15

    @property
    def net(self) -> Size:
        return SIZES[self.size]

    def regularised(self, row: Net) -> tuple[float, float, int]:
        """Share that dropout keeps in the training of `row`, its weight decay, and from how many pairs both are."""
        if row.kind == "dense":
            return self.dense_keep or self.net.keep, self.dense_decay, self.dense_tries
        return self.sparse_keep or self.net.sparse_keep, self.sparse_decay, self.sparse_tries

    def course(self, row: Net) -> dict[str, Any]:
        """Epochs and learning rates of `row`, as WordTraining takes them."""
        net = self.net
        return {"epochs": self.epochs or net.epochs, "learning_rate": 1.0, "hold": net.hold, "decay": net.decay}

    def training(self, row: Net) -> WordTraining:
        net = self.net
        return WordTraining(
            **self.course(row),
            batch=self.batch,
            bptt=net.bptt,
            clip=net.clip,
            weight_decay=self.regularised(row)[1],
            sum_over_time=True,
            precision=resolved(self.precision),
            steps=self.steps,
            device=self.device,
            checkpoint_every=self.checkpoint_every,
        )


Z = TypeVar("Z", bound=ZarembaSettings)


class ZarembaStudy(WordStudy[Z]):
    """A subclass says which rows there are and what makes them sparse."""

    settings: Z

    def widths(self, row: Net) -> tuple[int, ...]:
        """Units of both layers of the untrained net of `row`."""
        return (self.settings.net.units,) * 2

    def model(self, row: Net) -> StackedLSTM:
        net = self.settings.net
        torch.manual_seed(self.run.seed)
        keep, _, _ = self.settings.regularised(row)
        return StackedLSTM(len(self.text.symbols), net.units, self.widths(row), keep, net.start)

    def make(self, row: Net) -> Mapping[str, Any]:
        found = super().make(row)
        if row.kind == "bigram":
            return found
        return {**found, **dict(zip(("keep", "weight_decay", "tries"), self.settings.regularised(row)))}
