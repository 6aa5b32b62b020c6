"""Settings and rows of the study on Reber strings: which nets, what of them is pruned, and how far."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import settings
from ..train import Training
from .stacks import STACKS

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
FLAWS = ("padding", "letters", "leak", "all")
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

    cells: tuple[str, ...] = ("tanh", "relu", "lstm", "gru")
    layers: int = 3
    hidden: int = 50
    embedding: int = 50
    parts: tuple[str, ...] = ("both", "hh", "ih", "head", "matrix")
    percentages: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    flaws: tuple[str, ...] = ("all", "padding", "letters")
    flaw_parts: tuple[str, ...] = ("hh",)
    few: tuple[int, ...] = (90, 100)
    thresholds: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2)
    wide: int = 100
    wide_batch: int = 32
    wide_epochs: int = 6
    strings: int = 5000
    shortest: int = 11
    longest: int = 24
    embedded: bool = False
    epochs: int = 9
    retrain_epochs: int = 10
    patience: int = 3
    sentence_epochs: int = 16
    batch: int = 32
    learning_rate: float = 3e-3
    retrain_rate: float = 2e-3
    warm_up: int = 50
    final_rate: float = 0.02
    near: float = 0.01
    samples: int = 1000

    def check(self) -> None:
        known = {"cells": tuple(STACKS), "parts": tuple(PARTS)[:-1], "flaw_parts": tuple(PARTS)[:-1], "flaws": FLAWS}
        for name, names_known in known.items():
            given = getattr(self, name)
            if set(given) - set(names_known) or (name == "cells" and not given):
                raise ValueError(f"{name} is {','.join(given)!r}, expected some of {', '.join(names_known)}.")
        for name in ("percentages", "few"):
            if not getattr(self, name) or any(not 0 < p <= 100 for p in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, expected percentages above 0, at most 100.")
        if any(t <= 0 for t in self.thresholds):
            raise ValueError(f"thresholds is {self.thresholds}, expected numbers greater than zero.")
        for name in (
            "layers",
            "hidden",
            "embedding",
            "wide",
            "wide_batch",
            "batch",
            "samples",
            "retrain_epochs",
            "patience",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")
        if self.strings < 16 or self.strings % 4 or not 8 <= self.shortest < self.longest:
            raise ValueError(
                f"strings is {self.strings}, of {self.shortest} to {self.longest} letters; expected a multiple of 4, "
                "at least 16, of at least 8 letters."
            )
        for task in TASK_NAMES:
            self.training(task, 1)
        self.retraining(1)

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
class Name:
    """A row: the nets of `cell` for `task`, "dense" or with a part pruned to all percentages or thresholds."""

    cell: str
    task: str
    part: str = "dense"

    def __str__(self) -> str:
        return f"{self.cell}-{self.task}-{self.part}"

    @property
    def label(self) -> str:
        what = [TASK_NAMES[self.task], "dense" if self.part == "dense" else f"{PART_NAMES[self.part]} pruned"]
        return f"{CELL_NAMES[self.cell]}: " + ", ".join(word for word in what if word)

    @property
    def dense(self) -> Name:
        """The row of the net that this one is pruned from."""
        return Name(self.cell, self.task)


def names(settings: Settings) -> list[Name]:
    """The rows in the order in which they are made: what answers most comes first."""
    s = settings
    first, later = ([p for p in s.parts if (p in ("both", "hh", "ih")) is early] for early in (True, False))
    order = [("strings", part) for part in ("dense", *first)]
    order += [("sentences", part) for part in ("dense", "both")]
    order += [(flaw, part) for flaw in s.flaws[:1] for part in ("dense", *s.flaw_parts)]
    order += [("wide", part) for part in ("dense", "threshold") if s.thresholds]
    order += [("strings", part) for part in later]
    order += [(flaw, part) for flaw in s.flaws[1:] for part in ("dense", *s.flaw_parts)]
    return [Name(cell, task, part) for task, part in order for cell in s.cells]
