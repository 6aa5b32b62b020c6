"""`sparsernn` with one more recipe, "tiny", which trains in a moment: `python tiny_sweep.py sweep tiny --over ...`.

The processes of trials import this file as well, so they know the recipe, too. TINY_PAUSE makes each step take so many
seconds longer.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from sparsernn.cli import main
from sparsernn_studies.loop import History
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import sizes
from sparsernn_studies.study import Judge, Row, Study
from sparsernn_studies.train import Training

PAUSE = float(os.environ.get("TINY_PAUSE", "0"))


@dataclass(frozen=True)
class Settings:
    hidden: int = 4
    learning_rate: float = 1e-2
    steps: int = 40


class Net(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = nn.GRU(2, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x_TBI: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(x_TBI)[0][-1])


class Sum:
    """The sum of a random sequence."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> torch.Tensor:
        time.sleep(PAUSE)
        return torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(step))

    def loss(self, model: nn.Module, batch: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        return (model(batch) - batch.sum((0, 2))[:, None]).square().mean(), None


class Tiny(Study[Settings, Row]):
    name, summary, title, columns = "tiny", "", "Tiny", ()
    scales: ClassVar = {"smoke": Settings()}
    minutes: ClassVar = {"smoke": "a moment"}
    judge = Judge("valid_loss", more=False, rows="sparse")
    example_inputs = torch.zeros(3, 4, 2)

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Row]:
        return [Row("dense"), Row("sparse")]

    def model(self, row: Row) -> Net:
        return Net(self.settings.hidden)

    def objective(self, row: Row) -> Sum:
        return Sum()

    def training(self, row: Row) -> Training:
        return Training(self.settings.steps, self.settings.learning_rate, warm_up=2, checkpoint_every=4)

    def train(self, *args: object, **more: object) -> History:
        self.history = super().train(*args, **more)
        return self.history

    def measure(self, row: Row, model: nn.Module) -> dict[str, float]:
        return {"valid_loss": self.history.loss[-1], **sizes(model)}


RECIPES["tiny"] = Tiny

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
