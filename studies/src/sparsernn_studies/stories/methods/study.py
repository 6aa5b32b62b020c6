"""Which method when: every way to make a net small, on four tasks, at equal shares of the recurrent weights.

Each net is trained densely once. Ways that make a trained net small have some further steps, at a rate of their own;
ways that begin from chance have as many steps as both together. *Longer* is the dense net with the further steps.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console
from torch import nn

import sparsernn as srn
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.structure.cells import recurrent_layers

from ...checkpoint import read
from ...counting import multiply_adds, recurrent_weights
from ...loop import History
from ...results import Result, sizes
from ...study import Judge, Row, Study
from ...tables import Column, figure, file_size
from ...train import Later, Objective, Training
from ..folding.nets import Characters, Narma, Task
from .claims import claims_of
from .settings import SMOKE, NetName, Settings
from .tasks import Digits, Reviews
from .ways import WAYS, Given, Level, Way, begun

BATCHES = 4  # with labels, for ways that ask for gradients before the training
TIMED = 256  # steps of the sequence that times are taken on, at least


@dataclass(frozen=True)
class Made(Row):
    """The net `net` with `left` of its `level` by `way`; `strength` where that decides what is left."""

    net: NetName = "lstm"
    way: str = "dense"
    level: Level = ""
    left: float = 1.0
    strength: float = 0.0


def row_name(net: str, way: str, level: str = "", size: float | None = None) -> str:
    """What a row is called in results; `size`: percent that is left, or the strength."""
    return "-".join([net, way, *([level] if level else []), *([] if size is None else [f"{size:g}"])])


class Methods(Study[Settings, Made]):
    name = "methods"
    summary = "Every way to make a net small, on four tasks, at equal sizes: quality, bytes, time, training."
    title = "Which method when"
    caption = "Loss: bits per character, squared error in shares of the variance, share of errors. Step: this CPU, one "
    caption += "thread, batch 1, on sparsernn's kernels, against the dense net there. Held: what training keeps."
    # A file has the weights as they are or packed for the kernels, whichever takes fewer bytes.
    scales: ClassVar = {
        "smoke": SMOKE,
        "cpu": Settings(),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "some two hours a seed"}
    columns = (
        figure("test loss", "test_loss", "{:.4f}"),
        figure("share", "share", "{:.3f}"),
        Column("file", lambda m: file_size(m["file_bytes"])),
        figure("step", "us_step", "{:.1f} µs"),
        figure("", "speedup_step", "{:.2f}x"),
        figure("training", "cpu_seconds", "{:.0f} s"),
        Column("held", lambda m: file_size(m["held_bytes"])),
    )
    judge = Judge("test_loss", more=False, rows="*-prune-*")
    claims: ClassVar = claims_of(row_name, scales["cpu"])
    timing = "us_step"
    threads = 1

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Made]:
        found = []
        for net in settings.nets:
            found += [Made(row_name(net, way), net, way) for way in ("baseline", "dense", "longer")]
            for way in settings.ways:
                kind = WAYS[way]
                for level in kind.levels:
                    if level.startswith("int"):
                        found.append(Made(row_name(net, way, level), net, way, level))
                    elif kind.by_strength:
                        found += [Made(row_name(net, way, level, s), net, way, level, 1, s) for s in settings.strengths]
                    else:
                        found += [
                            Made(row_name(net, way, level, 100 * left), net, way, level, left) for left in settings.left
                        ]
        return found

    @property
    def saved(self) -> list[Made]:
        return [row for row in self.rows if row.net == self.shown.net and row.way in ("dense", "prune")]

    @property
    def shown(self) -> Made:
        return next(row for row in self.rows if row.way == "prune")

    @property
    def timed_rows(self) -> list[Made]:
        return [row for row in self.rows if row.way != "baseline"]

    def label(self, name: str) -> str:
        row = self.named(name)
        way = WAYS[row.way].said if row.way in WAYS else row.way
        size = f" {row.left:.0%}" if row.left < 1 else f" {row.strength:g}" if row.strength else ""
        return f"{row.net}: {way}{f', {row.level}{size}' if row.level else ''}"

    @cached_property
    def tasks(self) -> dict[NetName, Task]:
        s, seed, data = self.settings, self.run.seed, self.run.data
        return {
            "lstm": Characters("lstm", s.embedding, s.batch, s.length, s.symbols),
            "series": Narma(s.batch, s.length, seed, s.series_steps),
            "digits": Digits(data, self.run.folder / "features.json", s.variants, s.batch * 2, seed, s.made),
            "reviews": Reviews(data, s.vocabulary, 2 * s.length, s.embedding, s.batch * 2, seed, s.texts),
        }

    @cached_property
    def example_inputs(self) -> Any:
        return self.tasks[self.shown.net].example

    def of_width(self, net: NetName, hidden: int | None = None) -> nn.Module:
        torch.manual_seed(self.run.seed)
        return self.tasks[net].model(hidden or self.settings.hidden)

    def model(self, row: Made) -> nn.Module:
        if row.way in WAYS and WAYS[row.way].begin == "smaller":
            return self.of_width(row.net, self.width(row))
        return self.of_width(row.net)

    def width(self, row: Made) -> int:
        """Units a layer of the dense net that has nearest to the share of recurrent weights."""
        with torch.device("meta"):
            counts = {h: recurrent_weights(self.of_width(row.net, h)) for h in range(1, self.settings.hidden + 1)}
        wanted = row.left * counts[self.settings.hidden]
        return min(counts, key=lambda hidden: abs(counts[hidden] - wanted))

    def dense(self, net: NetName) -> nn.Module:
        return self.load(self.named(row_name(net, "dense")))

    def matrices(self, net: NetName) -> dict[str, torch.Tensor]:
        """The recurrent matrices of the dense net."""
        dense = self.dense(net)
        names = [name for layer in recurrent_layers(dense) for name in layer.matrices()]
        return {name: dense.get_parameter(name).detach() for name in names}

    def early(self, net: NetName) -> Path:
        """Where the dense training leaves its weights of the step that is rewound to."""
        return self.run.folder / row_name(net, "dense") / "early.safetensors"

    def way(self, row: Made) -> Way | None:
        return WAYS.get(row.way)

    def from_chance(self, row: Made) -> bool:
        way = self.way(row)
        return row.way == "dense" or (way is not None and way.begin in ("chance", "smaller"))

    def start(self, row: Made) -> nn.Module:
        if self.from_chance(row):
            return self.model(row)
        way, task = self.way(row), self.tasks[row.net]
        if way is not None and way.begin == "early":
            model = self.model(row)
            model.load_state_dict(read(self.early(row.net))["model"])
            return model
        dense = self.dense(row.net)
        return dense if way is None else begun(row.way, row.level, row.left, dense, list(task.seen()), task.example)

    def first(self, row: Made) -> int:
        """The step of the dense training after which that of `row` begins."""
        if self.from_chance(row):
            return 0
        s, way = self.settings, self.way(row)
        return s.times(row.net) * (s.early if way is not None and way.begin == "early" else s.steps)

    def objective(self, row: Made) -> Objective:
        return Later(self.tasks[row.net].objective(), self.first(row))

    def training(self, row: Made) -> Training:
        s = self.settings
        times = s.times(row.net)
        steps, total = times * s.steps, times * (s.steps + s.further)
        if row.way == "dense":
            return Training(steps, s.learning_rate, s.warm_up)
        if self.from_chance(row):
            if row.way == "direct-longer":
                total = round(total * multiply_adds(self.of_width(row.net)) / multiply_adds(self.model(row)))
            return Training(total, s.learning_rate, s.warm_up)
        if row.way == "rewind":  # all that came after the early step, anew
            return Training(total - self.first(row), s.learning_rate, s.warm_up)
        return Training(times * s.further, s.further_rate, s.further_warm_up)

    def train(self, name: str, model: nn.Module, *others: Any, **more: Any) -> History:
        row = self.named(name)
        if row.way == "dense":
            early = self.settings.times(row.net) * self.settings.early
            more["milestones"] = {early: self.early(row.net)}
        return super().train(name, model, *others, **more)

    def sparsifier(self, row: Made) -> Callable[[nn.Module], Sparsifier] | None:
        way, task, objective = self.way(row), self.tasks[row.net], self.objective(row)
        if way is None or way.attach is None or (way.begin == "folded" and row.level == "unit"):
            return None
        attach = way.attach
        trained = self.matrices(row.net) if way.begin in ("early", "folded") else {}

        def loss(model: nn.Module, batch: Any) -> torch.Tensor:
            return objective.loss(model, batch, None)[0]

        return lambda model: attach(
            Given(
                model,
                task.example,
                row.level,
                row.left,
                self.training(row).steps,
                [objective.batch(step) for step in range(BATCHES)],
                loss,
                list(task.seen()),
                trained,
                row.strength,
            )
        )

    def make(self, row: Made) -> Mapping[str, Any]:
        if row.way == "baseline":
            return {"test_loss": self.tasks[row.net].baseline()}
        task = self.tasks[row.net]
        task.objective().batch(0)  # data are read before the clock begins
        began = time.process_time()
        model = self.start(row)
        history = self.train(row.name, model, self.objective(row), self.training(row), self.sparsifier(row))
        spent = max(history.cpu_seconds, time.process_time() - began)  # folding and scores before the training, too
        small = model
        if row.level == "unit" and (way := self.way(row)) is not None and way.begin == "dense":
            with warnings.catch_warnings():  # where a penalty was too weak, nothing has gone
                warnings.simplefilter("ignore", UserWarning)
                small = srn.compact(model, task.example)
        srn.save(small, self.file(row))
        held = history.held_bytes
        if not self.from_chance(row):
            dense = self.result(self.named(row_name(row.net, "dense"))).measured
            spent, held = spent + dense["cpu_seconds"], max(held, dense["held_bytes"])
        took = {"cpu_seconds": round(spent, 1), "held_bytes": held}
        return {**self.measure(row, small), **took}

    def measure(self, row: Made, model: nn.Module) -> Mapping[str, Any]:
        task, whole = self.tasks[row.net], recurrent_weights(self.of_width(row.net))
        dense = self.named(row_name(row.net, "dense"))
        with torch.no_grad():
            loss = task.loss(model)
        others = {"embedding.weight", "head.weight"}
        matrices = [p for name, p in model.named_parameters() if p.dim() > 1 and name not in others]
        with tempfile.TemporaryDirectory() as folder:  # as it is, or packed for the kernels: the smaller file
            files = [Path(folder) / name for name in ("whole.safetensors", "packed.safetensors")]
            for form, file in zip((model, self.fast(row, model)), files):
                srn.save(form, file)
            size = min(file.stat().st_size for file in files)
        return {
            "test_loss": loss,
            "share": sum(int(p.count_nonzero()) for p in matrices) / whole,
            "file_bytes": size,
            "steps": self.training(row).steps + (0 if self.from_chance(row) else self.training(dense).steps),
            **sizes(model),
        }

    def fast(self, row: Made, model: nn.Module) -> nn.Module:
        """The net on the kernels, its weights in the precision of the row."""
        with warnings.catch_warnings():  # a processor that has no int8 products says so in `accelerate`
            warnings.simplefilter("ignore", RuntimeWarning)
            return srn.accelerate(model.eval(), "int8" if row.level in ("int8", "int4") else "float32")

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the time of a step, each task's nets on one sequence in turn."""
        found = dict(rows)
        for net in self.settings.nets:
            names = [row.name for row in self.timed_rows if row.net == net and row.name in rows]
            if not names:
                continue
            example = self.tasks[net].example[:, :1]
            example = torch.cat([example] * -(-TIMED // len(example)))  # long enough that a call counts for little
            forms = {name: self.fast(self.named(name), self.load(self.named(name))) for name in names}
            times = srn.benchmark(forms, example, console=Console(quiet=True), clock=time.thread_time)
            for name, timed in zip(names, times.rows):
                step = 1000 * timed.milliseconds / len(example)
                found[name] = self.run.add(found[name], {"us_step": step, "speedup_step": timed.ratio})
        return found
