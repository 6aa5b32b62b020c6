"""The rows of the table of blocks: the sparse one by gradual pruning of 16x1 blocks, and onnxruntime beside them."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual
from sparsernn.runtime.costs import offered

from ..models import CharacterLSTM
from .characters import Characters, CharacterSettings
from .onnx_characters import OnnxCharacters

ROWS = {
    "dense": "dense",
    "onnx": "dense (onnxruntime, int8)",
    "direct": "equal-size dense, trained directly",
    "sparse": "16x1 blocks, not compacted",
    "compact": "compact (torch)",
    "float32": "compact (sparsernn, float32)",
    "bfloat16": "compact (sparsernn, bfloat16)",
    "int8": "compact (sparsernn, int8)",
}


@dataclass(frozen=True)
class Settings(CharacterSettings):
    """`sparsity`: share of the blocks that goes, from `ramp_begin` to `ramp_end` (shares of the steps).

    `keep_diagonal`: the recurrent matrices keep their diagonals, neither counted nor masked.
    """

    hidden: int = 512
    steps: int = 2500
    batch: int = 16
    learning_rate: float = 5e-3
    threads: int = 0
    sparsity: float = 0.9
    ramp_begin: float = 0.05
    ramp_end: float = 0.5
    keep_diagonal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._shares("sparsity", "ramp_begin", "ramp_end")
        if self.ramp_begin > self.ramp_end:
            raise ValueError(f"ramp_begin is {self.ramp_begin}, after ramp_end, {self.ramp_end}.")


class Blocks(Characters):
    """The rows; nine in ten blocks go."""

    precisions = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8"}  # noqa: RUF012

    @property
    def rows(self) -> Mapping[str, str]:  # type: ignore[override]
        """Without onnxruntime its row is not made, and none in int8 where the processor would run it in float32."""
        there = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
        left_out = [] if there else ["onnx"]
        left_out += ["int8"] if "panel" in offered("int8") else []
        return {row: label for row, label in ROWS.items() if row not in left_out}

    @property
    def streamed(self) -> tuple[str, ...]:
        return tuple(row for row in self.rows if row in (*self.precisions, "onnx"))

    def sparse(self) -> Mapping[str, Any]:
        s = self.settings
        begin, end = max(1, round(s.ramp_begin * s.steps)), max(1, round(s.ramp_end * s.steps))
        schedule = Gradual(begin=begin, end=end, every=max(1, s.steps // 200))

        def sparsify(model: nn.Module) -> Prune:
            return Prune(model, None, s.sparsity, level="block", schedule=schedule, keep_diagonal=s.keep_diagonal)

        measured = self._train("sparse", self.model(), sparsify)
        lstm = self.load("sparse").lstm
        matrices = [p for p in lstm.parameters() if p.dim() == 2]  # type: ignore[union-attr]
        kept = sum(int(p.count_nonzero()) for p in matrices) / sum(p.numel() for p in matrices)
        return {**measured, "density": kept}

    def compact(self) -> Mapping[str, Any]:
        with warnings.catch_warnings():  # blocks seldom leave a unit without readers, and then `compact` says so
            warnings.simplefilter("ignore")
            return super().compact()

    @property
    def small_units(self) -> int:
        """Units of the dense net that has about as many weights as the pruned one has left."""
        left = sum(int(p.count_nonzero()) for p in self.load("sparse").parameters() if p.dim() == 2)
        symbols, embedding = len(self.text.symbols), self.settings.embedding

        def weights(units: int) -> int:
            return symbols * embedding + 4 * units * (embedding + units) + symbols * units

        return min(range(1, self.settings.hidden + 1), key=lambda units: abs(weights(units) - left))

    def onnx(self) -> Mapping[str, Any]:
        OnnxCharacters.write(self._dense, self._onnx_file)
        return self.measure(self.load("onnx"), self._onnx_file)

    def load(self, row: str) -> nn.Module:
        return OnnxCharacters(self._dense, self._onnx_file) if row == "onnx" else super().load(row)

    @property
    def _dense(self) -> CharacterLSTM:
        model = self.load("dense")
        assert isinstance(model, CharacterLSTM)
        return model

    @property
    def _onnx_file(self) -> Path:
        return self.folder / "dense-int8.onnx"


SMOKE = Settings(
    threads=1,
    embedding=16,
    hidden=32,
    steps=60,
    batch=8,
    length=32,
    warm_up=10,
    train_symbols=20_000,
    test_symbols=4_000,
    precision="float32",
    bench_rounds=3,
    bench_steps=20,
    bench_batch=4,
)
