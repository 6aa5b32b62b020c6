"""Character LSTMs on tiny Shakespeare: how the rows of a table are made, measured, loaded and timed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsernn.runtime.costs import Precision
from sparsernn.runtime.layers import accelerate
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact

from .. import checkpoint
from ..models import CharacterLSTM
from ..precision import resolved
from ..results import Result, sizes
from ..runs import Run
from ..tasks import shakespeare
from ..tasks.text import LanguageModelling, Streams, Text, bits_per_symbol
from ..train import Sparsify, Training, train
from .stepping import time_batches, time_steps

ORDER = ("dense", "sparse", "compact", "direct")


@dataclass(frozen=True)
class CharacterSettings:
    """`bench_batch`, `bench_steps`: the batch that is timed. `threads`: at most so many, 0 all
    that torch finds."""

    embedding: int = 64
    hidden: int = 384
    dropout: float = 0.0
    steps: int = 4000
    batch: int = 32
    length: int = 64
    learning_rate: float = 8e-3
    warm_up: int = 200
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 2  # a third less time than one; more gain little at this size
    train_symbols: int = 0  # 0: all
    test_symbols: int = 0
    bench_batch: int = 10
    bench_steps: int = 30
    bench_rounds: int = 31

    def __post_init__(self) -> None:
        self.training()
        self._shares("dropout")
        for name in ("embedding", "hidden", "batch", "length", "bench_batch", "bench_steps", "bench_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")

    def _shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share from 0 to below 1.")

    def training(self) -> Training:
        return Training(
            steps=self.steps,
            learning_rate=self.learning_rate,
            warm_up=self.warm_up,
            precision=resolved(self.precision),
        )


class Characters:
    """The rows, each made from what the rows before left in the run's folder: *dense*, *sparse* (a subclass says how),
    *compact*, *direct* (a dense net of equal size) and the accelerated forms of the compact model.

    `rows` maps rows to their labels, in the order of the table; `precisions` the accelerated rows to their precision.
    """

    rows: Mapping[str, str]
    precisions: Mapping[str, Precision]

    @property
    def streamed(self) -> tuple[str, ...]:
        """Rows whose models have a `stream` of their own."""
        return tuple(row for row in self.rows if row in self.precisions)

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Any = run.settings
        self.folder: Path = run.folder
        found = torch.get_num_threads()
        torch.set_num_threads(min(self.settings.threads or found, found))

    @cached_property
    def text(self) -> Text:
        text, s = shakespeare.load(), self.settings
        train_N = text.train[: s.train_symbols] if s.train_symbols else text.train
        test_N = text.test[: s.test_symbols] if s.test_symbols else text.test
        return Text(text.symbols, train_N, text.valid, test_N)

    @cached_property
    def example_inputs(self) -> Tensor:
        x_TB, _, _ = Streams(self.text.test, 4, 16).at(0)
        return x_TB

    def model(self, hidden: int | None = None) -> CharacterLSTM:
        s = self.settings
        torch.manual_seed(self.run.seed)
        symbols = len(self.text.symbols)
        return CharacterLSTM(symbols, s.embedding, s.hidden if hidden is None else hidden, dropout=s.dropout)

    def file(self, row: str) -> Path:
        return self.folder / f"{row}.safetensors"

    def _train(self, row: str, model: CharacterLSTM, sparsify: Sparsify | None = None) -> Mapping[str, Any]:
        s = self.settings
        objective = LanguageModelling(Streams(self.text.train, s.batch, s.length))
        history = train(
            model,
            objective,
            s.training(),
            name=row,
            seed=self.run.seed,
            sparsify=sparsify,
            folder=self.folder / row,
        )
        model.eval()
        save(model, self.file(row))
        return {**self.measure(model, self.file(row)), "train_seconds": round(history.seconds, 1)}

    def measure(self, model: nn.Module, file: Path) -> dict[str, Any]:
        units = model.lstm.hidden_size  # type: ignore[union-attr]
        return {
            "test_bpc": bits_per_symbol(model, self.text.test),
            "units": [units],
            **sizes(model),
            "file_bytes": file.stat().st_size,
        }

    def make(self) -> dict[str, Result]:
        """All rows, in the order of the table; those that an earlier run made are read."""
        made: dict[str, Result] = {}
        # What a row needs is made before it.
        for row in sorted(self.rows, key=lambda row: ORDER.index(row) if row in ORDER else len(ORDER)):
            make = partial(self.accelerated, row) if row in self.precisions else getattr(self, row)
            made[row] = self.run.row(row, make)
        return {row: made[row] for row in self.rows}

    def dense(self) -> Mapping[str, Any]:
        return self._train("dense", self.model())

    def direct(self) -> Mapping[str, Any]:
        return self._train("direct", self.model(self.small_units))

    @property
    def small_units(self) -> int:
        """Hidden units of the compact model."""
        small = self.load("compact")
        assert isinstance(small, CharacterLSTM)
        return small.lstm.hidden_size

    def compact(self) -> Mapping[str, Any]:
        small = compact(self.load("sparse"), self.example_inputs)
        save(small, self.file("compact"))
        return self.measure(small, self.file("compact"))

    def accelerated(self, row: str) -> Mapping[str, Any]:
        """A row of `precisions`."""
        return self.measure(self.load(row), self.file("compact"))

    def load(self, row: str) -> nn.Module:
        """The model of a row that is done, in eval mode."""
        if row in self.precisions:
            with warnings.catch_warnings():  # a processor that has no int8 products says so in `accelerate`
                warnings.simplefilter("ignore", RuntimeWarning)
                return accelerate(self.load("compact"), precision=self.precisions[row])
        model = self.model(self.small_units) if row == "direct" else self.model()
        return load(model, self.file(row)).eval()

    def timed(self, made: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of a batch and of a streaming step added."""
        s = self.settings
        models = {row: self.load(row) for row in made}
        x_TB, _, _ = Streams(self.text.test, s.bench_batch, s.bench_steps).at(0)
        batches = time_batches(models, x_TB, s.bench_rounds)
        steps = time_steps(models, self.streamed, s.bench_rounds)
        # The compact models compute what the sparse one does; how closely, is a figure of the table.
        exact = time_batches(
            {row: models[row] for row in ("sparse", "compact", *self.precisions) if row in made}, x_TB, 1
        )
        done = {}
        for row, result in made.items():
            figures: dict[str, Any] = {
                "ms_batch": batches[row].milliseconds,
                "speedup_batch": batches[row].ratio,
                "spread_batch": batches[row].spread,
                "ms_step": steps[row].milliseconds,
                "speedup_step": steps[row].ratio,
                "spread_step": steps[row].spread,
            }
            if row in exact:
                figures["max_error"] = exact[row].max_error
            done[row] = self.run.add(result, figures)
        return done

    def history(self) -> dict[str, list[float]]:
        """The course of the sparse row's training, the steps that it shares with the dense one included."""
        course = checkpoint.read(self.folder / "sparse" / "checkpoint.safetensors")["history"]
        return {"step": course["step"], "loss": course["loss"], "kept": course["density"], "rate": course["rate"]}
