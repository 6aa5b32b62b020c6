"""MNIST by rows, pruned by magnitude: how far an RNN, an LSTM and a GRU can be pruned, before and after retraining.

After L. Wang's study of weights pruning for RNNs (slides and code) with the three schemes of See et al. (arXiv
1606.09274): trained densely, pruned once, retrained with the masks held. Weights of matrices only, biases are spared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsernn.learn.prune import Prune
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.runtime.layers import accelerate
from sparsernn.structure.cells import recurrent_layers

from ..claims import Measured
from ..data import data_folder
from ..models import RowClassifier
from ..results import Result, sizes
from ..study import Judge, Study
from ..tables import figure
from ..tasks import mnist_rows
from ..tasks.mnist_rows import ImageClassification, Images, image_accuracy
from ..train import Training
from .claims import CLAIMS
from .figures import figures
from .rows import PARTS, PERCENTAGES, SCHEMES, VARIANTS, Net, Settings, dense, grouped, paper, rows_of


class Wang(Study[Settings, Net]):
    name = "wang-mnist"
    summary = "RNN, LSTM and GRU on MNIST rows, pruned once by three schemes and retrained: how far it goes."
    title = "MNIST by rows, pruned"
    caption = "Test accuracy; dense nets are also trained on for as long as the pruned ones are retrained."
    scales: ClassVar = {
        "smoke": Settings(
            cells=("gru",),
            layers=(1, 2),
            hidden=12,
            variants=("blind-hh",),
            percentages=(50, 95),
            steps=20,
            retrain_steps=10,
            warm_up=2,
            train_images=300,
            test_images=200,
            batch=32,
        ),
        "cpu": Settings(),
        "paper": Settings(
            few=PERCENTAGES,
            steps=23_400,
            retrain_steps=23_400,
            learning_rate=1e-3,
            weight_decay=0.0,
            retrain_rate=1e-3,
            rnn_rate=1.0,
            warm_up=0,
            final_rate=1.0,
            precision="float32",
        ),
    }
    minutes: ClassVar = {
        "smoke": "seconds",
        "cpu": "about 15 minutes a seed with one layer, 15 more with two and three",
        "paper": "a day",
    }
    columns = (
        figure("not zero", "nonzero", "{:,}"),
        figure("after pruning", "before", "{:.4f}"),
        figure("trained, retrained", "test_accuracy", "{:.4f}"),
    )
    labels: ClassVar = {row.name: row.label for row in rows_of(Settings(variants=tuple(VARIANTS), few=PERCENTAGES))}
    claims = CLAIMS
    judge = Judge("test_accuracy", more=True, rows="*-blind-*")
    hidden = ("kept_*",)
    threads = 1  # nets of this size gain nothing by more

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        return rows_of(settings)

    @property
    def shown(self) -> Net:
        """The first cell's pruned net, at the percentage nearest to 95."""
        return next(row for row in self.rows if row.percent)

    @cached_property
    def data(self) -> tuple[Images, Images]:
        train_images, test_images = mnist_rows.load(self.run.data or data_folder(None))
        return train_images.some(self.settings.train_images), test_images.some(self.settings.test_images)

    @cached_property
    def example_inputs(self) -> Tensor:
        """Four images of noise: what the nets are traced and timed with needs no data set."""
        return torch.rand(28, 4, 28, generator=torch.Generator().manual_seed(0))

    def model(self, row: Net) -> RowClassifier:
        torch.manual_seed(self.run.seed)
        return RowClassifier(row.cell, 28, self.settings.hidden, row.layers)

    def start(self, row: Net) -> RowClassifier:
        """The dense net, pruned at once where the row is."""
        if not row.percent and not row.longer:
            return self.model(row)
        model = self.load(dense(row.cell, row.layers))
        if row.percent:
            prune(model, row)
        return model

    def objective(self, row: Net) -> ImageClassification:
        return ImageClassification(self.data[0], self.settings.batch, self.run.seed)

    def training(self, row: Net) -> Training:
        s, share = self.settings, self.settings.rnn_rate if row.cell == "rnn" else 1.0
        rate, decay = (s.retrain_rate, 0.0) if row.percent else (s.learning_rate, s.weight_decay)
        steps = s.retrain_steps if row.percent or row.longer else s.steps
        return Training(steps, rate * share, s.warm_up, s.final_rate, decay, precision=s.precision, optimizer="rmsprop")

    def sparsifier(self, row: Net) -> Callable[[nn.Module], Sparsifier] | None:
        return (lambda model: prune(model, row)) if row.percent else None

    def measure(self, row: Net, model: nn.Module) -> Mapping[str, Any]:
        found = {"test_accuracy": image_accuracy(model, self.data[1]), **sizes(model)}
        if row.percent:
            before = self.start(row)
            found["before"] = image_accuracy(before, self.data[1])
            found |= {f"kept_{block}": share for block, share in kept(before).items()}
        return found

    def paper(self, row: Net) -> Mapping[str, Any]:
        return paper(row)

    @staticmethod
    def grouped(measured: Measured) -> Measured:
        return grouped(measured)

    @property
    def saved(self) -> tuple[Net, ...]:
        """Dense and pruned net of the first cell."""
        return dense(self.shown.cell, self.shown.layers), self.shown

    def forms(self) -> Mapping[str, nn.Module]:
        """The first cell's dense and pruned net, the pruned one on sparsernn's kernels as well."""
        found = {row.name: self.load(row) for row in self.saved}
        return {**found, "pruned, sparsernn": accelerate(found[self.shown.name])}

    def sections(self, rows: Mapping[str, Result], found: Any) -> Mapping[str, Any]:
        measured = {row: result.measured for row, result in rows.items()}
        return {"figures": [(drawn, caption) for drawn, caption, _ in figures([grouped(measured)])]}


def prune(model: nn.Module, row: Net) -> Prune:
    """Prune `model` as `row` says, now; the sparsifier, once attached, holds the masks from the first step on."""
    scope, score = SCHEMES[row.scheme]
    sparsifier = Prune(model, None, row.percent / 100, score=score(), scope=scope, include=PARTS[row.part])
    sparsifier.step()
    return sparsifier


def kept(model: nn.Module) -> dict[str, float]:
    """Share of weights left in each gate of each layer's matrices, as ih0_i, and in the head."""
    parameters = dict(model.named_parameters())
    shares = {}
    for layer in recurrent_layers(model):
        for rows in layer.rows:
            weight = parameters[rows.parameter]
            if weight.dim() == 2:
                block = weight[rows.start : rows.start + layer.hidden_size]
                shares[f"{rows.kind}{layer.layer}_{rows.gate}"] = float(block.count_nonzero()) / block.numel()
    head = parameters["head.weight"]
    return {**shares, "head": float(head.count_nonzero()) / head.numel()}
