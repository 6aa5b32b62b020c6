"""The rows of the table of targets: three small nets, each sparsified in several ways to one size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.structure.cells import recurrent_layers
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact

from ..models import CharacterLSTM, SequenceClassifier
from ..results import Result, sizes
from ..runs import Run
from ..scores import as_recorded
from ..tasks import reber, shakespeare
from ..tasks.sequences import Classification, padded
from ..tasks.text import LanguageModelling, Streams, bits_per_symbol
from ..train import Objective, Training, train

NETS = {
    "lstm": "characters, LSTM",
    "stack": "characters, two LSTM layers",
    "gru": "Reber strings, GRU",
}
METHODS = ("top-k", "shrink", "hard-concrete")


@dataclass(frozen=True)
class Settings:
    """`target`: share of the recurrent weights that all methods keep; `strengths`: of the sweep that is beside them.

    `methods`: whether the net "lstm" is also sparsified by each method. The other settings hold for every row.
    """

    nets: tuple[str, ...] = tuple(NETS)
    target: float = 0.25
    strengths: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    methods: bool = True
    hidden: int = 192
    embedding: int = 64
    steps: int = 1200
    batch: int = 16
    length: int = 48
    learning_rate: float = 3e-3
    warm_up: int = 100
    strings: int = 8000
    symbols: int = 0  # of the text that is trained on, 0 for all
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        unknown = [net for net in self.nets if net not in NETS]
        if unknown or not self.nets:
            raise ValueError(f"nets is {','.join(self.nets)!r}, expected some of {', '.join(NETS)}.")
        if not 0 < self.target < 1 or not self.strengths or min(self.strengths) <= 0:
            raise ValueError("target lies between 0 and 1, and strengths are numbers above 0.")
        if min(self.hidden, self.embedding, self.batch, self.length) < 1 or self.strings % 4 or self.strings < 16:
            raise ValueError("hidden, embedding, batch and length are at least 1, strings a multiple of 4 from 16 on.")
        self.training()

    def training(self) -> Training:
        return Training(self.steps, self.learning_rate, self.warm_up, precision=self.precision)


class Targets:
    """The rows: NET-dense, NET-target, NET-direct, NET-direct-longer, NET-strengthN, and lstm-METHOD."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings

    @property
    def rows(self) -> list[str]:
        s = self.settings
        found = []
        for net in s.nets:
            found += [f"{net}-dense", f"{net}-target", f"{net}-direct", f"{net}-direct-longer"]
            found += [f"{net}-strength{n}" for n in range(len(s.strengths))]
            if net == "lstm" and s.methods:
                found += [f"lstm-{method}" for method in METHODS[1:]]
        return found

    @cached_property
    def text(self) -> Any:
        with torch.device("cpu"):  # the first who asks may be counting weights on "meta"
            return shakespeare.load()

    @cached_property
    def strings(self) -> tuple[Tensor, Tensor, Tensor]:
        made = reber.generate(self.settings.strings, self.run.seed, embedded=True)
        return (*padded(made.strings, reber.LETTERS), torch.tensor(made.valid, dtype=torch.long))

    def example_inputs(self, net: str) -> Any:
        if net == "gru":
            x_TN, lengths_N, _ = self.strings
            return x_TN[: int(lengths_N[-8:].max()), -8:], lengths_N[-8:]
        return Streams(self.text.test, 4, 16).at(0)[0]

    def model(self, net: str, hidden: int | None = None) -> nn.Module:
        torch.manual_seed(self.run.seed)
        s = self.settings
        hidden = s.hidden if hidden is None else hidden
        if net == "gru":
            return SequenceClassifier("gru", len(reber.LETTERS) + 1, s.embedding, hidden)
        return CharacterLSTM(len(self.text.symbols), s.embedding, hidden, 2 if net == "stack" else 1)

    def objective(self, net: str) -> Objective:
        s = self.settings
        if net == "gru":
            count = s.strings * 3 // 4
            x_TN, lengths_N, classes_N = self.strings
            return Classification(x_TN[:, :count], lengths_N[:count], classes_N[:count], s.batch, self.run.seed)
        return LanguageModelling(Streams(self.text.train[: s.symbols or None], s.batch, s.length))

    @torch.no_grad()
    def test_loss(self, net: str, model: nn.Module) -> float:
        """Loss on what was not trained on: bits per character, or nats per string."""
        if net != "gru":
            return bits_per_symbol(model, self.text.test)
        x_TN, lengths_N, classes_N = (part[..., self.settings.strings * 3 // 4 :] for part in self.strings)
        total = 0.0
        for begin in range(0, len(classes_N), 256):
            at = slice(begin, begin + 256)
            logits = model(x_TN[: int(lengths_N[at].max()), at], lengths_N[at])
            total += float(nn.functional.cross_entropy(logits, classes_N[at], reduction="sum"))
        return total / len(classes_N)

    def sparsify(self, net: str, how: str) -> Callable[[nn.Module], Sparsifier] | None:
        s, x = self.settings, self.example_inputs(net)
        if how.startswith("strength"):
            strength = s.strengths[int(how.removeprefix("strength"))]
            return lambda model: GroupLasso(model, x, strength=strength)
        if how in ("target", *METHODS):
            method = cast(Any, "top-k" if how == "target" else how)
            return lambda model: GroupLasso(
                model, x, target=s.target, steps=s.steps, method=method, score=as_recorded()
            )
        return None

    def make(self, row: str) -> Mapping[str, Any]:
        net, how = row.split("-", 1)
        hidden = self.direct_width(net) if how.startswith("direct") else None
        model = self.model(net, hidden)
        training = self.settings.training()
        if how == "direct-longer":
            training = replace(training, steps=round(training.steps * self.compute(net) / self.compute(net, hidden)))
        history = train(
            model,
            self.objective(net),
            training,
            name=row,
            seed=self.run.seed,
            sparsify=self.sparsify(net, how),
            folder=self.run.folder / row,
        )
        model.eval()
        save(model, self.file(row))
        with warnings.catch_warnings():  # a weak strength leaves every unit
            warnings.simplefilter("ignore")
            small = compact(model, self.example_inputs(net))
        whole, left = recurrent_weights(self.model(net)), recurrent_weights(small)
        return {
            "test_loss": self.test_loss(net, small),
            "share": left / whole,
            **({"off_target": left / whole / self.settings.target - 1} if how in ("target", *METHODS) else {}),
            "recurrent_weights": left,
            "units": [layer.hidden_size for layer in recurrent_layers(small)],
            **sizes(small),
            "steps": training.steps,
            "train_seconds": round(history.seconds, 1),
        }

    def direct_width(self, net: str) -> int:
        """Units a layer of the dense net whose recurrent weights are nearest to those that the target left."""
        wanted = self.result(f"{net}-target").measured["recurrent_weights"]
        with torch.device("meta"):
            counts = {h: recurrent_weights(self.model(net, h)) for h in range(1, self.settings.hidden + 1)}
        return min(counts, key=lambda hidden: abs(counts[hidden] - wanted))

    def compute(self, net: str, hidden: int | None = None) -> int:
        """Multiply-adds of a time step: weights of all matrices but the embedding, where symbols are looked up.

        A net on its way to a target multiplies at its full size to the last step.
        """
        with torch.device("meta"):
            named = self.model(net, hidden).named_parameters()
        return sum(p.numel() for name, p in named if p.dim() == 2 and not name.startswith("embedding"))

    def file(self, row: str) -> Path:
        return self.run.folder / f"{row}.safetensors"

    def load(self, row: str) -> nn.Module:
        net, how = row.split("-", 1)
        return load(
            self.model(net, self.direct_width(net) if how.startswith("direct") else None), self.file(row)
        ).eval()

    def result(self, row: str) -> Result:
        return self.run.row(row, lambda: self.make(row))

    def results(self) -> dict[str, Result]:
        return {row: self.result(row) for row in self.rows}


def recurrent_weights(model: nn.Module) -> int:
    """Weights in the matrices of the recurrent layers."""
    parameters = dict(model.named_parameters())
    names = {name for layer in recurrent_layers(model) for name in layer.matrices()}
    return sum(parameters[name].numel() for name in names)


def best_strength(net: str, rows: Mapping[str, Mapping[str, Any]], target: float) -> float | None:
    """The least loss of the strengths that came down to the target, or a tenth above it; None where none did."""
    sweep = [row for name, row in rows.items() if name.startswith(f"{net}-strength")]
    return min((row["test_loss"] for row in sweep if row["share"] <= 1.1 * target), default=None)
