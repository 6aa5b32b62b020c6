"""What can be set in the recipe wen-rhn: Zilly's network and Wen's training of it."""

from __future__ import annotations

from typing import Literal

from ..highway_model import HighwayDrop
from ..precision import resolved
from ..settings import settings
from ..word_training import WordTraining

# Shares of Zilly et al. (arXiv 1607.03474) for the network of depth 10 and width 830 with a tied embedding.
DROP = HighwayDrop(words=0.25, input=0.75, state=0.25, output=0.75)


def iss_row(strength: float) -> str:
    """Name of the row of ISS under a penalty of this strength."""
    return f"iss-{strength:g}"


@settings
class HighwaySettings:
    """`width`: of embedding, state and output; `depth`: highway layers in a time step. `strengths`: of the penalty, for
    a loss summed over time, one row each; `threshold`: weights below it become zero after each step. `target`: share of
    the recurrent weights that its row keeps; 0: no such row, and none of its size trained directly.

    The learning rate holds for `hold` epochs and is divided by `fall` after each later one. `dropout` and
    `sparse_dropout`: factors of the published shares (words .25, input .75, state .25, output .75) for the dense net
    and for those that are or become small.

    `words`: only so many of each part of the text, 0 for all; `measured_words`: of the validation and test parts.
    `steps`: stop each training after so many, 0 never.
    `bench_rounds`: rounds in which the nets are timed side by side on 10 texts of 30 words.
    """

    width: int = 830
    depth: int = 10
    strengths: tuple[float, ...] = (0.004, 0.005, 0.006, 0.007)
    threshold: float = 4e-4
    target: float = 0.4
    epochs: int = 500
    learning_rate: float = 0.2
    hold: int = 20
    fall: float = 1.02
    dropout: float = 1.0
    sparse_dropout: float = 0.6
    keep_best: bool = True
    words: int = 0
    measured_words: int = 0
    steps: int = 0
    batch: int = 20
    bptt: int = 35
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: int = 200
    bench_rounds: int = 15

    def check(self) -> None:
        if min(self.width, self.depth, self.bench_rounds) < 1 or min(self.words, self.measured_words) < 0:
            raise ValueError("width, depth and bench_rounds are at least 1, words and measured_words 0 or more.")
        if not self.strengths and not self.target:
            raise ValueError("strengths is empty and target 0: no row would be sparse.")
        if min(self.strengths, default=1) <= 0 or self.threshold < 0 or not 0 <= self.target < 1 or not self.fall > 0:
            raise ValueError("strengths and fall are above 0, threshold is 0 or more, target from 0 to below 1.")
        if not (0 <= self.dropout <= 1 and 0 <= self.sparse_dropout <= 1):
            raise ValueError("dropout and sparse_dropout are factors from 0 to 1.")
        self.training("dense")

    @property
    def rows(self) -> tuple[str, ...]:
        return ("dense", *map(iss_row, self.strengths), *(("target", "direct") if self.target else ()))

    def drop(self, row: str) -> HighwayDrop:
        return DROP.scaled(self.dropout if row == "dense" else self.sparse_dropout)

    def training(self, row: str) -> WordTraining:
        return WordTraining(
            self.epochs,
            self.learning_rate,
            batch=self.batch,
            bptt=self.bptt,
            hold=self.hold,
            decay=1 / self.fall,
            clip=10.0,
            weight_decay=1e-7,
            sum_over_time=True,
            # Before its last steps a net that goes to a target is not yet small.
            keep_best=self.keep_best and row != "target",
            precision=resolved(self.precision),
            steps=self.steps,
            device=self.device,
            checkpoint_every=self.checkpoint_every,
        )
