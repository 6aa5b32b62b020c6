"""Character LSTMs on tiny Shakespeare: what the tables of these share. Each says how its sparse net is made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparsernn.runtime.held import Precision
from sparsernn.runtime.layers import accelerate
from sparsernn.surgery.checkpoint import save

from ..models import CharacterLSTM
from ..precision import resolved
from ..results import Result, sizes
from ..settings import Count, Positive, Share, Whole, settings
from ..study import Judge, Row, Study
from ..tables import Column, figure, file_size
from ..tasks import shakespeare
from ..tasks.text import LanguageModelling, Streams, Text, bits_per_symbol
from ..train import Training
from .stepping import time_steps, timed


@settings
class CharacterSettings:
    """`bench_batch`, `bench_steps`: the batch that is timed. `threads`: at most so many, 0 all
    that torch finds."""

    embedding: Count = 64
    hidden: Count = 384
    dropout: Share = 0.0
    steps: Count = 4000
    batch: Count = 32
    length: Count = 64
    learning_rate: Positive = 8e-3
    warm_up: Whole = 200
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Whole = 2  # a third less time than one; more gain little at this size
    train_symbols: Whole = 0  # 0: all
    test_symbols: Whole = 0
    bench_batch: Count = 10
    bench_steps: Count = 30
    bench_rounds: Count = 31


SMOKE: Mapping[str, Any] = {
    "embedding": 16,
    "hidden": 32,
    "steps": 60,
    "batch": 8,
    "length": 32,
    "warm_up": 10,
    "train_symbols": 20_000,
    "test_symbols": 4_000,
    "precision": "float32",
    "bench_rounds": 3,
    "bench_steps": 20,
    "bench_batch": 4,
}


@dataclass(frozen=True)
class Net(Row):
    """A net by its way, *direct* a dense one of equal size, or the compact net run in `precision`."""

    precision: Precision | None = None

    @property
    def direct(self) -> bool:
        return self.name.startswith("direct")


class Characters(Study[Any, Net]):
    """`precisions`: the accelerated rows and their precision; `exact`: the row that their outputs are compared with."""

    precisions: ClassVar[Mapping[str, Precision]]
    exact: ClassVar[str]
    caption = (
        "One thread; batch {bench_batch} x {bench_steps}; step: batch 1, torch's the faster of LSTM and LSTMCell; "
        "speed against dense."
    )
    columns: ClassVar[Sequence[Column]] = (
        figure("bits/char", "test_bpc", "{:.3f}"),
        figure("units", "units"),
        figure("weights", "weights", "{:,}"),
        Column("file", lambda m: file_size(m["file_bytes"])),
        figure("batch", "ms_batch", "{:.2f} ms"),
        figure("", "speedup_batch", "{:.1f}x"),
        Column("step", lambda m: f"{1e3 * m['ms_step']:.1f} µs"),
        figure("", "speedup_step", "{:.1f}x"),
    )
    judge = Judge("test_bpc", more=False, rows="compact")
    timing = "ms_step"

    @classmethod
    def rows_of(cls, settings: Any) -> list[Net]:
        return [Net(name, cls.precisions.get(name)) for name in cls.labels]

    @property
    def streamed(self) -> list[str]:
        """Rows whose models have a `stream` of their own."""
        return [row.name for row in self.rows if row.precision]

    @cached_property
    def text(self) -> Text:
        text, s = shakespeare.load(), self.settings
        return Text(
            text.symbols, text.train[: s.train_symbols or None], text.valid, text.test[: s.test_symbols or None]
        )

    @cached_property
    def example_inputs(self) -> Tensor:
        return Streams(self.text.test, 4, 16).at(0)[0]

    def model(self, row: Net) -> CharacterLSTM:
        s, hidden = self.settings, self.small_units if row.direct else self.settings.hidden
        torch.manual_seed(self.run.seed)
        return CharacterLSTM(len(self.text.symbols), s.embedding, hidden, dropout=s.dropout)

    @property
    def small_units(self) -> int:
        """Hidden units of the compact model."""
        return self.load(self.named("compact")).lstm.hidden_size

    def objective(self, row: Net) -> LanguageModelling:
        return LanguageModelling(Streams(self.text.train, self.settings.batch, self.settings.length))

    def training(self, row: Net) -> Training:
        s = self.settings
        return Training(s.steps, s.learning_rate, s.warm_up, precision=resolved(s.precision))

    def make(self, row: Net) -> Mapping[str, Any]:
        if not row.precision:
            return super().make(row)
        fast = self.load(row)
        save(fast, self.file(row))
        return self.measure(row, fast)

    def measure(self, row: Net, model: Any) -> dict[str, Any]:
        return {
            "test_bpc": bits_per_symbol(model, self.text.test),
            "units": [model.lstm.hidden_size],
            **sizes(model),
            "file_bytes": self.file(row).stat().st_size,
        }

    def load(self, row: Net, kind: str = "") -> Any:
        if not row.precision:
            return super().load(row, kind)
        with warnings.catch_warnings():  # a processor that has no int8 products says so in `accelerate`
            warnings.simplefilter("ignore", RuntimeWarning)
            return accelerate(self.load(self.named("compact")), precision=row.precision)

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of a batch and of a streaming step added."""
        s = self.settings
        models: dict[str, nn.Module] = {row.name: self.load(row) for row in self.rows}
        x_TB, _, _ = Streams(self.text.test, s.bench_batch, s.bench_steps).at(0)
        took = {
            "batch": timed(models, x_TB, s.bench_rounds),
            "step": time_steps(models, self.streamed, s.bench_rounds),
        }
        # These compute the same; how closely, is a figure of the table.
        same = dict.fromkeys((self.exact, "compact", *self.precisions))
        exact = timed({name: models[name] for name in same if name in models}, x_TB, 1)
        done = {}
        for name, result in rows.items():
            figures: dict[str, Any] = {}
            for kind, times in took.items():
                each = times[name]
                figures |= {
                    f"ms_{kind}": each.milliseconds,
                    f"speedup_{kind}": each.ratio,
                    f"spread_{kind}": each.spread,
                }
            if name in exact:
                figures["max_error"] = exact[name].max_error
            done[name] = self.run.add(result, figures)
        return done

    def sections(self, rows: Mapping[str, Result], found: Any) -> Mapping[str, Any]:
        measured = {self.labels[name]: result.measured for name, result in rows.items()}
        dense, exact = self.labels["dense"], self.labels[self.exact]
        first = rows["dense"]
        return {
            "benchmark": [
                {
                    "work": f"{label}, {kind}",
                    "against": "dense, torch",
                    "ratio": figures[f"speedup_{kind}"],
                    "spread": figures[f"spread_{kind}"],
                }
                for label, figures in measured.items()
                for kind in ("batch", "step")
                if label != dense
            ],
            "checks": {
                **{
                    f"largest difference {label} to {exact}": figures["max_error"]
                    for label, figures in measured.items()
                    if label != exact and "max_error" in figures
                },
                "seed": first.seed,
                **first.versions,
            },
        }
