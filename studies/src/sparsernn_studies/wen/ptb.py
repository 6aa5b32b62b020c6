"""Intrinsic sparse structures on Penn Treebank: table 1 of Wen et al. (arXiv 1709.05027), on Zaremba's LSTMs.

Rows: the dense net; the same with the sparse rows' weaker dropout and no penalty, which over-fits; ISS (group lasso on
units, subgradient and threshold) from scratch and from the dense net; units to a target; L1 on single weights (appendix
A); a dense net of the sizes that ISS found, trained directly; and what ISS left, with most of its 16x1 blocks taken out
as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier

from ..claims import Measured
from ..results import Result
from ..scores import as_recorded
from ..study import Judge
from ..word_study import Net
from ..zaremba import ZarembaStudy
from .claims import OF_WORDS
from .ptb_settings import ROWS, Settings

# Validation and test perplexity of Zaremba et al. (table 1), and Wen's table 1 with all parameters and milliseconds.
PAPER: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "small": {"dense": {"valid_perplexity": 120.7, "test_perplexity": 114.5}},
    "medium": {"dense": {"valid_perplexity": 86.2, "test_perplexity": 82.7}},
    "large": {
        "dense": {"valid_perplexity": 82.57, "test_perplexity": 78.57, "units": [1500, 1500], "parameters": 66.0e6},
        "iss": {
            "valid_perplexity": 82.59,
            "test_perplexity": 78.65,
            "units": [373, 315],
            "parameters": 21.8e6,
            "speedup": 10.59,
        },
        "direct": {
            "valid_perplexity": 90.31,
            "test_perplexity": 85.66,
            "units": [373, 315],
            "parameters": 21.8e6,
            "speedup": 10.59,
        },
    },
}


class Ptb(ZarembaStudy[Settings]):
    name = "wen-ptb"
    summary = "Intrinsic sparse structures in Zaremba's LSTMs on Penn Treebank: ISS, target, L1, blocks, direct design."
    title = "Penn Treebank, {size} LSTM"
    scales: ClassVar = {
        "smoke": Settings(size="tiny", rows=tuple(ROWS), words=1500, strength=0.2, target=0.4, bench_rounds=1),
        "cpu": Settings(precision="auto"),
        "paper": Settings(size="large", rows=tuple(ROWS), schedule="code", device="any", checkpoint_every=1000),
    }
    minutes: ClassVar = {
        "smoke": "seconds",
        "cpu": "45 to 60 minutes a row, estimated",
        "paper": "hours a row on a GPU",
    }
    labels: ClassVar = {row.name: row.label for row in ROWS.values()}
    judge = Judge("valid_perplexity", more=False, rows="iss")
    claims = OF_WORDS

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        return [ROWS[name] for name in settings.rows]

    @property
    def shown(self) -> Net:
        """The first row whose units go, else the first."""
        return next((row for row in self.rows if row.kind in ("iss", "target")), self.rows[0])

    def paper(self, row: Net) -> Mapping[str, Any]:
        return PAPER.get(self.settings.size, {}).get(row.name, {})

    def widths(self, row: Net) -> tuple[int, ...]:
        if row.kind != "direct":
            return super().widths(row)
        return self.settings.widths or self.units_of("iss")

    def sparsifier(self, row: Net) -> Callable[..., Sparsifier] | None:
        """What learns the sparsity of `row`, attached to a training of so many steps."""
        if row.kind in ("dense", "relaxed", "direct"):
            return None
        s, x, part = self.settings, self.example_inputs, ("layers.*", "head.*")  # every matrix but the embedding
        lasso = {"update": "subgradient", "threshold": self.threshold}

        def learner(model: nn.Module, steps: int) -> Sparsifier:
            match row.kind:
                case "iss":
                    return GroupLasso(model, x, strength=s.strength, **lasso)
                case "l1":
                    both = {"strength": s.l1_strength, "threshold": s.l1_threshold}
                    return L1(model, x, **both, update="subgradient", include=part)
                case "lines":  # Wen's matrix has the rows of all four gates as its columns
                    return GroupLasso(model, None, strength=s.lines_strength, level=("gate", "column"), **lasso)
                case "target":
                    return Shrink(model, x, to=s.target, steps=steps, score=as_recorded())
                case _:
                    return Shrink(model, None, to=row.share, steps=steps, level="block", include=part)

        return learner

    def verdict(self, measured: Measured) -> str:
        return verdict(measured)

    def sections(self, rows: Mapping[str, Result], found: Any) -> Mapping[str, Any]:
        drawn = [row for row in self.rows if row.kind in ("iss", "target", "l1") and row != self.shown]
        return {
            "figures": [
                (
                    inspect(self.load(row), self.example_inputs).plot_weights(),
                    f"{row.label}: weights that are not zero, dead units as white strips (figures 4 and 5).",
                )
                for row in drawn
            ]
        }


def verdict(measured: Measured) -> str:
    """What the rows say: what ISS took and what it cost, and whether its sizes alone would have done."""
    if "iss" not in measured:
        return ""
    sparse = measured["iss"]
    lines = []
    if "dense" in measured:
        dense = measured["dense"]
        lines.append(
            f"Units {dense['units']} → {sparse['units']}, {sparse['mult_adds'] / dense['mult_adds']:.0%} of the "
            f"multiply-adds, {sparse['speedup_fast']:.1f}x as fast ({sparse['speedup_int8']:.1f}x in int8); test "
            f"perplexity {dense['test_perplexity']:.2f} → {sparse['test_perplexity']:.2f}."
        )
    if "direct" in measured:
        direct = measured["direct"]
        sizes = "the same sizes" if direct["units"] == sparse["units"] else f"{direct['units']} units"
        lines.append(
            f"ISS {sparse['test_perplexity']:.2f}, {sizes} trained directly {direct['test_perplexity']:.2f}. Which is "
            "better is not answered: one seed, and where the nets have neither dropout nor decay, ISS's penalty is the "
            "only regulariser."
        )
    blocks = {row: m for row, m in measured.items() if row.startswith("blocks")}
    if blocks and "dense" in measured:
        wanted = measured["dense"]["test_perplexity"]
        fit = [row for row, m in blocks.items() if m["test_perplexity_int8"] <= wanted]
        best = max(fit, key=lambda row: blocks[row]["speedup_int8"], default=None)
        if best is None:
            lines.append(f"No row of blocks is in int8 as good as the dense net ({wanted:.2f}).")
        else:
            m = blocks[best]
            lines.append(
                f"Of the rows of blocks the fastest that is no worse than the dense net ({wanted:.2f}), at one seed: "
                f"{ROWS[best].label}, in int8 {m['test_perplexity_int8']:.2f} and {m['speedup_int8']:.1f}x as fast; "
                f"ISS alone {sparse['test_perplexity_int8']:.2f} and {sparse['speedup_int8']:.1f}x."
            )
    return "\n".join(lines)
