"""Blocks: a character LSTM of 512 units pruned in 16x1 blocks to 90%, against torch and onnxruntime in int8.

Rows: *dense*; *onnx*, that in onnxruntime with dynamic int8 quantisation; *direct*, a dense net with about as many
weights as the pruned one has left; *sparse*, pruned gradually (Zhu & Gupta, arXiv 1710.01878; blocks and their
diagonal as in LPCNet, arXiv 1810.11846); *compact*, without the units that nothing reads; and that on sparsernn's
kernels in each precision. All nets take as many steps in training.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.runtime.layouts import multiplied
from sparsernn.surgery.checkpoint import save
from sparsernn.surgery.compact import compact

from ..claims import Measured
from ..settings import Count, Positive, Share, Whole, settings
from ..tables import figure
from .characters import SMOKE, Characters, CharacterSettings, Net
from .claims import OF_BLOCKS
from .onnx_characters import OnnxCharacters


@settings
class Settings(CharacterSettings):
    """`sparsity`: share of the blocks that goes, from `ramp_begin` to `ramp_end` (shares of the steps).

    `keep_diagonal`: the recurrent matrices keep their diagonals, neither counted nor masked.
    """

    hidden: Count = 512
    steps: Count = 2500
    batch: Count = 16
    learning_rate: Positive = 5e-3
    threads: Whole = 0
    sparsity: Share = 0.9
    ramp_begin: Share = 0.05
    ramp_end: Share = 0.5
    keep_diagonal: bool = False

    def check(self) -> None:
        if self.ramp_begin > self.ramp_end:
            raise ValueError(f"ramp_begin is {self.ramp_begin}, after ramp_end, {self.ramp_end}.")


class Blocks(Characters):
    name = "blocks"
    summary = "A character LSTM of 512 units, 90% pruned in 16x1 blocks: against torch and onnxruntime in int8."
    title = "Tiny Shakespeare, characters, 16x1 blocks: the last tenth of the text"
    scales: ClassVar = {"smoke": Settings(**SMOKE, threads=1), "cpu": Settings()}
    claims = OF_BLOCKS
    minutes: ClassVar = {"smoke": "seconds", "cpu": "10 minutes"}
    columns = (*Characters.columns[:2], figure("non-zero", "nonzero", "{:,}"), *Characters.columns[3:])
    labels: ClassVar = {
        "dense": "dense",
        "onnx": "dense (onnxruntime, int8)",
        "direct": "equal-size dense, trained directly",
        "sparse": "16x1 blocks, not compacted",
        "compact": "compact (torch)",
        "float32": "compact (sparsernn, float32)",
        "bfloat16": "compact (sparsernn, bfloat16)",
        "int8": "compact (sparsernn, int8)",
    }
    made_in_order = ("dense", "sparse", "compact", "direct")
    exact = "sparse"
    precisions: ClassVar = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8"}

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        """Without onnxruntime its row is not made, and none in int8 where the processor would run it in float32."""
        there = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
        left_out = [] if there else ["onnx"]
        left_out += ["int8"] if multiplied("int8") != "int8" else []
        return [row for row in super().rows_of(settings) if row.name not in left_out]

    @property
    def shown(self) -> Net:
        return self.named("sparse")

    @property
    def streamed(self) -> list[str]:
        return [*super().streamed, "onnx"]

    def sparsifier(self, row: Net) -> Callable[[nn.Module], Sparsifier] | None:
        s = self.settings
        if row != self.shown:
            return None
        begin, end = max(1, round(s.ramp_begin * s.steps)), max(1, round(s.ramp_end * s.steps))
        ramp = Gradual(begin=begin, end=end, every=max(1, s.steps // 200))
        return lambda model: Prune(model, None, s.sparsity, level="block", schedule=ramp, keep_diagonal=s.keep_diagonal)

    def make(self, row: Net) -> Mapping[str, Any]:
        if row.name == "onnx":
            OnnxCharacters.write(self.load(self.named("dense")), self.file(row))
            return self.measure(row, self.load(row))
        if row.name != "compact":
            return super().make(row)
        with warnings.catch_warnings():  # blocks seldom leave a unit without readers, and then `compact` says so
            warnings.simplefilter("ignore")
            small: Any = compact(self.load(self.shown), self.example_inputs)
        save(small, self.file(row))
        return self.measure(row, small)

    def measure(self, row: Net, model: Any) -> dict[str, Any]:
        found = super().measure(row, model)
        if row != self.shown:
            return found
        matrices = [p for p in model.lstm.parameters() if p.dim() == 2]
        kept = sum(int(p.count_nonzero()) for p in matrices) / sum(p.numel() for p in matrices)
        return {**found, "density": kept}

    def file(self, row: Any, kind: str = "") -> Path:
        return self.run.folder / "dense-int8.onnx" if row.name == "onnx" else super().file(row, kind)

    def load(self, row: Net, kind: str = "") -> Any:
        if row.name == "onnx":
            return OnnxCharacters(self.load(self.named("dense")), self.file(row))
        return super().load(row, kind)

    @property
    def small_units(self) -> int:
        """Units of the dense net that has about as many weights as the pruned one has left."""
        left = sum(int(p.count_nonzero()) for p in self.load(self.shown).parameters() if p.dim() == 2)
        symbols, embedding = len(self.text.symbols), self.settings.embedding

        def weights(units: int) -> int:
            return symbols * embedding + 4 * units * (embedding + units) + symbols * units

        return min(range(1, self.settings.hidden + 1), key=lambda units: abs(weights(units) - left))

    def verdict(self, measured: Measured) -> str:
        dense, onnx = measured["dense"], measured.get("onnx")
        best = min((row for row in measured if row in self.precisions), key=lambda row: measured[row]["ms_step"])
        fast = measured[best]
        beside = "onnxruntime is not installed"
        if onnx:
            times = onnx["ms_step"] / fast["ms_step"]
            beside = f"{times:.1f}x as fast as onnxruntime on the dense net in int8"
        return (
            f"{100 * (1 - measured['sparse']['density']):.0f}% of the weights of the LSTM gone in 16x1 blocks. Best in "
            f"a streaming step: {best}, {fast['speedup_step']:.1f}x as fast as torch (the faster of LSTM and LSTMCell) "
            f"on the dense net, {beside}.\n"
            f"Bits per character {dense['test_bpc']:.3f} → {fast['test_bpc']:.3f} "
            f"({fast['test_bpc'] - dense['test_bpc']:+.3f})."
        )
