"""Settings and rows of the study on Reber strings: which nets, what of them is pruned, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..graphs.population import GraphCell
from ..settings import Count, Percent, Positive, Some, Whole, settings
from ..study import Row
from ..tasks.reber import Fourfold
from ..train import Training

CELL_NAMES = {"tanh": "RNN (tanh)", "relu": "RNN (relu)", "lstm": "LSTM", "gru": "GRU"}
# What is pruned, as `Prune` takes it: weights, and what shares a threshold.
PARTS = {
    "both": ("recurrent", "model"),
    "hh": ("*weight_hh*", "model"),
    "ih": ("*weight_ih*", "model"),
    "matrix": ("recurrent", "matrix"),
    "head": ("head.weight", "model"),
    "threshold": ("recurrent", "model"),
}
PART_NAMES = {
    "both": "input-to-hidden and hidden-to-hidden",
    "hh": "hidden-to-hidden",
    "ih": "input-to-hidden",
    "matrix": "both, as much of each matrix",
    "head": "hidden-to-output",
    "threshold": "both, by a fixed threshold",
}
Part = Literal["both", "hh", "ih", "matrix", "head"]
Flaw = Literal["padding", "letters", "leak", "all"]
FLAWS: tuple[Flaw, ...] = ("padding", "letters", "leak", "all")
TASK_NAMES = {
    "strings": "",
    "sentences": "generation",
    "wide": "three layers of 100",
    "padding": "flaw: last padded step",
    "letters": "flaw: other letters",
    "leak": "flaw: a test string in training",
    "all": "all three flaws",
}


@settings
class Settings:
    """`strings`: how many are generated; those of up to `longest` letters are taken, as many valid as invalid ones.

    `percentages`: how much of `parts` is pruned. `flaws`: which of the original's flaws are switched on, each in rows
    of its own, pruned in `flaw_parts` to `few` percentages. `thresholds`: weights up to this size go, in nets `wide`
    units wide. `near`: a net has recovered when its test accuracy is as near to the dense net's; it is retrained until
    then, at most for `retrain_epochs`. One that is no better than a guess, by `near`, after `patience` epochs is given
    up. `samples`: strings that a generator draws each time it is judged.
    """

    cells: Some[GraphCell] = ("tanh", "relu", "lstm", "gru")
    layers: Count = 3
    hidden: Count = 50
    embedding: Count = 50
    parts: tuple[Part, ...] = ("both", "hh", "ih", "head", "matrix")
    percentages: Some[Percent] = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    flaws: tuple[Flaw, ...] = ("all", "padding", "letters")
    flaw_parts: tuple[Part, ...] = ("hh",)
    few: Some[Percent] = (90, 100)
    thresholds: tuple[Positive, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2)
    wide: Count = 100
    wide_batch: Count = 32
    wide_epochs: Count = 6
    strings: Fourfold = 5000
    shortest: int = 11
    longest: int = 24
    embedded: bool = False
    epochs: Count = 9
    retrain_epochs: Count = 10
    patience: Count = 3
    sentence_epochs: Count = 16
    batch: Count = 32
    learning_rate: Positive = 3e-3
    retrain_rate: Positive = 2e-3
    warm_up: Whole = 50
    final_rate: float = 0.02
    near: float = 0.01
    samples: Count = 1000

    def check(self) -> None:
        if not 8 <= self.shortest < self.longest:
            raise ValueError(f"shortest is {self.shortest}, longest {self.longest}; expected 8 at least, and more.")

    def batch_of(self, task: str) -> int:
        return self.wide_batch if task == "wide" else self.batch

    def training(self, task: str, epoch: int) -> Training:
        """Training of a dense net; `epoch`: steps in one."""
        epochs = {"wide": self.wide_epochs, "sentences": self.sentence_epochs}.get(task, self.epochs)
        return Training(epochs * epoch, self.learning_rate, self.warm_up, self.final_rate, clip=5.0)

    def retraining(self, epoch: int) -> Training:
        """Retraining of a pruned one, at the same rate throughout, since it may end after any epoch."""
        return Training(self.retrain_epochs * epoch, self.retrain_rate, warm_up=0, final_rate=1.0, clip=5.0)


@dataclass(frozen=True)
class Net(Row):
    """The nets of `cell` for `task`, "dense" or with a part pruned to all percentages or thresholds."""

    cell: GraphCell
    task: str
    part: str

    @classmethod
    def of(cls, cell: GraphCell, task: str, part: str = "dense") -> Net:
        return cls(f"{cell}-{task}-{part}", cell, task, part)

    @property
    def label(self) -> str:
        what = [TASK_NAMES[self.task], "dense" if self.part == "dense" else f"{PART_NAMES[self.part]} pruned"]
        return f"{CELL_NAMES[self.cell]}: " + ", ".join(word for word in what if word)

    @property
    def dense(self) -> Net:
        """The row of the net that this one is pruned from."""
        return Net.of(self.cell, self.task)


def rows_of(s: Settings) -> list[Net]:
    """The rows in the order in which they are made: what answers most comes first."""
    first, later = ([p for p in s.parts if (p in ("both", "hh", "ih")) is early] for early in (True, False))
    order = [("strings", part) for part in ("dense", *first)]
    order += [("sentences", part) for part in ("dense", "both")]
    order += [(flaw, part) for flaw in s.flaws[:1] for part in ("dense", *s.flaw_parts)]
    order += [("wide", part) for part in ("dense", "threshold") if s.thresholds]
    order += [("strings", part) for part in later]
    order += [(flaw, part) for flaw in s.flaws[1:] for part in ("dense", *s.flaw_parts)]
    return [Net.of(cell, task, part) for task, part in order for cell in s.cells]
