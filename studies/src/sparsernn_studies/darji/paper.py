"""The original's figures (H. Darji, arXiv 2407.20601): accuracy right after pruning, after 1 epoch and after 10."""

from __future__ import annotations

from .settings import Net

DENSE = {"tanh": 0.937, "relu": 1.0, "lstm": 1.0, "gru": 1.0}
# Where two figures are given, the second is reached after one epoch and kept; one alone is right after pruning.
PRUNED: dict[tuple[str, str], dict[int, tuple[float, ...]]] = {
    ("tanh", "both"): {70: (0.933, 0.937), 80: (0.919, 0.933, 0.995), 90: (0.656, 0.925, 0.937), 100: (0.494, 0.494)},
    ("relu", "both"): {70: (0.986, 1.0), 80: (0.549, 1.0), 90: (0.503, 1.0)},
    ("lstm", "both"): {60: (1.0,), 70: (0.803, 1.0), 80: (0.668, 1.0), 90: (0.495, 1.0)},
    ("gru", "both"): {80: (0.994, 1.0), 90: (0.551, 1.0)},
    ("tanh", "ih"): {90: (0.494, 0.739, 0.971)},
    ("relu", "hh"): {80: (0.649, 1.0)},
    ("lstm", "hh"): {90: (0.953, 1.0), 100: (0.521, 0.988, 1.0)},
    ("gru", "hh"): {90: (0.951, 1.0), 100: (0.573, 0.974, 1.0)},
}


def paper(row: Net) -> dict[str, float]:
    """The original's figures for a row on strings, clean or with all flaws; {} where it has none."""
    if row.task not in ("strings", "all"):
        return {}
    if row.part == "dense":
        return {"test_accuracy": DENSE[row.cell]}
    found: dict[str, float] = {}
    for percent, (before, *after) in PRUNED.get((row.cell, row.part), {}).items():
        found[f"before_{percent}"] = before
        if after:
            found |= {f"first_{percent}": after[0], f"after_{percent}": after[-1]}
    return found
