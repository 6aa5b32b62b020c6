"""Targets: `Shrink(to=0.25)` on three small nets with one setting, beside dense nets of that size and a sweep.

Each net is trained densely, down to a target, directly at the size that this left, and under five strengths
of the penalty; one of them also on the other paths to a target.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.paths.fade import Fade
from sparsernn.learn.paths.hard_concrete import HardConcrete
from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.structure.cells import recurrent_layers
from sparsernn.surgery.compact import compact

from ..counting import multiply_adds, recurrent_weights
from ..models import CharacterLSTM, SequenceClassifier
from ..results import sizes
from ..scores import as_recorded
from ..settings import Count, Part, Positive, Some, Whole, settings
from ..study import Judge, Row, Study
from ..tables import figure
from ..tasks import reber, shakespeare
from ..tasks.sequences import Classification, in_parts, padded
from ..tasks.text import LanguageModelling, Streams, bits_per_symbol
from ..train import Objective, Training
from .claims import of_targets

Net = Literal["lstm", "stack", "gru"]
NETS: dict[Net, str] = {
    "lstm": "characters, LSTM",
    "stack": "characters, two LSTM layers",
    "gru": "Reber strings, GRU",
}
PATHS = {"top-k": TopK(), "shrink": Fade(), "hard-concrete": HardConcrete()}
METHODS = tuple(PATHS)
WAYS = {
    "dense": "dense",
    "target": "target",
    "direct": "that size, trained directly",
    "direct-longer": "that size, trained directly for as many multiply-adds",
    **{f"strength{n}": f"strength, point {n + 1}" for n in range(9)},
    "shrink": "target by fading",
    **{method: f"target by {method}" for method in METHODS[2:]},
}


@settings
class Settings:
    """`target`: share of the recurrent weights that all methods keep; `strengths`: of the sweep that is beside them.

    `methods`: whether the net "lstm" is also sparsified by each method. The other settings hold for every row.
    """

    nets: Some[Net] = tuple(NETS)
    target: Part = 0.25
    strengths: Some[Positive] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    methods: bool = True
    hidden: Count = 192
    embedding: Count = 64
    steps: Count = 1200
    batch: Count = 16
    length: Count = 48
    learning_rate: Positive = 3e-3
    warm_up: Whole = 100
    strings: reber.Fourfold = 8000
    symbols: Whole = 0  # of the text that is trained on, 0 for all
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def test(self) -> int:
        """The first string that is not trained on."""
        return self.strings * 3 // 4


@dataclass(frozen=True)
class Way(Row):
    """How the net `net` comes to its size: one of `WAYS`. `strength`: of a penalty; `method`: that reaches a target."""

    net: Net
    how: str
    strength: float = 0.0
    method: str = ""

    @property
    def direct(self) -> bool:
        return self.how in ("direct", "direct-longer")


def _way(net: Net, how: str, **more: Any) -> Way:
    return Way(f"{net}-{how}", net, how, **more)


class Targets(Study[Settings, Way]):
    name = "targets"
    summary = "Shrink(to=0.25) on three small nets: how near it lands, against direct training, a sweep, other paths."
    title = "To {target} of the weights"
    caption = "Loss: bits per character, nats per Reber string. Shares are of the recurrent weights."
    scales: ClassVar = {
        "smoke": Settings(
            hidden=24, steps=20, warm_up=2, batch=4, length=16, strings=400, symbols=20_000, strengths=(1e-4, 1e-2)
        ),
        "cpu": Settings(),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 25 minutes a seed, estimated"}
    columns = (
        figure("test loss", "test_loss", "{:.4f}"),
        figure("share of weights", "share", "{:.4f}"),
        figure("off the target", "off_target", "{:+.1%}"),
        figure("units", "units"),
    )
    labels: ClassVar = {f"{net}-{way}": f"{label}: {text}" for net, label in NETS.items() for way, text in WAYS.items()}
    judge = Judge("test_loss", more=False, rows="*-target")
    claims: ClassVar = [claim for net, said in NETS.items() for claim in of_targets(net, said)]

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Way]:
        found = []
        for net in settings.nets:
            found += [_way(net, "dense"), _way(net, "target", method="top-k")]
            found += [_way(net, "direct"), _way(net, "direct-longer")]
            found += [_way(net, f"strength{n}", strength=strength) for n, strength in enumerate(settings.strengths)]
            if net == "lstm" and settings.methods:
                found += [_way(net, method, method=method) for method in METHODS[1:]]
        return found

    @property
    def shown(self) -> Way:
        return self.rows[1]

    @cached_property
    def text(self) -> Any:
        with torch.device("cpu"):  # the first who asks may be counting weights on "meta"
            return shakespeare.load()

    @cached_property
    def strings(self) -> tuple[Tensor, Tensor, Tensor]:
        made = reber.generate(self.settings.strings, self.run.seed, embedded=True)
        return (*padded(made.strings, reber.LETTERS), torch.tensor(made.valid, dtype=torch.long))

    @cached_property
    def example_inputs(self) -> Any:
        return self.inputs(self.rows[0].net)

    def inputs(self, net: Net) -> Any:
        if net == "gru":
            x_TN, lengths_N, _ = self.strings
            return x_TN[: int(lengths_N[-8:].max()), -8:], lengths_N[-8:]
        return Streams(self.text.test, 4, 16).at(0)[0]

    def model(self, row: Way) -> nn.Module:
        return self.of_width(row.net, self.direct_width(row.net) if row.direct else self.settings.hidden)

    def of_width(self, net: Net, hidden: int) -> nn.Module:
        torch.manual_seed(self.run.seed)
        s = self.settings
        if net == "gru":
            return SequenceClassifier("gru", len(reber.LETTERS) + 1, s.embedding, hidden)
        return CharacterLSTM(len(self.text.symbols), s.embedding, hidden, 2 if net == "stack" else 1)

    def objective(self, row: Way) -> Objective:
        s = self.settings
        if row.net == "gru":
            x_TN, lengths_N, classes_N = (part[..., : s.test] for part in self.strings)
            return Classification(x_TN, lengths_N, classes_N, s.batch, self.run.seed)
        return LanguageModelling(Streams(self.text.train[: s.symbols or None], s.batch, s.length))

    def training(self, row: Way) -> Training:
        s = self.settings
        training = Training(s.steps, s.learning_rate, s.warm_up, precision=s.precision)
        if row.how != "direct-longer":
            return training
        more = self.compute(row.net, s.hidden) / self.compute(row.net, self.direct_width(row.net))
        return replace(training, steps=round(s.steps * more))

    def sparsifier(self, row: Way) -> Callable[[nn.Module], Sparsifier] | None:
        s, x = self.settings, self.inputs(row.net)
        if row.strength:
            return lambda model: GroupLasso(model, x, strength=row.strength)
        if row.method:
            path = PATHS[row.method]
            return lambda model: Shrink(model, x, to=s.target, steps=s.steps, path=path, score=as_recorded())
        return None

    def measure(self, row: Way, model: nn.Module) -> Mapping[str, Any]:
        with warnings.catch_warnings():  # a weak strength leaves every unit
            warnings.simplefilter("ignore")
            small = compact(model, self.inputs(row.net))
        left = recurrent_weights(small)
        share = left / recurrent_weights(self.of_width(row.net, self.settings.hidden))
        return {
            "test_loss": self.test_loss(row.net, small),
            "share": share,
            **({"off_target": share / self.settings.target - 1} if row.method else {}),
            "recurrent_weights": left,
            "units": [layer.hidden_size for layer in recurrent_layers(small)],
            **sizes(small),
            "steps": self.training(row).steps,
        }

    @torch.no_grad()
    def test_loss(self, net: Net, model: nn.Module) -> float:
        """Loss on what was not trained on: bits per character, or nats per string."""
        if net != "gru":
            return bits_per_symbol(model, self.text.test)
        x_TN, lengths_N, classes_N = (part[..., self.settings.test :] for part in self.strings)
        parts = zip(in_parts(x_TN, lengths_N, 256), classes_N.split(256))
        losses = (nn.functional.cross_entropy(model(*part), classes_B, reduction="sum") for part, classes_B in parts)
        return sum(map(float, losses)) / len(classes_N)

    def direct_width(self, net: Net) -> int:
        """Units a layer of the dense net whose recurrent weights are nearest to those that the target left."""
        wanted = self.result(self.named(f"{net}-target")).measured["recurrent_weights"]
        with torch.device("meta"):
            counts = {h: recurrent_weights(self.of_width(net, h)) for h in range(1, self.settings.hidden + 1)}
        return min(counts, key=lambda hidden: abs(counts[hidden] - wanted))

    def compute(self, net: Net, hidden: int) -> int:
        """Multiply-adds of a time step. A net on its way to a target multiplies at its full size to the last step."""
        with torch.device("meta"):
            return multiply_adds(self.of_width(net, hidden))

    def verdict(self, measured: Mapping[str, Mapping[str, Any]]) -> str:
        return verdict(measured, self.settings)

    @property
    def saved(self) -> list[Way]:
        """The nets of the first kind before anything is taken out."""
        return [row for row in self.rows if row.net == self.shown.net]

    def forms(self) -> Mapping[str, nn.Module]:
        """The first net, dense and trained directly at the small size."""
        return {row.name: self.load(row) for row in (self.rows[0], self.rows[2])}


def verdict(rows: Mapping[str, Mapping[str, Any]], settings: Settings) -> str:
    """One line a net: how near its target it came, and the net of that size trained directly."""
    lines = []
    for net in settings.nets:
        found = rows[f"{net}-target"]
        direct = rows[f"{net}-direct"]
        lines.append(
            f"{NETS[net]}: {found['share']:.4f} of the weights for a target of {settings.target}; loss "
            f"{found['test_loss']:.4f}, that size trained directly {direct['test_loss']:.4f}."
        )
    return "\n".join(lines)
