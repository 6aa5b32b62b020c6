"""Blocks: a character LSTM of 512 units pruned in 16x1 blocks to 90%, against torch and onnxruntime in int8.

Rows: *dense*; *onnx*, that in onnxruntime with dynamic int8 quantisation; *direct*, a dense net with about as many
weights as the pruned one has left; *sparse*, pruned gradually (Zhu & Gupta, arXiv 1710.01878; blocks and their
diagonal as in LPCNet, arXiv 1810.11846); *compact*, without the units that nothing reads; and that on sparsernn's
kernels in each precision. All nets take as many steps in training.
"""

from __future__ import annotations

from ..tables import figure
from .block_rows import ROWS, SMOKE, Blocks, Settings
from .character_recipe import COLUMNS, Figures, character_recipe


def _verdict(rows: Figures) -> str:
    dense = rows["dense"]
    best = min((row for row in rows if row in Blocks.precisions), key=lambda row: rows[row]["ms_step"])
    fast = rows[best]
    onnx = rows.get("onnx")
    beside = (
        f"{onnx['ms_step'] / fast['ms_step']:.1f}x as fast as onnxruntime on the dense net in int8"
        if onnx
        else "onnxruntime is not installed"
    )
    loss = fast["test_bpc"] - dense["test_bpc"]
    return (
        f"{100 * (1 - rows['sparse']['density']):.0f}% of the weights of the LSTM gone in 16x1 blocks. Best in a "
        f"streaming step: {best}, {fast['speedup_step']:.1f}x as fast as torch (the faster of LSTM and LSTMCell) "
        f"on the dense net, {beside}.\n"
        f"Bits per character {dense['test_bpc']:.3f} → {fast['test_bpc']:.3f} ({loss:+.3f})."
    )


RECIPE = character_recipe(
    Blocks,
    ROWS,
    _verdict,
    "Tiny Shakespeare, characters, 16x1 blocks: the last tenth of the text",
    columns=(*COLUMNS[:2], figure("non-zero", "nonzero", "{:,}"), *COLUMNS[3:]),
    name="blocks",
    summary="A character LSTM of 512 units, 90% pruned in 16x1 blocks: against torch and onnxruntime in int8.",
    scales={"smoke": SMOKE, "cpu": Settings()},
    minutes={"smoke": "seconds", "cpu": "10 minutes"},
)
