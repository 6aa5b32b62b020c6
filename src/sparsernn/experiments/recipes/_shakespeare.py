"""The rows of the tiny Shakespeare table: how each model is made, measured, loaded and timed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...learn.lasso import GroupLasso
from ...learn.target import Ramp
from ...runtime.layers import accelerate
from ...surgery.checkpoint import load, save
from ...surgery.compact import compact
from .. import checkpoint
from ..models import CharacterLSTM
from ..results import Result, sizes
from ..runs import Run
from ..tasks import shakespeare
from ..tasks.text import LanguageModelling, Streams, Text, bits_per_symbol
from ..train import Training, train
from ._stepping import time_batches, time_steps

ROWS = {
    "dense": "dense",
    "direct": "equal-size dense, trained directly",
    "sparse": "sparse, not compacted",
    "compact": "compact (torch)",
    "fast": "compact (sparsernn)",
    "int8": "compact (sparsernn, int8)",
}


@dataclass(frozen=True)
class Settings:
    """`target`: share of the recurrent weights kept, a half of the units; `ramp_begin`, `ramp_end` and `freeze`: when
    they go, in shares of the steps.

    `bench_batch`, `bench_steps`: the batch that is timed. `threads` 0: as many as torch finds cores.
    """

    embedding: int = 64
    hidden: int = 384
    dropout: float = 0.0
    target: float = 0.286
    ramp_begin: float = 0.1
    ramp_end: float = 0.35
    freeze: float = 0.4
    steps: int = 4000
    batch: int = 32
    length: int = 64
    learning_rate: float = 8e-3
    warm_up: int = 200
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 1  # more gain little at this size, and lose much where the machine is busy
    train_symbols: int = 0  # 0: all
    test_symbols: int = 0
    bench_batch: int = 10
    bench_steps: int = 30
    bench_rounds: int = 31

    def __post_init__(self) -> None:
        self.training()
        for name in ("target", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share from 0 to below 1.")
        for name in ("embedding", "hidden", "batch", "length", "bench_batch", "bench_steps", "bench_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")

    def training(self) -> Training:
        return Training(
            steps=self.steps,
            learning_rate=self.learning_rate,
            warm_up=self.warm_up,
            precision=_precision() if self.precision == "auto" else self.precision,
        )


def _precision() -> Literal["float32", "bfloat16"]:
    """bfloat16 where the processor multiplies in it; elsewhere it would be slower than float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not in every version of torch
    return "bfloat16" if supported is not None and supported() else "float32"


class Shakespeare:
    """The rows, each made from what the rows before left in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings
        self.folder: Path = run.folder
        torch.set_num_threads(self.settings.threads or torch.get_num_threads())

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

    def _train(
        self, row: str, model: CharacterLSTM, sparsify: Callable[[nn.Module], GroupLasso] | None = None
    ) -> Mapping[str, Any]:
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

    def dense(self) -> Mapping[str, Any]:
        return self._train("dense", self.model())

    def sparse(self) -> Mapping[str, Any]:
        s = self.settings

        def sparsify(model: nn.Module) -> GroupLasso:
            ramp = Ramp(begin=s.ramp_begin, end=s.ramp_end, freeze=s.freeze)
            return GroupLasso(model, self.example_inputs, target=s.target, steps=s.steps, ramp=ramp)

        measured = self._train("sparse", self.model(), sparsify)
        return {**measured, "density": measured["nonzero"] / measured["weights"]}

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

    def fast(self) -> Mapping[str, Any]:
        return self.measure(accelerate(self.load("compact")), self.file("compact"))

    def int8(self) -> Mapping[str, Any]:
        return self.measure(self.load("int8"), self.file("compact"))

    def load(self, row: str) -> nn.Module:
        """The model of a row that is done, in eval mode."""
        if row == "fast":
            return accelerate(self.load("compact"))
        if row == "int8":
            with warnings.catch_warnings():  # a processor that has no int8 products says so in `accelerate`
                warnings.simplefilter("ignore", RuntimeWarning)
                return accelerate(self.load("compact"), precision="int8")
        model = self.model(self.small_units) if row == "direct" else self.model()
        return load(model, self.file(row)).eval()

    def timed(self, made: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of a batch and of a streaming step added."""
        s = self.settings
        models = {row: self.load(row) for row in ROWS}
        x_TB, _, _ = Streams(self.text.test, s.bench_batch, s.bench_steps).at(0)
        batches = time_batches(models, x_TB, s.bench_rounds)
        steps = time_steps(models, ("fast", "int8"), s.bench_rounds)
        # The compact models compute what the sparse one does; how closely, is a figure of the table.
        exact = time_batches({row: models[row] for row in ("sparse", "compact", "fast", "int8")}, x_TB, 1)
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


SMOKE = Settings(
    embedding=16,
    hidden=32,
    steps=60,
    batch=8,
    length=32,
    warm_up=10,
    train_symbols=20_000,
    test_symbols=4_000,
    precision="float32",
    bench_rounds=3,
    bench_steps=20,
    bench_batch=4,
)
