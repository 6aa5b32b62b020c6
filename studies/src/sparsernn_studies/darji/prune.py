"""Reber strings, pruned: how far classifiers of three recurrent layers can be pruned, and how soon they recover.

After H. Darji (arXiv 2407.20601): RNN with tanh and relu, LSTM and GRU, trained densely, pruned once to a percentage
(one threshold for the input-to-hidden weights of all layers, for the hidden-to-hidden ones, or for both together; row
"matrix" takes the same share of each matrix instead) or by a fixed threshold, and retrained with the masks held. Next
to it nets that generate the strings, letter by letter. Biases and embeddings are spared.

Strings are read at their last letter; valid and invalid ones have the same letters, ends and lengths. The original's
flaws can be switched on by name, `--set flaws=padding,letters,leak,all`, in rows of their own:

    padding: each net is read at the last step of the padded batch, not at its string's end.
    letters: most invalid strings have letters that no valid one has, and a few are turned valid ones.
    leak: a string of the test is in the training set, too.
    all: these three at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsernn.runtime.layers import accelerate
from sparsernn.surgery.checkpoint import save

from ..graphs.study import Data, balanced
from ..results import Result, sizes
from ..runs import Run
from ..study import Judge, Study
from ..tables import Column
from ..tasks import reber
from ..tasks.generation import NextLetter, sample, share
from ..tasks.reber_flaws import ALPHABET, generate_flawed
from ..tasks.sequences import accuracy
from ..train import Objective, train
from .claims import CLAIMS
from .figures import figures
from .paper import paper
from .pruning import EDGES, Course, histogram, prune, share_below
from .settings import FLAWS, Net, Settings, rows_of
from .stacks import PaddedStackClassifier, StackClassifier, StackGenerator


def switched(task: str, flaw: str) -> bool:
    """Whether the task has this flaw of the original's."""
    return task in (flaw, "all")


def _dense(measured: Mapping[str, Any]) -> str:
    return f"{measured['share_valid' if 'share_valid' in measured else 'test_accuracy']:.3f}"


def _at(label: str) -> Column:
    def text(measured: Mapping[str, Any]) -> str:
        return f"{measured[f'before_{label}']:.3f} → {measured[f'after_{label}']:.3f}"

    return Column(f"at {label}%", text)


class Darji(Study[Settings, Net]):
    """The files of the nets lie in the run's folder: the dense ones, and those pruned to `kept` percent."""

    name = "darji-prune"
    summary = "Classifiers and generators of Reber strings, pruned once and retrained: how far it goes, how soon."
    title = "Reber strings, pruned"
    caption = "Test accuracy (generation: share of valid strings), right after pruning → retrained."
    scales: ClassVar = {
        "smoke": Settings(
            cells=("gru",),
            layers=2,
            hidden=8,
            embedding=8,
            parts=("both", "head"),
            percentages=(50, 90),
            flaws=("all",),
            few=(100,),
            thresholds=(0.05,),
            wide=12,
            wide_epochs=1,
            strings=400,
            epochs=2,
            retrain_epochs=2,
            sentence_epochs=2,
            warm_up=2,
            samples=50,
        ),
        "cpu": Settings(),
        "paper": Settings(
            flaws=FLAWS,
            flaw_parts=("both", "hh", "ih"),
            few=(60, 70, 80, 90, 100),
            wide_batch=16,
            wide_epochs=12,
            strings=25_000,
            longest=53,
            epochs=50,
            retrain_epochs=10,
            sentence_epochs=50,
            learning_rate=1e-3,
            retrain_rate=1e-3,
            warm_up=0,
            final_rate=1.0,
            samples=10_000,
        ),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "10 to 20 minutes, estimated", "paper": "some hours"}
    columns = (Column("dense", _dense), *(_at(str(percent)) for percent in (60, 70, 80, 90, 100)))
    labels: ClassVar = {
        row.name: row.label for row in rows_of(Settings(flaws=FLAWS, flaw_parts=("both", "hh", "ih", "matrix", "head")))
    }
    claims = CLAIMS
    judge = Judge("test_accuracy", more=True, rows="*-strings-dense")

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.kept = min(run.settings.percentages, key=lambda p: abs(p - 90))
        self.strings = cache(self._strings)

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        return rows_of(settings)

    @property
    def shown(self) -> Net:
        """The first cell's net: pruned, where there is a row, else dense."""
        pruned = Net.of(self.settings.cells[0], "strings", "both")
        return pruned if pruned in self.rows else pruned.dense

    @property
    def saved(self) -> list[Net]:
        """Dense net of the first cell, and pruned one: input-to-hidden and hidden-to-hidden weights, to about 90%."""
        return list(dict.fromkeys((self.shown.dense, self.shown)))

    def forms(self) -> Mapping[str, nn.Module]:
        """The first cell's dense and pruned net, the pruned one on sparsernn's kernels as well."""
        found = {row.name: self.load(row) for row in self.saved}
        return {**found, "pruned, sparsernn": accelerate(found[self.shown.name])}

    def sections(self, rows: Mapping[str, Result], found: Any) -> Mapping[str, Any]:
        measured = {row: result.measured for row, result in rows.items()}
        return {"figures": [(drawn, caption) for drawn, caption, _ in figures([measured])]}

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

    def objective(self, row: Net) -> Objective:
        task = row.task
        batch, seed = self.settings.batch_of(task), self.run.seed
        if task == "sentences":
            return NextLetter(*self.sentences(), batch, seed)
        return self.data(task).objective(batch, seed)

    def epoch(self, task: str) -> int:
        """Steps in an epoch."""
        count = self.sentences()[0].shape[1] if task == "sentences" else self.data(task).train
        return max(1, count // self.settings.batch_of(task))

    def model(self, row: Net) -> nn.Module:
        torch.manual_seed(self.run.seed)
        s = self.settings
        kind = StackGenerator if row.task == "sentences" else StackClassifier
        if switched(row.task, "padding"):
            kind = PaddedStackClassifier
        symbols = 1 + len(ALPHABET if switched(row.task, "letters") else reber.LETTERS)
        return kind(row.cell, symbols, s.embedding, s.wide if row.task == "wide" else s.hidden, s.layers)

    def quality(self, task: str, model: nn.Module) -> float:
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

    @cached_property
    def example_inputs(self) -> tuple[Tensor, Tensor]:
        return self.data("strings").examples()

    def make(self, row: Net) -> Mapping[str, Any]:
        return self.dense(row) if row.part == "dense" else self.pruned(row)

    def paper(self, row: Net) -> Mapping[str, Any]:
        return paper(row)

    def dense(self, row: Net) -> Mapping[str, Any]:
        model, task = self.model(row), row.task
        history = self.train(row.name, model, self.objective(row), self.settings.training(task, self.epoch(task)))
        save(model, self.file(row))
        found = {"train_seconds": round(history.seconds, 1), **sizes(model), **self.measure_dense(task, model)}
        if task == "strings":
            found["histogram_edges"] = [round(float(e), 3) for e in EDGES]
            found |= {f"histogram_{kind}": counts for kind, counts in histogram(model).items()}
        return found

    def measure_dense(self, task: str, model: nn.Module) -> dict[str, float]:
        """Of a dense net: its accuracy, or for a generator also how many valid strings were not learnt by heart."""
        if task != "sentences":
            return {"test_accuracy": self.quality(task, model), "guess": self.guess(task)}
        learnt = {"".join(reber.LETTERS[n - 1] for n in x_T if n) for x_T in self.sentences()[0].T.tolist()}
        valid = [string for string in self.drawn(model) if self._accepts(string)]
        new = sum(string not in learnt for string in valid) / max(1, len(valid))
        return {"share_valid": len(valid) / self.settings.samples, "share_new": new}

    def cuts(self, row: Net) -> list[tuple[str, float]]:
        """How far the row's nets are pruned: (percentage or threshold, share of weights that goes)."""
        s = self.settings
        if row.part == "threshold":
            dense = self.load(row.dense)
            return [(f"{t:g}", share_below(dense, t)) for t in s.thresholds]
        return [(str(p), p / 100) for p in (s.percentages if row.task in ("strings", "sentences") else s.few)]

    def pruned(self, row: Net) -> Mapping[str, Any]:
        """Prune the dense net once to each percentage or threshold, judge, retrain until it is as good again."""
        dense = self.result(row.dense).measured
        good = dense["share_valid" if row.task == "sentences" else "test_accuracy"] - self.settings.near
        found: dict[str, Any] = {}
        for label, sparsity in self.cuts(row):
            found |= self.recovered(row, label, sparsity, good)
            self.run.console.print(
                f"{row.name} {label}: {found[f'before_{label}']:.3f} → {found[f'after_{label}']:.3f}", highlight=False
            )
        return found

    def recovered(self, row: Net, label: str, sparsity: float, good: float) -> dict[str, Any]:
        """The figures of one pruned net. One that is good enough at once is not retrained: zero epochs."""
        task, model = row.task, self.load(row.dense)
        prune(model, row.part, sparsity)
        shown = (row.task, row.part) == ("strings", "both") and label == str(self.kept)
        shapes = {f"pruned_{kind}": counts for kind, counts in histogram(model).items()} if shown else {}
        before, course = self.quality(task, model), None
        if before < good:
            epoch, seed = self.epoch(task), self.run.seed
            poor = self.guess(task) + self.settings.near
            course = Course(lambda: self.quality(task, model), good, poor, epoch, self.settings.patience)
            training, title = self.settings.retraining(epoch), f"{row.name} {label}"
            hold = lambda m: prune(m, row.part, sparsity)  # noqa: E731
            train(model, self.objective(row), training, name=title, seed=seed, sparsify=hold, until=course)
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
            save(model.eval(), self.file(row))
            found |= {f"retrained_{kind}": counts for kind, counts in histogram(model).items()}
        return found
