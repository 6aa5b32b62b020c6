"""Tiny Shakespeare: a character LSTM made small in one run, taken apart exactly, and run fast.

Six rows: *dense*; *direct*, a dense net with as many units as the compact one, trained directly for as many steps;
*sparse*, the dense net shrunk to a target, not compacted; *compact*, the same function as a smaller
nn.LSTM; *fast*, that on sparsernn's kernels; *int8*, the same with weights of eight bits. All nets take as many steps
in training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn

from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier

from ..claims import Measured
from ..scores import as_recorded
from ..settings import Share, settings
from .characters import SMOKE, Characters, CharacterSettings, Net
from .claims import OF_SHAKESPEARE


@settings
class Settings(CharacterSettings):
    """`target`: share of the recurrent weights kept, a half of the units; `ramp_begin`, `ramp_end` and `freeze`: when
    they go, in shares of the steps.
    """

    target: Share = 0.286
    ramp_begin: float = 0.1
    ramp_end: float = 0.35
    freeze: float = 0.4


class Shakespeare(Characters):
    name = "shakespeare"
    summary = "A character LSTM on tiny Shakespeare: dense, sparse by target, compact, fast."
    title = "Tiny Shakespeare, characters: the last tenth of the text"
    scales: ClassVar = {"smoke": Settings(**SMOKE), "cpu": Settings()}
    minutes: ClassVar = {"smoke": "seconds", "cpu": "under 10 minutes"}
    labels: ClassVar = {
        "dense": "dense",
        "direct": "equal-size dense, trained directly",
        "sparse": "sparse, not compacted",
        "compact": "compact (torch)",
        "fast": "compact (sparsernn)",
        "int8": "compact (sparsernn, int8)",
    }
    precisions: ClassVar = {"fast": "float32", "int8": "int8"}
    claims = OF_SHAKESPEARE

    def sparsifier(self, row: Net) -> Callable[[nn.Module], Sparsifier] | None:
        s, x = self.settings, self.example_inputs
        path = TopK(begin=s.ramp_begin, end=s.ramp_end, freeze=s.freeze)
        if row != self.shown:
            return None
        return lambda model: Shrink(model, x, to=s.target, steps=s.steps, path=path, score=as_recorded())

    def measure(self, row: Net, model: Any) -> dict[str, Any]:
        found = super().measure(row, model)
        return found | ({"density": found["nonzero"] / found["weights"]} if row == self.shown else {})

    def verdict(self, measured: Measured) -> str:
        dense, exact, fast = measured["dense"], measured["fast"], measured["int8"]
        return (
            f"{dense['units'][0]} → {fast['units'][0]} units, {dense['weights']:,} → {fast['weights']:,} weights, "
            f"{fast['speedup_batch']:.1f}x faster in a batch and {fast['speedup_step']:.1f}x in a streaming step on "
            f"this CPU, one thread; bits per character {dense['test_bpc']:.3f} → {fast['test_bpc']:.3f} "
            f"({100 * (fast['test_bpc'] / dense['test_bpc'] - 1):+.1f}%).\n"
            f"That is in int8. In float32: {exact['speedup_batch']:.1f}x and {exact['speedup_step']:.1f}x, outputs "
            f"equal to {exact['max_error']:.0e}."
        )
