"""Intrinsic sparse structures in recurrent highway networks: table 2 of Wen et al. (arXiv 1709.05027), Penn Treebank.

A unit is one of the embedding, of all depths, of the state and of the output layer. Rows: the dense net; ISS for each
strength of the penalty; units to a target; and a dense net as wide as the one that reached it, trained directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier

from ..claims import Measured
from ..highway_model import HighwayModel
from ..scores import as_recorded
from ..word_study import Net, WordStudy
from .rhn_settings import HighwaySettings, iss

# Strength: validation and test perplexity, units, parameters in millions (table 2; strength 0 is the dense net).
TABLE_2 = {
    0.0: (67.9, 65.4, 830, 23.5),
    0.004: (67.5, 65.0, 726, 18.9),
    0.005: (68.1, 65.4, 517, 11.1),
    0.006: (70.3, 67.7, 403, 7.6),
    0.007: (74.5, 71.2, 328, 5.7),
}
PAPER: Mapping[str, Mapping[str, Any]] = {
    iss(strength).name if strength else "dense": {
        "valid_perplexity": valid,
        "test_perplexity": test,
        "units": [units],
        "parameters": round(millions * 1e6),
    }
    for strength, (valid, test, units, millions) in TABLE_2.items()
}


class Rhn(WordStudy[HighwaySettings]):
    name = "wen-rhn"
    summary = "Intrinsic sparse structures in a recurrent highway network on Penn Treebank: ISS by strength, target."
    title = "Penn Treebank, recurrent highway network"
    scales: ClassVar = {
        "smoke": HighwaySettings(
            12,
            2,
            (0.3, 0.6),
            target=0.5,
            epochs=2,
            dropout=0.1,
            sparse_dropout=0.1,
            bptt=10,
            words=1500,
            bench_rounds=1,
        ),
        # So short a training of so small a net is far from over-fitting, and takes a stronger penalty to reach zero.
        "cpu": HighwaySettings(
            64,
            4,
            (0.02, 0.04),
            epochs=3,
            learning_rate=0.4,
            dropout=0.0,
            sparse_dropout=0.0,
            keep_best=False,
            words=200_000,
            measured_words=20_000,
            precision="auto",
        ),
        "paper": HighwaySettings(device="any", checkpoint_every=1000),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "some minutes a row, estimated", "paper": "a day a row on a GPU"}
    labels: ClassVar = {
        row.name: row.label
        for settings in (HighwaySettings(strengths=(0.004, 0.005, 0.006, 0.007, 0.02, 0.04, 0.3, 0.6)),)
        for row in settings.nets
    }
    papers = PAPER

    @classmethod
    def rows_of(cls, settings: HighwaySettings) -> tuple[Net, ...]:
        return settings.nets

    @property
    def shown(self) -> Net:
        return self.rows[1]

    def model(self, row: Net) -> HighwayModel:
        s = self.settings
        torch.manual_seed(self.run.seed)
        width = self.units_of("target")[0] if row.kind == "direct" else s.width
        return HighwayModel(len(self.text.symbols), width, s.depth, s.drop(row))

    def sparsifier(self, row: Net) -> Callable[..., Sparsifier] | None:
        s, x = self.settings, self.example_inputs

        def learner(model: nn.Module, steps: int) -> Sparsifier:
            if row.kind == "target":
                return Shrink(model, x, to=s.target, steps=steps, score=as_recorded())
            return GroupLasso(model, x, strength=row.strength, update="subgradient", threshold=self.threshold)

        return learner if row.kind in ("iss", "target") else None

    def mult_adds(self, model: Any) -> int:
        """Multiply-adds for one word: non-zero weights of all matrices; the embedding's are those of the decoder."""
        return sum(int(p.count_nonzero()) for p in model.parameters() if p.dim() == 2)

    def verdict(self, measured: Measured) -> str:
        dense = measured["dense"]
        lines = [
            f"{self.label(row)}: units {dense['units'][0]} → {m['units'][0]}, test perplexity "
            f"{dense['test_perplexity']:.2f} → {m['test_perplexity']:.2f}."
            for row, m in measured.items()
            if row not in ("dense", "direct")
        ]
        if "direct" in measured:
            ours, theirs = measured["target"]["test_perplexity"], measured["direct"]["test_perplexity"]
            lines.append(f"target {ours:.2f}, the same size trained directly {theirs:.2f}; one seed does not say more.")
        return "\n".join(lines)
