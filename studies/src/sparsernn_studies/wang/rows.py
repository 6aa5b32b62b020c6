"""The rows of the MNIST pruning table: how each is trained, pruned once, retrained and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from sparsernn.learn.prune import Prune, Scope
from sparsernn.learn.scores import Magnitude, Score, StandardDeviation
from sparsernn.structure.cells import recurrent_layers
from sparsernn.surgery.checkpoint import load, save

from ..data import data_folder
from ..models import CELLS, Cell, RowClassifier
from ..results import Result, sizes
from ..runs import Run
from ..tasks import mnist_rows
from ..tasks.mnist_rows import ImageClassification, Images, image_accuracy
from ..train import Training, train

# See et al. (arXiv 1606.09274): one threshold for all weights, one for each matrix, one in units of each matrix's
# standard deviation.
SCHEMES: dict[str, tuple[Scope, type[Score]]] = {
    "blind": ("model", Magnitude),
    "uniform": ("matrix", Magnitude),
    "distribution": ("model", StandardDeviation),
}
PARTS = {"all": "all", "recurrent": "recurrent", "hh": "*weight_hh*", "ih": "*weight_ih*"}
VARIANTS = tuple(f"{scheme}-{part}" for scheme in SCHEMES for part in PARTS)
PART_NAMES = {
    "all": "all weights",
    "recurrent": "recurrent layers",
    "hh": "hidden-to-hidden",
    "ih": "input-to-hidden",
}
# Test accuracy in the author's curves, one layer, after 50 epochs of retraining; per matrix and for all at once.
PAPER_DENSE = {
    ("rnn", 1): 0.9764,
    ("lstm", 1): 0.9895,
    ("gru", 1): 0.9882,
    ("rnn", 2): 0.9798,
    ("lstm", 2): 0.9909,
    ("gru", 2): 0.9900,
    ("rnn", 3): 0.9568,
    ("lstm", 3): 0.9917,
    ("gru", 3): 0.9904,
}
PAPER_AFTER = {
    ("rnn", "uniform"): {50: 0.9816, 80: 0.9788, 90: 0.9736, 95: 0.9491, 97: 0.9208, 99: 0.287},
    ("lstm", "uniform"): {90: 0.9845, 95: 0.9800, 97: 0.9584, 99: 0.642},
    ("gru", "uniform"): {50: 0.9903, 80: 0.9894, 90: 0.9861, 95: 0.9800, 97: 0.868, 99: 0.512},
    ("rnn", "blind"): {95: 0.8645, 97: 0.235},
    ("lstm", "blind"): {95: 0.9803, 97: 0.9681, 99: 0.857},
    ("gru", "blind"): {95: 0.9801, 97: 0.9648, 99: 0.736},
}


@dataclass(frozen=True)
class Settings:
    """With one layer, all weights are pruned class-blind to all `percentages`; the other `variants` (scheme-part) and
    the nets of several layers to `few` of them. `steps` train the dense net, `retrain_steps` what is left of it.

    `learning_rate` and `weight_decay` are those of dense nets, also of the one that is trained on for as long as the
    pruned ones are retrained; those, at `retrain_rate` without decay, bear and need a higher rate. The decay (the
    study had none) takes the place of its 50 epochs: after few steps, weights that nothing needs are else still as
    large as they were at the start, and magnitude says little. `rnn_rate`: the vanilla RNN's rates as a share of the
    others', since it does not bear what gated cells do. `train_images`, `test_images` 0: all of them.
    """

    cells: tuple[str, ...] = ("rnn", "lstm", "gru")
    layers: tuple[int, ...] = (1, 2, 3)
    hidden: int = 128
    variants: tuple[str, ...] = ("uniform-all", "distribution-all", "blind-recurrent", "blind-hh", "blind-ih")
    percentages: tuple[int, ...] = (50, 80, 90, 95, 97, 99)
    few: tuple[int, ...] = (95,)
    steps: int = 1000
    retrain_steps: int = 1200
    train_images: int = 0
    test_images: int = 0
    batch: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4
    retrain_rate: float = 2e-2
    rnn_rate: float = 0.2
    warm_up: int = 100
    final_rate: float = 0.02
    precision: Literal["float32", "bfloat16"] = "bfloat16"

    def __post_init__(self) -> None:
        for name, known in (("cells", CELLS), ("variants", VARIANTS)):
            given = getattr(self, name)
            if [each for each in given if each not in known] or (not given and name == "cells"):
                raise ValueError(f"{name} is {','.join(given)!r}, expected some of {', '.join(known)}.")
        for name in ("percentages", "few"):
            if any(not 0 < p < 100 for p in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, expected percentages between 0 and 100.")
        for name in ("hidden", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")
        if not self.layers or min(self.layers) < 1 or self.train_images < 0 or self.test_images < 0:
            raise ValueError(f"layers is {self.layers}, expected numbers of layers from 1 on.")
        for cell in CELLS:
            self.training(cell)
            self.retraining(cell)

    def training(self, cell: str) -> Training:
        return self._dense(cell, self.steps)

    def training_on(self, cell: str) -> Training:
        return self._dense(cell, self.retrain_steps)

    def retraining(self, cell: str) -> Training:
        return self._training(self.retrain_steps, self.retrain_rate * self._share(cell), 0.0)

    def _share(self, cell: str) -> float:
        return self.rnn_rate if cell == "rnn" else 1.0

    def _dense(self, cell: str, steps: int) -> Training:
        return self._training(steps, self.learning_rate * self._share(cell), self.weight_decay)

    def _training(self, steps: int, rate: float, decay: float) -> Training:
        return Training(
            steps, rate, self.warm_up, self.final_rate, decay, precision=self.precision, optimizer="rmsprop"
        )


@dataclass(frozen=True)
class Name:
    """A row: `cell` with `layers`, "dense", trained on for "longer", or pruned by a scheme-part to `percent`."""

    cell: str
    layers: int
    variant: str = "dense"
    percent: int = 0

    def __str__(self) -> str:
        return f"{self.cell}{self.layers}-{self.variant}" + (f"-{self.percent}" if self.percent else "")

    @property
    def label(self) -> str:
        net = f"{self.cell.upper()}, {self.layers} layer{'s' if self.layers > 1 else ''}"
        if not self.percent:
            return f"{net}, dense" + (", trained on" if self.variant == "longer" else "")
        scheme, part = self.variant.split("-")
        return f"{net}, class-{scheme}, {PART_NAMES[part]}, {self.percent}%"

    @property
    def dense(self) -> Name:
        """The row of the net that this one is pruned from."""
        return Name(self.cell, self.layers)


def names(settings: Settings) -> list[Name]:
    """The rows in the order in which they are made: what answers most comes first."""
    s, found = settings, []
    for layers in s.layers:
        found += [Name(cell, layers) for cell in s.cells]
        pruned = [("blind-all", percent) for percent in (s.percentages if layers == 1 else s.few)]
        pruned.sort(key=lambda each: abs(each[1] - 95))
        pruned.insert(1, ("longer", 0))
        pruned += [(variant, percent) for variant in s.variants for percent in s.few if layers == 1]
        found += [Name(cell, layers, variant, percent) for variant, percent in pruned for cell in s.cells]
    return found


def grouped(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Measured figures by net and variant: "before" of row lstm1-blind-all-95 as "before_95" of lstm1-blind-all."""
    found: dict[str, dict[str, Any]] = {}
    for row, measured in rows.items():
        net, _, percent = row.rpartition("-")
        if percent.isdecimal():
            found.setdefault(net, {}).update({f"{metric}_{percent}": v for metric, v in measured.items()})
        else:
            found[row] = dict(measured)
    return found


class Wang:
    """The rows, each made from what the rows before left in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings
        torch.set_num_threads(1)  # nets of this size gain nothing by more

    @cached_property
    def data(self) -> tuple[Images, Images]:
        folder = self.run.data if self.run.data is not None else data_folder(None)
        train_images, test_images = mnist_rows.load(folder)
        return train_images.some(self.settings.train_images), test_images.some(self.settings.test_images)

    @property
    def example_inputs(self) -> Tensor:
        """Four images of noise: what the nets are traced and timed with needs no data set."""
        return torch.rand(28, 4, 28, generator=torch.Generator().manual_seed(0))

    def model(self, name: Name) -> RowClassifier:
        torch.manual_seed(self.run.seed)
        return RowClassifier(cast(Cell, name.cell), 28, self.settings.hidden, name.layers)

    def file(self, name: Name) -> Path:
        return self.run.folder / f"{name}.safetensors"

    def load(self, name: Name) -> nn.Module:
        return load(self.model(name), self.file(name)).eval()

    def results(self) -> dict[str, Result]:
        return {str(n): self.run.row(str(n), lambda n=n: self.make(n), paper=paper(n)) for n in names(self.settings)}

    def make(self, name: Name) -> Mapping[str, Any]:
        if name.percent:
            return self.pruned(name)
        return self.longer(name) if name.variant == "longer" else self.dense(name)

    def _train(self, model: nn.Module, training: Training, folder: str, prune: Any = None) -> float:
        """Train `model`; the accuracy afterwards."""
        images, test_images = self.data
        objective = ImageClassification(images, self.settings.batch, self.run.seed)
        seed, place = self.run.seed, self.run.folder / folder
        train(model, objective, training, name=folder, seed=seed, sparsify=prune, folder=place)
        return image_accuracy(model.eval(), test_images)

    def dense(self, name: Name) -> Mapping[str, Any]:
        model = self.model(name)
        accuracy = self._train(model, self.settings.training(name.cell), str(name))
        save(model, self.file(name))
        return {"test_accuracy": accuracy, **sizes(model)}

    def longer(self, name: Name) -> Mapping[str, Any]:
        """The dense net trained on for as long as the pruned ones are retrained, at the rate that suits it."""
        model = self.load(name.dense)
        return {"test_accuracy": self._train(model, self.settings.training_on(name.cell), str(name)), **sizes(model)}

    def pruned(self, name: Name) -> Mapping[str, Any]:
        """Prune the dense net once, measure, retrain what is left, measure again."""
        model = self.load(name.dense)
        prune(model, name)
        before, shares = image_accuracy(model, self.data[1]), kept(model)
        after = self._train(model, self.settings.retraining(name.cell), str(name), lambda m: prune(m, name))
        save(model, self.file(name))
        found = {"before": before, "test_accuracy": after, **sizes(model)}
        return {**found, **{f"kept_{block}": share for block, share in shares.items()}}


def prune(model: nn.Module, name: Name) -> Prune:
    """Prune `model` as `name` says, now; the sparsifier, once attached, holds the masks from the first step on."""
    scheme, part = name.variant.split("-")
    scope, score = SCHEMES[scheme]
    sparsifier = Prune(model, None, name.percent / 100, score=score(), scope=scope, include=PARTS[part])
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


def paper(name: Name) -> dict[str, float]:
    """The author's figures for a row: his dense nets, and his one-layer nets with all weights pruned."""
    if not name.percent:
        if name.variant == "longer":
            return {}
        return {"test_accuracy": PAPER_DENSE[name.cell, name.layers]} if (name.cell, name.layers) in PAPER_DENSE else {}
    scheme, part = name.variant.split("-")
    known = PAPER_AFTER.get((name.cell, scheme), {}) if (part, name.layers) == ("all", 1) else {}
    return {"test_accuracy": known[name.percent]} if name.percent in known else {}
