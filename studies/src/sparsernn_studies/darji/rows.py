"""The rows of the study on Reber strings: how each net is trained, pruned, retrained epoch by epoch and judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sparsernn.learn.prune import Prune, Scope
from sparsernn.surgery.checkpoint import load, save

from ..graphs.study import Data, balanced
from ..results import Result, sizes
from ..runs import Run
from ..tasks import reber
from ..tasks.generation import NextLetter, sample, share
from ..tasks.reber_flaws import ALPHABET, generate_flawed
from ..tasks.sequences import accuracy
from ..train import Objective, train
from .paper import paper
from .settings import PARTS, Name, Settings, names
from .stacks import PaddedStackClassifier, StackClassifier, StackGenerator

EDGES = torch.linspace(-1.5, 1.5, 61)  # of the histograms; what lies outside counts in the first or last bin


def switched(task: str, flaw: str) -> bool:
    """Whether the task has this flaw of the original's."""
    return task in (flaw, "all")


def prune(model: nn.Module, part: str, sparsity: float) -> Prune:
    """Prune the part of `model`, now; the sparsifier, once attached, holds the masks from the first step on."""
    include, scope = PARTS[part]
    sparsifier = Prune(model, None, sparsity, scope=cast(Scope, scope), include=include)
    sparsifier.step()
    return sparsifier


def share_below(model: nn.Module, threshold: float) -> float:
    """Share of the recurrent layers' weights whose size is below the threshold."""
    weights = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("recurrent.")]
    return sum(int((w.abs() < threshold).sum()) for w in weights) / sum(w.numel() for w in weights)


def histogram(model: nn.Module) -> dict[str, list[int]]:
    """How many weights that are not zero lie between EDGES, of input-to-hidden and hidden-to-hidden matrices."""
    found = {}
    for kind in ("ih", "hh"):
        weights = torch.cat([p.detach().flatten() for n, p in model.named_parameters() if f"weight_{kind}" in n])
        inside = weights[weights != 0].clamp(float(EDGES[0]), float(EDGES[-1]))
        found[kind] = [int(n) for n in torch.histogram(inside.float(), EDGES).hist]
    return found


class Course:
    """What a net is worth after each epoch of retraining, and the processor seconds that the training took.

    Called with the number of steps done; says whether to stop: the net is good enough, or after `patience` epochs
    still `poor`.
    """

    def __init__(self, judge: Callable[[], float], good: float, poor: float, epoch: int, patience: int) -> None:
        self.judge, self.good, self.poor, self.epoch, self.patience = judge, good, poor, epoch, patience
        self.values: list[float] = []
        self.seconds = 0.0
        self._began = time.process_time()

    def __call__(self, steps: int) -> bool:
        if steps % self.epoch:
            return False
        self.seconds += time.process_time() - self._began
        self.values.append(self.judge())
        self._began = time.process_time()
        hopeless = len(self.values) == self.patience and max(self.values) <= self.poor
        return hopeless or self.values[-1] >= self.good


class Darji:
    """The nets of a run. Their files lie in its folder: the dense ones, and those pruned to `shown` percent."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings
        self.shown = min(run.settings.percentages, key=lambda p: abs(p - 90))
        self.strings = cache(self._strings)

    def _strings(self, flawed: bool) -> Data:
        s, seed = self.settings, self.run.seed
        if flawed:
            return balanced(generate_flawed(s.strings, seed, shortest=s.shortest), s.longest, seed, ALPHABET)
        made = reber.generate(s.strings, seed, embedded=s.embedded, shortest=s.shortest)
        return balanced(made, s.longest, seed)

    def data(self, task: str) -> Data:
        """The task's strings; with the flaw "leak" a test string takes the place of one in training."""
        data = self.strings(switched(task, "letters"))
        if not switched(task, "leak"):
            return data
        order = torch.arange(len(data.classes_N))
        order[0] = data.train
        return Data(data.x_TN[:, order], data.lengths_N[order], data.classes_N[order])

    def sentences(self) -> tuple[Tensor, Tensor]:
        """The valid strings for training, x_TN and their lengths_N."""
        data = self.data("sentences")
        valid = torch.arange(data.train)[data.classes_N[: data.train] == 1]
        return data.x_TN[:, valid], data.lengths_N[valid]

    def objective(self, task: str) -> Objective:
        batch, seed = self.settings.batch_of(task), self.run.seed
        if task == "sentences":
            return NextLetter(*self.sentences(), batch, seed)
        return self.data(task).objective(batch, seed)

    def epoch(self, task: str) -> int:
        """Steps in an epoch."""
        count = self.sentences()[0].shape[1] if task == "sentences" else self.data(task).train
        return max(1, count // self.settings.batch_of(task))

    def model(self, name: Name) -> nn.Module:
        torch.manual_seed(self.run.seed)
        s = self.settings
        kind = StackGenerator if name.task == "sentences" else StackClassifier
        if switched(name.task, "padding"):
            kind = PaddedStackClassifier
        symbols = 1 + len(ALPHABET if switched(name.task, "letters") else reber.LETTERS)
        return kind(name.cell, symbols, s.embedding, s.wide if name.task == "wide" else s.hidden, s.layers)

    def judge(self, task: str, model: nn.Module) -> float:
        """Test accuracy, or for a generator the share of its strings that are valid."""
        if task != "sentences":
            return accuracy(model, *self.data(task).test())
        return share(self.drawn(model), self._accepts)

    def guess(self, task: str) -> float:
        """What a net that has not seen the string is worth: the share of the class that is more frequent in the test;
        for a generator nothing."""
        if task == "sentences":
            return 0.0
        valid = self.data(task).test()[2].float().mean()
        return float(torch.maximum(valid, 1 - valid))

    def drawn(self, model: Any) -> list[str]:
        s = self.settings
        return sample(model, reber.LETTERS, s.samples, 3 * s.longest, self.run.seed)

    def _accepts(self, string: str) -> bool:
        return reber.accepts_embedded(string) if self.settings.embedded else reber.accepts(string)

    @property
    def example_inputs(self) -> tuple[Tensor, Tensor]:
        x_TN, lengths_N, _ = self.data("strings").test()
        return x_TN[: int(lengths_N[:8].max()), :8], lengths_N[:8]

    def file(self, name: Name) -> Path:
        return self.run.folder / f"{name}.safetensors"

    def load(self, name: Name) -> nn.Module:
        return load(self.model(name), self.file(name)).eval()

    def row(self, name: Name) -> Result:
        make = self.dense if name.part == "dense" else self.pruned
        return self.run.row(str(name), lambda: make(name), paper=paper(name))

    def results(self) -> dict[str, Result]:
        return {str(name): self.row(name) for name in names(self.settings)}

    def dense(self, name: Name) -> Mapping[str, Any]:
        model, task, seed = self.model(name), name.task, self.run.seed
        training = self.settings.training(task, self.epoch(task))
        folder = self.run.folder / str(name)
        history = train(model, self.objective(task), training, name=str(name), seed=seed, folder=folder)
        save(model.eval(), self.file(name))
        found = {"train_seconds": round(history.seconds, 1), **sizes(model), **self.worth(task, model)}
        if task == "strings":
            found["histogram_edges"] = [round(float(e), 3) for e in EDGES]
            found |= {f"histogram_{kind}": counts for kind, counts in histogram(model).items()}
        return found

    def worth(self, task: str, model: nn.Module) -> dict[str, float]:
        """Of a dense net: its accuracy, or for a generator also how many valid strings were not learnt by heart."""
        if task != "sentences":
            return {"test_accuracy": self.judge(task, model), "guess": self.guess(task)}
        learnt = {"".join(reber.LETTERS[n - 1] for n in x_T if n) for x_T in self.sentences()[0].T.tolist()}
        valid = [string for string in self.drawn(model) if self._accepts(string)]
        new = sum(string not in learnt for string in valid) / max(1, len(valid))
        return {"share_valid": len(valid) / self.settings.samples, "share_new": new}

    def cuts(self, name: Name) -> list[tuple[str, float]]:
        """How far the row's nets are pruned: (percentage or threshold, share of weights that goes)."""
        s = self.settings
        if name.part == "threshold":
            dense = self.load(name.dense)
            return [(f"{t:g}", share_below(dense, t)) for t in s.thresholds]
        return [(str(p), p / 100) for p in (s.percentages if name.task in ("strings", "sentences") else s.few)]

    def pruned(self, name: Name) -> Mapping[str, Any]:
        """Prune the dense net once to each percentage or threshold, judge, retrain until it is as good again."""
        dense = self.row(name.dense).measured
        good = dense["share_valid" if name.task == "sentences" else "test_accuracy"] - self.settings.near
        found: dict[str, Any] = {}
        for label, sparsity in self.cuts(name):
            found |= self.recovered(name, label, sparsity, good)
            self.run.console.print(
                f"{name} {label}: {found[f'before_{label}']:.3f} → {found[f'after_{label}']:.3f}", highlight=False
            )
        return found

    def recovered(self, name: Name, label: str, sparsity: float, good: float) -> dict[str, Any]:
        """The figures of one pruned net. One that is good enough at once is not retrained: zero epochs."""
        task, model = name.task, self.load(name.dense)
        prune(model, name.part, sparsity)
        shown = str(name) == f"{name.cell}-strings-both" and label == str(self.shown)
        shapes = {f"pruned_{kind}": counts for kind, counts in histogram(model).items()} if shown else {}
        before, course = self.judge(task, model), None
        if before < good:
            epoch, seed = self.epoch(task), self.run.seed
            poor = self.guess(task) + self.settings.near
            course = Course(lambda: self.judge(task, model), good, poor, epoch, self.settings.patience)
            training, title = self.settings.retraining(epoch), f"{name} {label}"
            hold = lambda m: prune(m, name.part, sparsity)  # noqa: E731
            train(model, self.objective(task), training, name=title, seed=seed, sparsify=hold, until=course)
        values = course.values if course else []
        found: dict[str, Any] = {
            f"before_{label}": before,
            f"first_{label}": values[0] if values else before,
            f"after_{label}": values[-1] if values else before,
            f"course_{label}": values,
            f"pruned_{label}": round(100 * sparsity, 4),
            **shapes,
        }
        if found[f"after_{label}"] >= good:
            found[f"epochs_{label}"] = len(values)
            found[f"seconds_{label}"] = round(course.seconds, 2) if course else 0.0
        if shown:
            save(model.eval(), self.file(name))
            found |= {f"retrained_{kind}": counts for kind, counts in histogram(model).items()}
        return found
