"""The rows of the tables after Lobacheva et al. (arXiv 1911.05585): a dense net, and what Bayes and pruning leave."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from sparsernn.learn.bayes import Bayes
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.runtime.layers import accelerate
from sparsernn.structure.cells import recurrent_layers
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact
from sparsernn.timing import benchmark

from .. import checkpoint
from ..results import Result, sizes
from ..runs import Run
from ..train import train
from .figures import structure_figures
from .settings import LEVELS, Settings
from .tasks import Task
from .units import Survivors

Sparsify = Callable[[nn.Module], Sparsifier]


class Lobacheva:
    """The rows of one net, each made from what the rows before left in the run's folder; `prefix` is before their
    names."""

    def __init__(self, run: Run, task: Task, prefix: str = "") -> None:
        self.run, self.task, self.prefix = run, task, prefix
        self.settings: Settings = run.settings
        torch.set_num_threads(1)  # steps of these sizes gain little by more
        gpu = self.settings.device == "any" and torch.cuda.is_available()
        self.device = torch.device("cuda" if gpu else "cpu")

    @property
    def rows(self) -> list[str]:
        return [f"{self.prefix}{row}" for row in ("dense", *self.settings.rows)]

    def results(self, paper: Mapping[str, Mapping[str, Any]]) -> dict[str, Result]:
        return {row: self.run.row(row, lambda row=row: self.make(row), paper=paper.get(row)) for row in self.rows}

    def make(self, row: str) -> Mapping[str, Any]:
        kind = row.removeprefix(self.prefix)
        return self.dense(row) if kind == "dense" else self.sparse(row, kind)

    def file(self, row: str) -> Path:
        return self.run.folder / f"{row}.safetensors"

    def load(self, row: str) -> nn.Module:
        """The net of a row that is done, without dead units, inputs and words; constant gates are rows of zeros."""
        return load(self.task.model(), self.file(row)).eval()

    def train(
        self,
        model: nn.Module,
        epochs: float,
        rate: float,
        name: str,
        sparsify: Sparsify | None = None,
        milestones: Mapping[int, Path] | None = None,
    ) -> Mapping[str, list[float]]:
        """Train `model`, which is then on the CPU; the course."""
        training = self.settings.training(max(1, round(epochs * self.task.steps_an_epoch)), rate)
        folder = self.run.folder / name
        train(
            model,
            self.task.objective,
            training,
            name=name,
            seed=self.run.seed,
            folder=folder,
            sparsify=sparsify,
            milestones=milestones,
        )
        model.cpu()
        return checkpoint.read(folder / "checkpoint.safetensors")["history"]

    def dense(self, row: str) -> Mapping[str, Any]:
        """Trained with early stopping: the net after the epoch with the best figure on what is kept to watch."""
        s, folder = self.settings, self.run.folder / row
        model = self.task.model()
        self.task.warm_start(model, self.run.folder)
        ends = {n * self.task.steps_an_epoch: folder / f"epoch{n}.safetensors" for n in range(1, s.dense_epochs + 1)}
        self.train(model, s.dense_epochs, s.learning_rate, row, milestones=ends)
        watched: list[float] = []
        best: dict[str, Tensor] = {}
        for path in ends.values():
            state = checkpoint.read(path)["model"]
            model.load_state_dict(state)
            watched.append(self.task.watched(model.to(self.device)))
            best = state if watched[-1] == min(watched) else best
        model.cpu().load_state_dict(best)
        save(model.eval(), self.file(row))
        found = self.measured(model, Survivors.of(model, self.task.example_inputs))
        for path in ends.values():
            path.unlink()
        return {**found, "best_epoch": watched.index(min(watched)) + 1}

    def sparse(self, row: str, kind: str) -> Mapping[str, Any]:
        """The dense net, sparsified in rounds; compression after each share of an epoch."""
        s = self.settings
        whole = sizes(self.task.model())["weights"]
        model, before = self.load(f"{self.prefix}dense").train(), 0.0
        survivors = Survivors.of(model, self.task.example_inputs)
        epochs: list[float] = []
        course: list[float] = []
        losses: list[float] = []
        for n, length in enumerate(s.rounds):
            weights = sizes(model)["weights"]
            history = self.train(model, length, s.sparse_rate, f"{row}-{n + 1}", self.sparsifier(kind, n))
            steps = history["step"][-1]
            epochs += [round(before + length * step / steps, 3) for step in history["step"]]
            course += [round(whole / max(1.0, share * weights), 2) for share in history["density"]]
            losses += [round(loss, 4) for loss in history["loss"]]
            before += length
            small = self.compact(model).train()
            survivors, model = survivors.after(model, small), small
        save(model.eval(), self.file(row))
        found = self.measured(model, survivors)
        return {**found, "epochs": epochs, "compression_by_epoch": course, "loss_by_epoch": losses}

    def compact(self, model: nn.Module, *, gates: bool = False) -> Any:
        with warnings.catch_warnings():  # dense nets and single weights may leave no unit without readers
            warnings.simplefilter("ignore", UserWarning)
            return compact(model, self.task.example_inputs, gates=gates, words=True)

    def sparsifier(self, kind: str, number: int) -> Sparsify:
        s, levels = self.settings, LEVELS[kind]

        def inputs(model: nn.Module) -> Tensor:
            return self.task.example_inputs.to(next(model.parameters()).device)

        if kind.startswith("prune"):
            return lambda model: GroupLasso(
                model, inputs(model), strength=s.strength(kind), level=levels, include="all"
            )
        return lambda model: Bayes(
            model,
            inputs(model),
            train_size=self.task.train_size,
            level=levels,
            include="all",
            sigma_rate=s.sigma_rates[number],
            mean_rate=s.mean_rates[number],
        )

    def measured(self, small: nn.Module, survivors: Survivors) -> dict[str, Any]:
        """Quality and size of a net without dead units; words, inputs, units and gates that are left in it."""
        whole = sizes(self.task.model())["weights"]
        quality = self.task.quality(small.to(self.device))
        small.cpu()
        return {
            **quality,
            **sizes(small),
            "compression": round(whole / max(1, sizes(small)["nonzero"]), 1),
            **self.task.used(small),
            **structure_figures(small, self.task.example_inputs, survivors, self.settings.lags),
        }

    # Times

    @cached_property
    def timed_rows(self) -> list[str]:
        """Rows whose gates are learnt: what folding them saves is measured."""
        return [f"{self.prefix}{row}" for row in self.settings.rows if "gate" in LEVELS[row]]

    def forms(self, row: str) -> dict[str, nn.Module]:
        """The net without dead units, and without constant gates as well, in torch and in our runtime.

        The runtime finds constant gates by itself; "all_fast" is the net in which it can't, to see what that saves.
        """
        units = self.load(row)
        gates = self.compact(units, gates=True)
        return {
            "units": units,
            "gates": gates,
            "all_fast": accelerate(_all_gates(units)),
            "units_fast": accelerate(units),
            "gates_fast": accelerate(gates),
        }

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows whose gates are learnt with times added: one thread's own, all forms side by side, 32 sequences.

        `gain_FORM`: time of the net without dead units, in torch, over that of FORM, with its `spread_FORM`;
        `gates_gain`: time of our kernels with all gates over that without the constant ones.
        """
        x_TB = self.task.example_inputs.repeat_interleave(8, 1)  # of four
        torch.set_num_threads(1)
        found = dict(rows)
        for row in (row for row in self.timed_rows if row in rows):
            forms = {**self.forms(row), "dense": self.load(f"{self.prefix}dense")}
            table = benchmark(
                forms,
                x_TB,
                repeats=self.settings.bench_rounds,
                console=Console(quiet=True),
                clock=time.thread_time,
            )
            figures: dict[str, Any] = {f"ms_{each.name}": each.milliseconds for each in table.rows}
            for each in table.rows[1:]:
                figures |= {f"gain_{each.name}": each.ratio, f"spread_{each.name}": each.spread}
            figures["gates_gain"] = figures["gain_gates_fast"] / figures["gain_all_fast"]
            figures["max_error"] = max(each.max_error or 0.0 for each in table.rows[1:-1])
            found[row] = self.run.add(rows[row], figures)
        return found


def _all_gates(model: nn.Module) -> nn.Module:
    """The same function with numbers too small to count in rows of zeros, so that no gate looks constant."""
    full = copy.deepcopy(model)
    for layer in recurrent_layers(full):
        for name in layer.matrices():
            weight = full.get_parameter(name).data
            weight[(weight == 0).all(1)] = 1e-30
    return full
