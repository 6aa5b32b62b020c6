"""The claims of the study on Reber strings, the original's and those that its flaws raise."""

from __future__ import annotations

from ..claims import Claim, Measured
from .settings import CELL_NAMES

GATED = ("lstm", "gru")
SIMPLE = ("tanh", "relu")
PIECES = {"both": "input-to-hidden and hidden-to-hidden weights", "hh": "hidden-to-hidden weights"}
PIECES["ih"] = "input-to-hidden weights"


def dense_quality(rows: Measured, cell: str, task: str = "strings") -> float:
    """How good the dense net is: test accuracy, or the share of valid strings that it generates."""
    return rows[f"{cell}-{task}-dense"]["share_valid" if task == "sentences" else "test_accuracy"]


def lost(rows: Measured, cell: str, part: str, label: int | str, when: str = "after", task: str = "strings") -> float:
    """Points lost against the dense net: "before" any retraining, after the "first" epoch or "after" the last."""
    return 100 * (dense_quality(rows, cell, task) - rows[f"{cell}-{task}-{part}"][f"{when}_{label}"])


def above_guess(rows: Measured, cell: str, part: str, label: int, task: str = "strings") -> float:
    """Points above a guess after the last epoch."""
    guess = rows[f"{cell}-{task}-dense"]["guess"]
    return 100 * (rows[f"{cell}-{task}-{part}"][f"after_{label}"] - guess)


def _free(cell: str, part: str, percent: int) -> Claim:
    return Claim(
        f"{CELL_NAMES[cell]}: {percent}% of the {PIECES[part]} go without retraining for under 1 point",
        "points lost",
        lambda rows: lost(rows, cell, part, percent, "before"),
        at_most=1.0,
    )


def _one_epoch(cell: str, part: str, percent: int) -> Claim:
    return Claim(
        f"{CELL_NAMES[cell]}: {percent}% of the {PIECES[part]} pruned, within 1 point after one epoch",
        "points lost",
        lambda rows: lost(rows, cell, part, percent, "first"),
        at_most=1.0,
    )


def _no_memory(cell: str) -> Claim:
    return Claim(
        f"{CELL_NAMES[cell]}: without {PIECES['hh']} it never does better than a guess",
        "points above a guess",
        lambda rows: above_guess(rows, cell, "hh", 100),
        at_most=1.0,
    )


def _no_letters(cell: str) -> Claim:
    return Claim(
        f"{CELL_NAMES[cell]}: without {PIECES['ih']} it never recovers, but stays at least 10 points below",
        "points lost",
        lambda rows: lost(rows, cell, "ih", 100),
        at_least=10.0,
    )


def _flawed(cell: str) -> tuple[Claim, ...]:
    name = CELL_NAMES[cell]
    return (
        Claim(
            f"{name}, all flaws on: recovers without hidden-to-hidden weights, to under 1 point",
            "points lost",
            lambda rows: lost(rows, cell, "hh", 100, task="all"),
            at_most=1.0,
        ),
        Claim(
            f"{name}: the flaws help it to recover without hidden-to-hidden weights (points after one epoch)",
            "points lost less",
            lambda rows: lost(rows, cell, "hh", 100, "first") - lost(rows, cell, "hh", 100, "first", "all"),
            at_least=0.0,
        ),
    )


def _generation(cell: str) -> tuple[Claim, ...]:
    name = CELL_NAMES[cell]
    return (
        Claim(
            f"{name}, generation: 60% of the weights go without retraining for under 1 point of valid strings",
            "points lost",
            lambda rows: lost(rows, cell, "both", 60, "before", "sentences"),
            at_most=1.0,
        ),
        Claim(
            f"{name}, generation: 80% pruned, within 1 point after one epoch",
            "points lost",
            lambda rows: lost(rows, cell, "both", 80, "first", "sentences"),
            at_most=1.0,
        ),
    )


CLAIMS: tuple[Claim, ...] = (
    *(_free(cell, "both", 60) for cell in CELL_NAMES),
    *(_one_epoch(cell, "both", percent) for percent in (60, 80, 90) for cell in CELL_NAMES),
    *(_one_epoch(cell, part, 90) for part in ("hh", "ih") for cell in CELL_NAMES),
    *(
        Claim(
            f"{CELL_NAMES[cell]}: recovers without hidden-to-hidden weights, to under 1 point",
            "points lost",
            lambda rows, cell=cell: lost(rows, cell, "hh", 100),
            at_most=1.0,
        )
        for cell in GATED
    ),
    *(_no_memory(cell) for cell in SIMPLE),
    *(_no_letters(cell) for cell in CELL_NAMES),
    *(
        Claim(
            f"{CELL_NAMES[cell]}: hidden-to-hidden has more redundancy (less is lost right after 80% are pruned)",
            "points lost less",
            lambda rows, cell=cell: lost(rows, cell, "ih", 80, "before") - lost(rows, cell, "hh", 80, "before"),
            at_least=0.0,
        )
        for cell in CELL_NAMES
    ),
    Claim(
        "The dense RNN (tanh) stays at least 5 points below the LSTM",
        "points below",
        lambda rows: 100 * (dense_quality(rows, "lstm") - dense_quality(rows, "tanh")),
        at_least=5.0,
    ),
    Claim(
        "The same with all flaws on",
        "points below",
        lambda rows: 100 * (dense_quality(rows, "lstm", "all") - dense_quality(rows, "tanh", "all")),
        at_least=5.0,
    ),
    *(claim for cell in GATED for claim in _flawed(cell)),
    *(claim for cell in CELL_NAMES for claim in _generation(cell)),
    *(
        Claim(
            f"{CELL_NAMES[cell]}, layers of 100: weights below .01 go without retraining for under 1 point",
            "points lost",
            lambda rows, cell=cell: lost(rows, cell, "threshold", "0.01", "before", "wide"),
            at_most=1.0,
        )
        for cell in CELL_NAMES
    ),
    *(
        Claim(
            f"{CELL_NAMES[cell]}: 90% of the hidden-to-output weights pruned, within 1 point after one epoch",
            "points lost",
            lambda rows, cell=cell: lost(rows, cell, "head", 90, "first"),
            at_most=1.0,
        )
        for cell in CELL_NAMES
    ),
    *(
        Claim(
            f"{CELL_NAMES[cell]}: one threshold for all layers costs less than the same share of each matrix "
            "(right after 70% are pruned)",
            "points lost less",
            lambda rows, cell=cell: lost(rows, cell, "matrix", 70, "before") - lost(rows, cell, "both", 70, "before"),
            at_least=0.0,
        )
        for cell in CELL_NAMES
    ),
)
