"""Fold: five trained nets made small, without training and with a little of it, by four ways at the same sizes.

Each net is trained densely once. Then, for each share of its recurrent weights: *fold* and *magnitude* (the units
whose readers are smallest, as large a share of each layer; nothing compensated) take units out at once, and the small
net trains on; *ramp* (`Shrink` by `TopK`) and *folding* (`Shrink` by `Fold`) take them out in the course of as many
steps; *prune* is what `Prune` does at once. *Direct* is a dense net of the folded one's size, trained from the start
for the multiply-adds of the dense training and the longest further training together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import nn

import sparsernn as srn
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.structure.cells import recurrent_layers

from ...counting import multiply_adds, recurrent_weights
from ...results import sizes
from ...settings import Count, Part, Positive, Some, Whole, settings
from ...study import Judge, Row, Study
from ...tables import figure
from ...train import Objective, Training
from .claims import claims_of, row_name, verdict
from .nets import NETS, Characters, Kind, Narma, NetName, Tags, Task

GRADUAL = ("ramp", "folding")  # the net keeps its size until the end of the training
Way = Literal["dense", "baseline", "fold", "magnitude", "prune", "ramp", "folding", "direct"]


@settings
class Settings:
    """`shares`: of the recurrent weights that are left; `further`: steps of training beside none; `hidden`: units of a
    layer of the character nets, the others have half of them. `learning_rate` is the first training's, `further_rate`
    that of what follows. `sentences` and `symbols`: of the data to train on, 0 for all.
    """

    nets: Some[NetName] = tuple(NETS)
    shares: Some[Part] = (0.75, 0.5, 0.3)
    further: Some[Count] = (250, 1000)
    steps: Count = 2000
    hidden: Count = 96
    embedding: Count = 48
    batch: Count = 16
    length: Count = 48
    learning_rate: Positive = 3e-3
    warm_up: Whole = 100
    further_rate: Positive = 1e-3
    further_warm_up: Whole = 20
    series_steps: Count = 20_000
    symbols: Whole = 0
    sentences: Whole = 0


@dataclass(frozen=True)
class Small(Row):
    """The net `net` with `share` of its recurrent weights by `way`, after `steps` further ones."""

    net: NetName = "lstm"
    way: Way = "dense"
    share: float = 1.0
    steps: int = 0


class Fold(Study[Settings, Small]):
    name = "fold"
    summary = "Five trained nets folded: without training and with some, beside magnitude, a ramp and dense nets."
    title = "Folded"
    caption = "Loss: bits per character, share of wrong tags, squared error in shares of the variance. Compute: "
    caption += "multiply-adds of all training, dense training first, in shares of the dense training's."
    scales: ClassVar = {
        "smoke": Settings(
            nets=("gru", "series"),
            shares=(0.5,),
            further=(3,),
            steps=12,
            hidden=24,
            embedding=8,
            batch=4,
            length=16,
            warm_up=2,
            further_warm_up=1,
            series_steps=2000,
            symbols=20_000,
            sentences=80,
        ),
        "cpu": Settings(),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 20 minutes a seed"}
    columns = (
        figure("test loss", "test_loss", "{:.4f}"),
        figure("share", "share", "{:.3f}"),
        figure("units", "units"),
        figure("steps", "steps", "{:,}"),
        figure("compute", "compute", "{:.2f}"),
        figure("change of outputs", "change", "{:.3f}"),
    )
    judge = Judge("test_loss", more=False, rows="*-fold-*")
    claims: ClassVar = claims_of(tuple(NETS), scales["cpu"].shares, scales["cpu"].further)
    threads = 1

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Small]:
        longest = max(settings.further)
        found = []
        for net in settings.nets:
            found += [Small(row_name(net, way), net, way) for way in ("baseline", "dense")]
            for share in settings.shares:
                ways: list[tuple[Way, int]] = [
                    ("prune", 0),
                    *((way, n) for n in (0, *settings.further) for way in ("magnitude", "fold")),
                    *((way, n) for n in settings.further for way in GRADUAL),
                    ("direct", longest),
                ]
                found += [Small(row_name(net, way, share, n), net, way, share, n) for way, n in ways]
        return found

    @property
    def saved(self) -> list[Small]:
        return [row for row in self.rows if row.net == self.shown.net and row.way not in ("baseline", "prune")]

    @property
    def shown(self) -> Small:
        return next(row for row in self.rows if row.way == "fold" and row.steps)

    def label(self, name: str) -> str:
        row = self.named(name)
        said = f"{row.net}: {row.way}"
        if row.share < 1:
            said += f" {row.share:.0%}"
        return f"{said}, {row.steps} steps" if row.steps and row.way != "direct" else said

    @cached_property
    def tasks(self) -> dict[NetName, Task]:
        s, seed = self.settings, self.run.seed
        others: dict[NetName, Task] = {
            "tagger": Tags(self.run.data, s.embedding, s.batch * 2, seed, s.sentences),
            "series": Narma(s.batch, s.length, seed, s.series_steps),
        }
        texts: tuple[Kind, ...] = ("lstm", "stack", "gru")
        return {**{kind: Characters(kind, s.embedding, s.batch, s.length, s.symbols) for kind in texts}, **others}

    @cached_property
    def example_inputs(self) -> Any:
        return self.tasks[self.shown.net].example

    def of_width(self, net: NetName, hidden: int | None = None) -> nn.Module:
        torch.manual_seed(self.run.seed)
        half = 1 if net in ("lstm", "stack", "gru") else 2
        return self.tasks[net].model(hidden or self.settings.hidden // half)

    def model(self, row: Small) -> nn.Module:
        if row.way != "direct":
            return self.of_width(row.net)
        folded = self.result(self.named(row_name(row.net, "fold", row.share, 0))).measured
        return self.of_width(row.net, self.width(row.net, folded["recurrent_weights"]))

    def width(self, net: NetName, wanted: float) -> int:
        """Units a layer of the dense net that has nearest to so many recurrent weights."""
        with torch.device("meta"):
            counts = {h: recurrent_weights(self.of_width(net, h)) for h in range(1, self.settings.hidden + 1)}
        return min(counts, key=lambda hidden: abs(counts[hidden] - wanted))

    def start(self, row: Small) -> nn.Module:
        """The dense net, or what `way` makes of it before any further step."""
        return self.begun(row)[0]

    def begun(self, row: Small) -> tuple[nn.Module, dict[str, float]]:
        """What the further training of `row` begins with, and how much the outputs changed where a way says it."""
        if row.way in ("dense", "direct"):
            return self.model(row), {}
        dense, task = self.load(self.named(row_name(row.net, "dense"))), self.tasks[row.net]
        if row.way == "fold":
            folded = srn.fold(dense, task.seen(), to=row.share)
            small = srn.compact(folded.model, task.example)
            return small, {"change": folded.measured, "predicted_change": folded.predicted}
        if row.way in ("magnitude", "prune"):
            example = next(task.seen())
            left = self.width(row.net, row.share * recurrent_weights(dense)) / recurrent_layers(dense)[0].hidden_size
            options: dict[str, Any] = {"score": srn.Magnitude(), "compensate": False} if row.way == "magnitude" else {}
            srn.Prune(dense, example, 1 - left, level="unit", scope="layer", **options).finish()
            return srn.compact(dense, example), {}
        return dense, {}

    def objective(self, row: Small) -> Objective:
        return self.tasks[row.net].objective()

    def training(self, row: Small) -> Training:
        s = self.settings
        if row.way == "dense":
            return Training(s.steps, s.learning_rate, s.warm_up)
        if row.way == "direct":
            more = self.compute(row.net) / multiply_adds(self.model(row))
            return Training(round(s.steps * more) + row.steps, s.learning_rate, s.warm_up)
        return Training(row.steps, s.further_rate, s.further_warm_up)

    def sparsifier(self, row: Small) -> Callable[[nn.Module], Sparsifier] | None:
        if row.way not in GRADUAL:
            return None
        task = self.tasks[row.net]
        path = srn.TopK() if row.way == "ramp" else srn.Fold(list(task.seen()))
        return lambda model: srn.Shrink(model, task.example, to=row.share, steps=row.steps, path=path)

    def make(self, row: Small) -> Mapping[str, Any]:
        if row.way == "baseline":
            return {"test_loss": self.tasks[row.net].baseline()}
        if row.steps or row.way == "dense":
            made = super().make(row)
            return {**made, **(self.begun(row)[1] if row.way == "fold" else {})}
        model, found = self.begun(row)
        model.eval()
        srn.save(model, self.file(row))
        return {**self.measure(row, model), **found}

    def measure(self, row: Small, model: nn.Module) -> Mapping[str, Any]:
        task, dense = self.tasks[row.net], self.of_width(row.net)
        small = srn.compact(model, task.example) if row.way in GRADUAL else model
        whole = self.compute(row.net) * self.settings.steps
        spent = row.steps * (self.compute(row.net) if row.way in GRADUAL else multiply_adds(small))
        if row.way == "direct":
            steps = self.training(row).steps
            spent = steps * multiply_adds(small) - whole
        else:
            steps = self.settings.steps + row.steps
        with torch.no_grad():
            loss = task.loss(small)
        return {
            "test_loss": loss,
            "share": recurrent_weights(small) / recurrent_weights(dense),
            "recurrent_weights": recurrent_weights(small),
            "units": [layer.hidden_size for layer in recurrent_layers(small)],
            "steps": steps,
            "compute": 1 + spent / whole,
            **sizes(small),
        }

    def compute(self, net: NetName) -> int:
        """Multiply-adds of a time step of the dense net."""
        return multiply_adds(self.of_width(net))

    def verdict(self, measured: Mapping[str, Mapping[str, Any]]) -> str:
        return verdict(measured, self.settings.nets, self.settings.shares)

    def forms(self) -> Mapping[str, nn.Module]:
        dense = self.named(row_name(self.shown.net, "dense"))
        return {row.name: self.load(row) for row in (dense, self.shown)}
