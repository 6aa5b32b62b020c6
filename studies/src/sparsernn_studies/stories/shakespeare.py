"""Tiny Shakespeare: a trained character LSTM made small without training, trained on, and run fast.

Six rows: *dense*; *folded*, half of its units taken out and made up for by the others, in seconds; *compact*, that
trained on; *direct-longer*, a dense net of that size trained from the start for as many multiply-adds as both
trainings; *fast*, the compact net on sparsernn's kernels; *int8*, the same with weights of eight bits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

import sparsernn as srn

from ..claims import Measured
from ..counting import multiply_adds
from ..precision import resolved
from ..settings import Count, Part, Positive, Whole, settings
from ..tables import Column, figure
from ..tasks.text import Streams
from ..train import Training
from .characters import SMOKE, Characters, CharacterSettings, Net
from .claims import OF_SHAKESPEARE


@settings
class Settings(CharacterSettings):
    """`target`: share of the recurrent weights that `fold` leaves, a half of the units. `further`: steps of training
    after it, at `further_rate`. `positions`: of the training text that `fold` sees.
    """

    steps: Count = 2000
    target: Part = 0.286
    further: Count = 3000
    further_rate: Positive = 8e-3
    further_warm_up: Whole = 50
    positions: Count = 40_000


class Shakespeare(Characters):
    name = "shakespeare"
    summary = "A character LSTM on tiny Shakespeare: dense, folded in seconds, trained on, fast."
    title = "Tiny Shakespeare, characters: the last tenth of the text"
    scales: ClassVar = {"smoke": Settings(**SMOKE, further=20, positions=2000), "cpu": Settings()}
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 10 minutes"}
    labels: ClassVar = {
        "dense": "dense",
        "folded": "folded, no training",
        "compact": "folded and trained on (torch)",
        "fast": "folded and trained on (sparsernn)",
        "int8": "folded and trained on (sparsernn, int8)",
        "direct-longer": "equal-size dense, as much compute",
    }
    columns = (
        Characters.columns[0],
        figure("steps", "steps", "{:,}"),
        Column("CPU time", lambda m: f"{m['cpu_seconds']:.0f} s" if "cpu_seconds" in m else "-"),
        *Characters.columns[1:],
    )
    precisions: ClassVar = {"fast": "float32", "int8": "int8"}
    made_in_order = ("dense", "folded", "compact", "direct-longer")
    exact = "compact"
    claims = OF_SHAKESPEARE

    @property
    def shown(self) -> Net:
        return self.named("folded")

    def inspected(self) -> nn.Module:
        return self.load(self.shown, "-whole")

    def training(self, row: Net) -> Training:
        s, precision = self.settings, resolved(self.settings.precision)
        if row.name == "compact":
            return Training(s.further, s.further_rate, s.further_warm_up, precision=precision)
        return Training(self.steps(row), s.learning_rate, s.warm_up, precision=precision)

    def steps(self, row: Net) -> int:
        """All steps of training up to `row`; the longer direct one multiplies and adds as often as the folded net's."""
        s = self.settings
        if row.name in ("dense", "folded"):
            return s.steps
        if row.name != "direct-longer":
            return s.steps + s.further
        dense, small = (multiply_adds(self.model(self.named(name))) for name in ("dense", "direct-longer"))
        return round(s.steps * dense / small) + s.further

    def start(self, row: Net) -> Any:
        return self.load(self.shown) if row.name == "compact" else self.model(row)

    def make(self, row: Net) -> Mapping[str, Any]:
        if row.precision:
            return {**super().make(row), "cpu_seconds": self.spent("compact")}
        if row.name == "compact":
            made = super().make(row)
            return {**made, "cpu_seconds": round(self.spent("folded") + made["cpu_seconds"], 1)}
        if row != self.shown:
            return super().make(row)
        dense, s = self.load(self.named("dense")), self.settings
        streams = Streams(self.text.train, 16, 250)
        seen = [streams.at(step)[0] for step in range(max(1, s.positions // 4000))]
        began = time.process_time()
        folded = srn.fold(dense, seen, to=s.target)
        small = srn.compact(folded.model, self.example_inputs)
        seconds = time.process_time() - began
        srn.save(folded.model, self.file(row, "-whole"))
        srn.save(small, self.file(row))
        return {
            **self.measure(row, small),
            "cpu_seconds": round(self.spent("dense") + seconds, 1),
            "fold_seconds": round(seconds, 1),
            "change": folded.measured,
        }

    def spent(self, name: str) -> float:
        """CPU seconds from the first step of the dense net to the row `name`."""
        return self.result(self.named(name)).measured["cpu_seconds"]

    def measure(self, row: Net, model: Any) -> dict[str, Any]:
        return super().measure(row, model) | {"steps": self.steps(row)}

    def verdict(self, measured: Measured) -> str:
        dense, folded, exact, fast = (measured[row] for row in ("dense", "folded", "fast", "int8"))
        return (
            f"{dense['units'][0]} → {fast['units'][0]} units, {dense['weights']:,} → {fast['weights']:,} weights, "
            f"{fast['speedup_batch']:.1f}x faster in a batch and {fast['speedup_step']:.1f}x in a streaming step on "
            f"this CPU, one thread; bits per character {dense['test_bpc']:.3f}, folded in "
            f"{folded['fold_seconds']:.0f} s {folded['test_bpc']:.3f}, trained on {fast['test_bpc']:.3f} "
            f"({100 * (fast['test_bpc'] / dense['test_bpc'] - 1):+.1f}%).\n"
            f"That is in int8. In float32: {exact['speedup_batch']:.1f}x and {exact['speedup_step']:.1f}x, outputs "
            f"equal to {exact['max_error']:.0e}."
        )
