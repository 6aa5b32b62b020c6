"""Tiny Shakespeare: a character LSTM made small in one run, taken apart exactly, and run fast.

Six rows: *dense*; *direct*, a dense net with as many units as the compact one, trained directly for as many steps;
*sparse*, the dense net after group lasso with a target, not compacted; *compact*, the same function as a smaller
nn.LSTM; *fast*, that on sparsernn's kernels; *int8*, the same with weights of eight bits. All nets take as many steps
in training.
"""

from __future__ import annotations

from .character_recipe import Figures, character_recipe
from .shakespeare_rows import ROWS, SMOKE, Settings, Shakespeare


def _verdict(rows: Figures) -> str:
    dense, exact, fast = rows["dense"], rows["fast"], rows["int8"]
    return (
        f"{dense['units'][0]} → {fast['units'][0]} units, {dense['weights']:,} → {fast['weights']:,} weights, "
        f"{fast['speedup_batch']:.1f}x faster in a batch and {fast['speedup_step']:.1f}x in a streaming step on this "
        f"CPU, one thread; bits per character {dense['test_bpc']:.3f} → {fast['test_bpc']:.3f} "
        f"({100 * (fast['test_bpc'] / dense['test_bpc'] - 1):+.1f}%).\n"
        f"That is in int8. In float32: {exact['speedup_batch']:.1f}x and {exact['speedup_step']:.1f}x, outputs "
        f"equal to {exact['max_error']:.0e}."
    )


RECIPE = character_recipe(
    Shakespeare,
    ROWS,
    _verdict,
    "Tiny Shakespeare, characters: the last tenth of the text",
    name="shakespeare",
    summary="A character LSTM on tiny Shakespeare: dense, sparse by target, compact, fast.",
    scales={"smoke": SMOKE, "cpu": Settings()},
    minutes={"smoke": "seconds", "cpu": "under 10 minutes"},
)
