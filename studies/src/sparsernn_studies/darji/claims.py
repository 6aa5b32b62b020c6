"""The claims of the study on Reber strings, the original's and those that its flaws raise."""

from __future__ import annotations

from ..claims import Claim, Guard, Measured, Value, costs_little, greater
from .settings import CELL_NAMES

GATED = ("lstm", "gru")
SIMPLE = ("tanh", "relu")
PIECES = {
    "both": "input-to-hidden and hidden-to-hidden weights",
    "hh": "hidden-to-hidden weights",
    "ih": "input-to-hidden weights",
    "head": "hidden-to-output weights",
}


def dense_quality(rows: Measured, cell: str, task: str = "strings") -> float:
    """How good the dense net is: test accuracy, or the share of valid strings that it generates."""
    return rows[f"{cell}-{task}-dense"]["share_valid" if task == "sentences" else "test_accuracy"]


def lost(cell: str, part: str, label: int | str, when: str = "after", task: str = "strings") -> Value:
    """Points lost against the dense net: "before" any retraining, after the "first" epoch or "after" the last."""
    return lambda rows: 100 * (dense_quality(rows, cell, task) - rows[f"{cell}-{task}-{part}"][f"{when}_{label}"])


def _better_than_a_guess(cell: str) -> Guard:
    """One of the two ways to prune has to leave a net that does more than guess, by a point."""

    def guard(rows: Measured) -> str:
        left = max(rows[f"{cell}-strings-{part}"]["before_70"] for part in ("both", "matrix"))
        return "" if left > rows[f"{cell}-strings-dense"]["guess"] + 0.01 else "both nets only guess"

    return guard


def _one_epoch(cell: str, part: str, percent: int) -> Claim:
    text = f"{CELL_NAMES[cell]}: {percent}% of the {PIECES[part]} pruned, within 1 point after one epoch"
    return costs_little(text, lost(cell, part, percent, "first"))


def _no_memory(cell: str) -> Claim:
    row = f"{cell}-strings"
    return Claim(
        f"{CELL_NAMES[cell]}: without {PIECES['hh']} it never does better than a guess",
        "points above a guess",
        lambda rows: 100 * (rows[f"{row}-hh"]["after_100"] - rows[f"{row}-dense"]["guess"]),
        at_most=1.0,
    )


def _no_letters(cell: str) -> Claim:
    return Claim(
        f"{CELL_NAMES[cell]}: without {PIECES['ih']} it never recovers, but stays at least 10 points below",
        "points lost",
        lost(cell, "ih", 100),
        at_least=10.0,
    )


def _tanh_below(text: str, task: str) -> Claim:
    return Claim(
        text,
        "points below",
        lambda rows: 100 * (dense_quality(rows, "lstm", task) - dense_quality(rows, "tanh", task)),
        at_least=5.0,
    )


def _flawed(cell: str) -> tuple[Claim, ...]:
    name = CELL_NAMES[cell]
    return (
        costs_little(
            f"{name}, all flaws on: recovers without hidden-to-hidden weights, to under 1 point",
            lost(cell, "hh", 100, task="all"),
        ),
        greater(
            f"{name}: the flaws help it to recover without hidden-to-hidden weights (points after one epoch)",
            lost(cell, "hh", 100, "first"),
            lost(cell, "hh", 100, "first", "all"),
        ),
    )


def _generation(cell: str) -> tuple[Claim, ...]:
    name = CELL_NAMES[cell]
    return (
        costs_little(
            f"{name}, generation: 60% of the weights go without retraining for under 1 point of valid strings",
            lost(cell, "both", 60, "before", "sentences"),
        ),
        costs_little(
            f"{name}, generation: 80% pruned, within 1 point after one epoch",
            lost(cell, "both", 80, "first", "sentences"),
        ),
    )


CLAIMS: tuple[Claim, ...] = (
    *(
        costs_little(
            f"{name}: 60% of the {PIECES['both']} go without retraining for under 1 point",
            lost(cell, "both", 60, "before"),
        )
        for cell, name in CELL_NAMES.items()
    ),
    *(_one_epoch(cell, "both", percent) for percent in (60, 80, 90) for cell in CELL_NAMES),
    *(_one_epoch(cell, part, 90) for part in ("hh", "ih") for cell in CELL_NAMES),
    *(
        costs_little(
            f"{CELL_NAMES[cell]}: recovers without hidden-to-hidden weights, to under 1 point", lost(cell, "hh", 100)
        )
        for cell in GATED
    ),
    *(_no_memory(cell) for cell in SIMPLE),
    *(_no_letters(cell) for cell in CELL_NAMES),
    *(
        greater(
            f"{name}: hidden-to-hidden has more redundancy (less is lost right after 80% are pruned)",
            lost(cell, "ih", 80, "before"),
            lost(cell, "hh", 80, "before"),
        )
        for cell, name in CELL_NAMES.items()
    ),
    _tanh_below("The dense RNN (tanh) stays at least 5 points below the LSTM", "strings"),
    _tanh_below("The same with all flaws on", "all"),
    *(claim for cell in GATED for claim in _flawed(cell)),
    *(claim for cell in CELL_NAMES for claim in _generation(cell)),
    *(
        costs_little(
            f"{name}, layers of 100: weights below .01 go without retraining for under 1 point",
            lost(cell, "threshold", "0.01", "before", "wide"),
        )
        for cell, name in CELL_NAMES.items()
    ),
    *(_one_epoch(cell, "head", 90) for cell in CELL_NAMES),
    *(
        greater(
            f"{name}: one threshold for all layers costs less than the same share of each matrix "
            "(right after 70% are pruned)",
            lost(cell, "matrix", 70, "before"),
            lost(cell, "both", 70, "before"),
            guards=(_better_than_a_guess(cell),),
        )
        for cell, name in CELL_NAMES.items()
    ),
)
