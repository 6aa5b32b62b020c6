"""`sparsernn` with one more recipe, "tiny", which trains in a moment: `python tiny_sweep.py sweep tiny --over ...`.

The processes of trials import this file as well, so they know the recipe, too. TINY_PAUSE makes each step take so many
seconds longer.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sparsernn.cli import main
from sparsernn_studies.recipe import Judge
from sparsernn_studies.recipes import RECIPES, Loaded, Recipe
from sparsernn_studies.results import sizes
from sparsernn_studies.runs import Run
from sparsernn_studies.train import Training, train

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


def make(run: Run, row: str) -> dict[str, float]:
    model, s = Net(run.settings.hidden), run.settings
    training = Training(s.steps, s.learning_rate, warm_up=2, checkpoint_every=4)
    history = train(model, Sum(), training, name=row, seed=run.seed, folder=run.folder / row)
    return {"valid_loss": history.loss[-1], **sizes(model)}


def start(run: Run) -> None:
    for row in ("dense", "sparse"):
        run.row(row, lambda row=row: make(run, row))


RECIPES["tiny"] = Recipe(
    name="tiny",
    summary="",
    scales={"smoke": Settings()},
    minutes={"smoke": "a moment"},
    run=start,
    load=lambda run: Loaded({"sparse": Net(run.settings.hidden).eval()}, torch.zeros(3, 4, 2), "sparse"),
    bench=start,
    report=lambda run: Path(),
    columns=(),
    judge=Judge("valid_loss", more=False, rows="sparse"),
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
