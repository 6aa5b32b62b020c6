"""What the studies after Lobacheva et al. (arXiv 1911.05585) share: a dense net, and what Bayes and pruning leave."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console
from torch import Tensor, nn

from sparsernn.learn.bayes import Bayes
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.runtime.layers import accelerate
from sparsernn.structure.cells import recurrent_layers
from sparsernn.surgery.checkpoint import save
from sparsernn.surgery.compact import compact
from sparsernn.timing import benchmark

from .. import checkpoint
from ..results import Result, sizes
from ..runs import Run
from ..study import Row, Study
from ..tables import figure
from .figures import structure_figures
from .settings import BASELINES, LABELS, LEVELS, Settings
from .similarity import gate_norms
from .tasks import Task
from .units import Survivors

COLUMNS = (
    figure("compression", "compression", "{:,.1f}x"),
    figure("words", "words", "{:,}"),
    figure("inputs", "inputs"),
    figure("units", "units"),
    figure("gates", "gates"),
    figure("not zero", "nonzero", "{:,}"),
    figure("units out, ms", "ms_units", "{:.2f}"),
    figure("gates out too, ours, ms", "ms_gates_fast", "{:.2f}"),
    figure("", "gain_gates_fast", "{:.1f}x"),
)
ACCURACY = (figure("test accuracy", "test_accuracy", "{:.4f}"),)
BITS = (figure("valid bits", "valid_bpc", "{:.3f}"), figure("test bits", "test_bpc", "{:.3f}"))
PERPLEXITY = (figure("valid", "valid_perplexity", "{:.1f}"), figure("test", "test_perplexity", "{:.1f}"))


def labels_of(nets: Mapping[str, str]) -> dict[str, str]:
    """What rows are called; `nets`: the prefix of a net's rows to words before their labels."""
    return {f"{prefix}{row}": f"{words}{label}" for prefix, words in nets.items() for row, label in LABELS.items()} | (
        BASELINES
    )


@dataclass(frozen=True)
class Net(Row):
    """`kind`: dense, or what is learnt to go; "" for what needs no net. `net`: the prefix of a net's rows."""

    kind: str = ""
    net: str = ""


class Gates(Study[Settings, Net]):
    """`baselines`: rows of what needs no net. A subclass says what each net learns: `tasks`, by the prefix of its
    rows."""

    caption = (
        "Times: 32 sequences, one thread; of a net without dead units in torch, and without constant gates as well on "
        "sparsernn's kernels."
    )
    labels = labels_of({"": ""})
    baselines: ClassVar[tuple[str, ...]]
    timing = "gates_gain"
    hidden = ("layer*", "epochs", "*_by_epoch")
    threads = 1  # steps of these sizes gain little by more

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        gpu = self.settings.device == "any" and torch.cuda.is_available()
        self.device = torch.device("cuda" if gpu else "cpu")

    @classmethod
    def nets(cls, settings: Any) -> tuple[str, ...]:
        """The prefixes of the nets' rows."""
        return ("",)

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        kinds = ("dense", "dense-longer", *settings.rows)
        return [*map(Net, cls.baselines), *(Net(f"{n}{kind}", kind, n) for n in cls.nets(settings) for kind in kinds)]

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        raise NotImplementedError

    @cached_property
    def example_inputs(self) -> Tensor:
        return self.tasks[""].example_inputs

    @property
    def saved(self) -> list[Net]:
        return [row for row in self.rows if row.kind]

    @property
    def shown(self) -> Net:
        """W+G+N by Bayes, else the first sparse row."""
        kinds = self.settings.rows
        return self.named("bayes-wgn" if "bayes-wgn" in kinds else kinds[0])

    @property
    def timed_rows(self) -> list[Net]:
        """Rows whose gates are learnt: what folding them saves is measured."""
        return [row for row in self.rows if "gate" in LEVELS.get(row.kind, ())]

    def model(self, row: Net) -> nn.Module:
        return self.tasks[row.net].model()

    def dense(self, row: Net) -> nn.Module:
        """The dense net that the row begins with."""
        return self.load(self.named(f"{row.net}dense"))

    def make(self, row: Net) -> Mapping[str, Any]:
        if not row.kind:
            return self.tasks[""].baselines()[row.name]()
        return self.early_stopped(row) if row.kind.startswith("dense") else self.sparse(row)

    def learn(
        self,
        row: Net,
        name: str,
        model: nn.Module,
        epochs: float,
        rate: float,
        sparsify: Callable[[nn.Module], Sparsifier] | None = None,
        milestones: Mapping[int, Path] | None = None,
    ) -> None:
        """Train `model` for so many epochs; it is then on the CPU."""
        task = self.tasks[row.net]
        training = self.settings.training(max(1, round(epochs * task.steps_an_epoch)), rate)
        self.train(name, model, task.objective, training, sparsify, milestones=milestones)
        model.cpu()

    def early_stopped(self, row: Net) -> Mapping[str, Any]:
        """The dense net after the epoch with the best figure on what is kept to watch; or that net, trained on for as
        many epochs as the sparse ones have and at their rate, stopped likewise."""
        s, folder, task = self.settings, self.run.folder / row.name, self.tasks[row.net]
        if row.kind == "dense":
            model, epochs, rate = self.model(row), s.dense_epochs, s.learning_rate
            task.warm_start(model, self.run.folder)
        else:
            model, epochs, rate = self.dense(row), math.ceil(sum(s.rounds)), s.sparse_rate
        ends = {n * task.steps_an_epoch: folder / f"epoch{n}.safetensors" for n in range(1, epochs + 1)}
        self.learn(row, row.name, model, epochs, rate, milestones=ends)
        watched: list[float] = []
        best: dict[str, Tensor] = {}
        for path in ends.values():
            state = checkpoint.read(path)["model"]
            model.load_state_dict(state)
            watched.append(task.watched(model.to(self.device)))
            best = state if watched[-1] == min(watched) else best
        model.cpu().load_state_dict(best)
        save(model.eval(), self.file(row))
        found = self.measured(row, model, Survivors.of(model, task.example_inputs)) | gate_norms(model)
        for path in ends.values():
            path.unlink()
        return {**found, "best_epoch": watched.index(min(watched)) + 1, "of_epochs": epochs}

    def sparse(self, row: Net) -> Mapping[str, Any]:
        """The dense net, sparsified in rounds; compression after each share of an epoch."""
        s, whole = self.settings, sizes(self.model(row))["weights"]
        model, before = self.dense(row).train(), 0.0
        survivors = Survivors.of(model, self.tasks[row.net].example_inputs)
        epochs: list[float] = []
        course: list[float] = []
        losses: list[float] = []
        for n, length in enumerate(s.rounds):
            weights, name = sizes(model)["weights"], f"{row.name}-{n + 1}"
            self.learn(row, name, model, length, s.sparse_rate, self.learner(row, n))
            history = self.course(name) or {}
            epochs += [round(before + length * step / history["step"][-1], 3) for step in history["step"]]
            course += [round(whole / max(1.0, share * weights), 2) for share in history["kept"]]
            losses += [round(loss, 4) for loss in history["loss"]]
            before += length
            small = self.compact(row, model).train()
            survivors, model = survivors.after(model, small), small
        save(model.eval(), self.file(row))
        found = self.measured(row, model, survivors)
        return {**found, "epochs": epochs, "compression_by_epoch": course, "loss_by_epoch": losses}

    def compact(self, row: Net, model: nn.Module, *, gates: bool = False) -> Any:
        with warnings.catch_warnings():  # dense nets and single weights may leave no unit without readers
            warnings.simplefilter("ignore", UserWarning)
            return compact(model, self.tasks[row.net].example_inputs, gates=gates, words=True)

    def learner(self, row: Net, number: int) -> Callable[[nn.Module], Sparsifier]:
        """What learns the sparsity of `row` in the round `number`."""
        s, levels, task = self.settings, LEVELS[row.kind], self.tasks[row.net]

        def learner(model: nn.Module) -> Sparsifier:
            x_TB = task.example_inputs.to(next(model.parameters()).device)
            if row.kind.startswith("prune"):
                return GroupLasso(model, x_TB, strength=s.strength(row.kind), level=levels, include="all")
            return Bayes(
                model,
                x_TB,
                train_size=task.train_size,
                level=levels,
                include="all",
                sigma_rate=s.sigma_rates[number],
                mean_rate=s.mean_rates[number],
            )

        return learner

    def measured(self, row: Net, small: nn.Module, survivors: Survivors) -> dict[str, Any]:
        """Quality and size of a net without dead units; words, inputs, units and gates that are left in it."""
        task, whole = self.tasks[row.net], sizes(self.model(row))["weights"]
        quality = task.quality(small.to(self.device))
        small.cpu()
        return {
            **quality,
            **sizes(small),
            "compression": round(whole / max(1, sizes(small)["nonzero"]), 1),
            **task.used(small),
            **structure_figures(small, task.example_inputs, survivors, self.settings.lags),
        }

    def compared(self, row: Net) -> dict[str, nn.Module]:
        """The net without dead units, and without constant gates as well, in torch and in our runtime.

        The runtime finds constant gates by itself; "all_fast" is the net in which it can't, to see what that saves.
        """
        units = self.load(row)
        gates = self.compact(row, units, gates=True)
        return {
            "units": units,
            "gates": gates,
            "all_fast": accelerate(_all_gates(units)),
            "units_fast": accelerate(units),
            "gates_fast": accelerate(gates),
            "dense": self.dense(row),
        }

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows whose gates are learnt with times added: one thread's own, all forms side by side, 32 sequences.

        `gain_FORM`: time of the net without dead units, in torch, over that of FORM, with its `spread_FORM`;
        `gates_gain`: time of our kernels with all gates over that without the constant ones.
        """
        torch.set_num_threads(1)
        found = dict(rows)
        for row in self.timed_rows:
            table = benchmark(
                self.compared(row),
                self.tasks[row.net].example_inputs.repeat_interleave(8, 1),  # of four
                repeats=self.settings.bench_rounds,
                console=Console(quiet=True),
                clock=time.thread_time,
            )
            figures: dict[str, Any] = {f"ms_{each.name}": each.milliseconds for each in table.rows}
            for each in table.rows[1:]:
                figures |= {f"gain_{each.name}": each.ratio, f"spread_{each.name}": each.spread}
            figures["gates_gain"] = figures["gain_gates_fast"] / figures["gain_all_fast"]
            figures["max_error"] = max(each.max_error or 0.0 for each in table.rows[1:-1])
            found[row.name] = self.run.add(rows[row.name], figures)
        return found

    def sections(self, rows: Mapping[str, Result], found: Any) -> Mapping[str, Any]:
        course = rows[self.shown.name].measured
        kept = [1 / compression for compression in course["compression_by_epoch"]]
        return {
            "gradient_lag": found.gradient_lag(self.settings.lags),
            "history": {"step": course["epochs"], "loss": course["loss_by_epoch"], "kept": kept},
        }


def _all_gates(model: nn.Module) -> nn.Module:
    """The same function with numbers too small to count in rows of zeros, so that no gate looks constant."""
    full = copy.deepcopy(model)
    for layer in recurrent_layers(full):
        for name in layer.matrices():
            weight = full.get_parameter(name).data
            weight[(weight == 0).all(1)] = 1e-30
    return full
