"""The rows of Wen's Penn Treebank table: how each net is made, measured, loaded and timed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.runtime.layers import accelerate
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact
from sparsernn.timing import benchmark

from ..highway_model import HighwayModel
from ..results import Result, place, read, sizes
from ..runs import Run, RunError
from ..scores import as_recorded
from ..tasks import ptb_word
from ..tasks.text import Text, bits_per_symbol
from ..word_model import StackedLSTM
from ..word_training import WordTrainer
from .ptb_settings import STARTS, Settings

STEPS, BATCH = 30, 10  # of the paper's timing
LONG = 256  # words of one stream that are read at once where nothing is learnt


class Wen:
    """The rows, each made from what the rows before left in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings

    @cached_property
    def text(self) -> Text:
        whole = ptb_word.by_frequency(ptb_word.load(self.run.data), self.settings.words)
        few = self.settings.measured_words or None
        return Text(whole.symbols, whole.train, whole.valid[:few], whole.test[:few])

    @cached_property
    def example_inputs(self) -> Tensor:
        return self.text.train[: STEPS * BATCH].view(STEPS, BATCH)

    def model(self, row: str) -> StackedLSTM | HighwayModel:
        """The untrained net of `row`."""
        s = self.settings
        torch.manual_seed(self.run.seed)
        widths = (s.widths or self.units_of("iss")) if row == "direct" else (s.net.units, s.net.units)
        return StackedLSTM(len(self.text.symbols), s.net.units, widths, s.keep(row), s.net.start)

    def units_of(self, row: str) -> tuple[int, ...]:
        """Units of each layer that are left in `row`, which is done: the sizes of the row that is trained directly."""
        path = place(self.run.results, self.run.recipe, self.run.scale, row, self.run.seed)
        if not path.is_file():
            raise RunError(f"{path} is missing, which says how wide the row direct is: run the recipe again.")
        return tuple(read(path).measured["units"])

    def file(self, row: str, kind: str = "") -> Path:
        return self.run.folder / f"{row}{kind}.safetensors"

    def sparsifier(self, row: str) -> Callable[[nn.Module, int], Sparsifier] | None:
        """What learns the sparsity of `row`, attached to a training of so many steps; None for dense rows."""
        s, x = self.settings, self.example_inputs
        if row.startswith("iss"):
            return lambda model, steps: GroupLasso(
                model, x, strength=s.strength, update="subgradient", threshold=s.threshold
            )
        if row == "l1":  # every matrix but the embedding
            included = ("layers.*", "head.*")
            return lambda model, steps: L1(
                model, x, strength=s.l1_strength, update="subgradient", threshold=s.l1_threshold, include=included
            )
        if row == "lines":  # Wen's matrix has the rows of all four gates as its columns
            return lambda model, steps: GroupLasso(
                model,
                None,
                strength=s.lines_strength,
                level=("gate", "column"),
                update="subgradient",
                threshold=s.threshold,
            )
        if row == "target":
            return lambda model, steps: GroupLasso(model, x, target=s.target, steps=steps, score=as_recorded())
        if row.startswith("blocks"):
            share = float(row.removeprefix("blocks-")) / 100
            # Every matrix but the embedding, where words are looked up.
            return lambda model, steps: GroupLasso(
                model, None, target=share, steps=steps, level="block", include=("layers.*", "head.*")
            )
        return None

    def make(self, row: str) -> Mapping[str, Any]:
        """Train `row` (or go on with it), take out what can go, save both nets and measure."""
        s, text = self.settings, self.text
        start = STARTS.get(row)
        model: Any = self.model(row)
        if start == "dense":
            model.load_state_dict(self.load(start).state_dict())
        elif start:
            model = self.load(start, "-compact")
        trainer = WordTrainer(
            model,
            text.train,
            text.valid,
            s.training(row),
            self.run.seed,
            self.run.folder / row,
            self.sparsifier(row),
        )
        trainer.train(row)
        model.cpu().eval()
        save(model, self.file(row))
        with warnings.catch_warnings():  # dense nets and single weights leave no unit without readers
            warnings.simplefilter("ignore")
            small: Any = compact(model, self.example_inputs)
        save(small, self.file(row, "-compact"))
        fewer_bits = self.accelerated(small, "int8")
        small = small.to(trainer.device)
        measured = {
            "valid_perplexity": 2 ** bits_per_symbol(small, text.valid, streams=s.batch, window=s.training(row).bptt),
            "test_perplexity": 2 ** bits_per_symbol(small, text.test, streams=1, window=LONG),
            "test_perplexity_int8": 2 ** bits_per_symbol(fewer_bits, text.test, streams=1, window=LONG),
            "valid_course": [2**bits for bits in trainer.losses],
            "train_course": list(trainer.train_perplexity),
            "steps": trainer.step,
            "units": [layer.hidden_size for layer in small.layers],
            **sizes(small),
            "mult_adds": self.mult_adds(small),
        }
        # The best epoch need not be the last one, whose density was noted.
        return measured | ({"density": trainer.kept[-1]} if trainer.kept and not trainer.best.is_file() else {})

    def mult_adds(self, model: Any) -> int:
        """Multiply-adds for one word: non-zero weights of all matrices but the embedding, where words are looked up."""
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and not name.startswith("embedding")]
        return sum(int(p.count_nonzero()) for p in matrices)

    def results(self, paper: Mapping[str, Mapping[str, Any]]) -> dict[str, Result]:
        return {
            row: self.run.row(row, lambda row=row: self.make(row), paper=paper.get(row)) for row in self.settings.rows
        }

    def load(self, row: str, kind: str = "") -> nn.Module:
        """The net of a row that is done, in eval mode; kind "-compact": without what could go."""
        if not self.file(row, kind).is_file():
            raise RunError(f"{self.file(row, kind)} is missing, so the run is not done: run the recipe again.")
        return load(self.model(row), self.file(row, kind)).eval()

    def forms(self, row: str) -> dict[str, nn.Module]:
        """What is timed for `row`: the net without what could go in torch, in our runtime, and there in int8."""
        small = self.load(row, "-compact")
        return {"compact": small, "fast": accelerate(small), "int8": self.accelerated(small, "int8")}

    def accelerated(self, model: nn.Module, precision: Any) -> nn.Module:
        with warnings.catch_warnings():  # a processor that has no int8 products says so in `accelerate`
            warnings.simplefilter("ignore", RuntimeWarning)
            return accelerate(model, precision)

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of the paper's batch added: one thread's own, side by side with the dense net."""
        torch.set_num_threads(1)
        full = self.load("dense") if "dense" in rows else self.model("dense").eval()
        found = {}
        for row, result in rows.items():
            table = benchmark(
                {"dense": full, **self.forms(row)},
                self.example_inputs,
                repeats=self.settings.bench_rounds,
                console=_silent(),
                clock=time.thread_time,
            )
            by_name = {each.name: each for each in table.rows}
            figures: dict[str, Any] = {f"ms_{name}": each.milliseconds for name, each in by_name.items()}
            for name, each in list(by_name.items())[1:]:
                figures |= {f"speedup_{name}": each.ratio, f"spread_{name}": each.spread}
            found[row] = self.run.add(result, figures)
        return found


def _silent() -> Any:
    from rich.console import Console

    return Console(quiet=True)
