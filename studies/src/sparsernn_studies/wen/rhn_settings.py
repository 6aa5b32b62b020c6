"""What can be set in the recipe wen-rhn: Zilly's network and Wen's training of it."""

from __future__ import annotations

from typing import Literal

from ..highway_model import HighwayDrop
from ..precision import resolved
from ..settings import Count, Fraction, NotNegative, Positive, Share, Whole, settings
from ..word_study import Net
from ..word_training import WordTraining

# Shares of Zilly et al. (arXiv 1607.03474) for the network of depth 10 and width 830 with a tied embedding.
DROP = HighwayDrop(words=0.25, input=0.75, state=0.25, output=0.75)


def iss(strength: float) -> Net:
    """The row of ISS under a penalty of this strength."""
    return Net(f"iss-{strength:g}", f"ISS, strength {strength:g}", "iss", strength=strength)


@settings
class HighwaySettings:
    """`width`: of embedding, state and output; `depth`: highway layers in a time step. `strengths`: of the penalty, for
    a loss summed over time, one row each; `threshold`: weights below it become zero after each step; 0: the largest
    that is harmless to the dense net, as the paper chooses it. `target`: share of the recurrent weights that its row
    keeps; 0: no such row, and none of its size trained directly.

    The learning rate holds for `hold` epochs and is divided by `fall` after each later one. `dropout` and
    `sparse_dropout`: factors of the published shares (words .25, input .75, state .25, output .75) for the dense net
    and for those that are or become small.

    `words`: only so many of each part of the text, 0 for all; `measured_words`: of the validation and test parts.
    `steps`: stop each training after so many, 0 never.
    `bench_rounds`: rounds in which the nets are timed side by side on 10 texts of 30 words.
    """

    width: Count = 830
    depth: Count = 10
    strengths: tuple[Positive, ...] = (0.004, 0.005, 0.006, 0.007)
    threshold: NotNegative = 4e-4
    target: Share = 0.4
    epochs: Count = 500
    learning_rate: Positive = 0.2
    hold: Whole = 20
    fall: Positive = 1.02
    dropout: Fraction = 1.0
    sparse_dropout: Fraction = 0.6
    keep_best: bool = True
    words: Whole = 0
    measured_words: Whole = 0
    steps: Whole = 0
    batch: Count = 20
    bptt: Count = 35
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: Count = 200
    bench_rounds: Count = 15

    def check(self) -> None:
        if not self.strengths and not self.target:
            raise ValueError("strengths is empty and target 0: no row would be sparse.")

    @property
    def nets(self) -> tuple[Net, ...]:
        sized = (Net("target", "target", "target"), Net("direct", "direct design: the size of target", "direct"))
        return (Net("dense", "dense", "dense"), *map(iss, self.strengths), *(sized if self.target else ()))

    def drop(self, row: Net) -> HighwayDrop:
        return DROP.scaled(self.dropout if row.kind == "dense" else self.sparse_dropout)

    def training(self, row: Net) -> WordTraining:
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
            keep_best=self.keep_best and row.kind != "target",
            precision=resolved(self.precision),
            steps=self.steps,
            device=self.device,
            checkpoint_every=self.checkpoint_every,
        )
