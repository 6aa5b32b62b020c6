"""The rows of Wen's table of recurrent highway networks: how each is made and measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.sparsifier import Sparsifier

from ..highway_model import HighwayModel
from ..runs import Run
from ..scores import as_recorded
from .ptb_rows import Wen
from .rhn_settings import HighwaySettings, iss_row


class Highway(Wen):
    """The rows on recurrent highway networks; timing, saving and measuring are those of the LSTMs."""

    settings: HighwaySettings  # type: ignore[assignment]

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.strengths = {iss_row(strength): strength for strength in self.settings.strengths}

    def model(self, row: str) -> HighwayModel:
        """The untrained net of `row`."""
        s = self.settings
        torch.manual_seed(self.run.seed)
        width = self.units_of("target")[0] if row == "direct" else s.width
        return HighwayModel(len(self.text.symbols), width, s.depth, s.drop(row))

    def sparsifier(self, row: str) -> Callable[[nn.Module, int], Sparsifier] | None:
        """What learns the sparsity of `row`; None for nets that are trained densely."""
        s, x = self.settings, self.example_inputs
        if row in self.strengths:
            return lambda model, steps: GroupLasso(
                model, x, strength=self.strengths[row], update="subgradient", threshold=s.threshold
            )
        if row == "target":
            return lambda model, steps: GroupLasso(model, x, target=s.target, steps=steps, score=as_recorded())
        return None

    def mult_adds(self, model: Any) -> int:
        """Multiply-adds for one word: non-zero weights of all matrices; the embedding's are those of the decoder."""
        return sum(int(p.count_nonzero()) for p in model.parameters() if p.dim() == 2)
