"""Random models of recurrent layers and glue, which know by themselves what reads each of their units.

A model is a list of steps over tensors of shape (batch, time, width). Beside its modules each model carries a ledger:
one label for every position of the last axis, a union of labels that were added or multiplied with one another, the
slices that read each label, and the labels that have to stay. It is written for these steps alone and shares nothing
with `trace`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Slice

INPUT = 3
Step = Callable[[nn.ModuleDict, list[Tensor]], Tensor]


@dataclass
class Ledger:
    """Who reads each label.

    `stay` has to be kept. For `unsure` labels both answers are right: a unit that is added to an input of the model
    or to a normalised value may go by itself, or be kept.
    """

    count: int = 1
    parent: list[int] = field(default_factory=lambda: [0])
    slices: dict[int, set[Slice]] = field(default_factory=dict)
    stay: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    units: dict[str, list[int]] = field(default_factory=dict)

    def new(self, size: int) -> list[int]:
        fresh = list(range(self.count, self.count + size))
        self.parent += fresh
        self.count += size
        return fresh

    def find(self, label: int) -> int:
        while self.parent[label] != label:
            label = self.parent[label]
        return label

    def tie(self, a: list[int], b: list[int]) -> list[int]:
        for left, right in zip(a, b):
            self.parent[self.find(left)] = self.find(right)
        return a

    def read(self, labels: list[int], parameter: str, axis: int = 1, start: int = 0) -> None:
        for index, label in enumerate(labels, start):
            self.slices.setdefault(label, set()).add((parameter, axis, index))

    def keep(self, labels: list[int]) -> None:
        self.stay.update(labels)

    def sure(self) -> dict[str, list[bool]]:
        """For each unit set and unit whether there is only one right answer."""
        unsure = {self.find(label) for label in self.unsure}
        return {name: [self.find(u) not in unsure for u in labels] for name, labels in self.units.items()}

    def readers(self) -> dict[str, list[frozenset[Slice] | None]]:
        """For each unit set and unit every slice of its group, or None if it has to stay."""
        groups: dict[int, set[Slice]] = {}
        for label, slices in self.slices.items():
            groups.setdefault(self.find(label), set()).update(slices)
        stay = {self.find(label) for label in self.stay}
        return {
            name: [None if self.find(u) in stay else frozenset(groups[self.find(u)]) for u in labels]
            for name, labels in self.units.items()
        }


class Composed(nn.Module):
    """Runs its steps one after another; each sees all tensors so far and adds one."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict()
        self.steps: list[Step] = []  # no module is bound in them, so that a deep copy runs its own
        self.log: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        tensors = [x]
        for step in self.steps:
            tensors.append(step(self.parts, tensors))
        return tensors[-1]


class Composer:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.model = Composed()
        self.ledger = Ledger()
        self.labels: list[list[int]] = [self.ledger.new(INPUT)]
        self.ledger.unsure.update(self.labels[0])

    def compose(self, steps: int) -> tuple[Composed, Ledger]:
        self.recurrent()
        glue = [self.recurrent, self.linear, self.pointwise, self.slice_units, self.concat, self.residual]
        glue += [self.product, self.permute, self.shift, self.conv, self.norm, self.gate, self.mixture]
        for _ in range(steps):
            self.random.choice(glue)()
        self.finish()
        return self.model, self.ledger

    # Each step below: build modules, say what the forward does, and write down what it reads and ties.

    def module(self, name: str, module: nn.Module) -> tuple[str, str]:
        key = f"{name}{len(self.model.steps)}"
        self.model.parts[key] = module
        return f"parts.{key}", key

    def add(self, what: str, step: Step, labels: list[int]) -> None:
        self.model.log.append(what)
        self.model.steps.append(step)
        self.labels.append(labels)

    def latest(self) -> int:
        return len(self.labels) - 1

    def recurrent(self) -> None:
        draw, at = self.random, self.latest()
        kind, layers, both = draw.choice(["LSTM", "GRU", "RNN"]), draw.choice([1, 1, 2]), draw.random() < 0.4
        hidden, source = draw.choice([2, 3, 4, 5]), self.labels[at]
        proj = draw.choice([0, 0, hidden - 1]) if kind == "LSTM" else 0
        rnn: Any = getattr(nn, kind)(
            len(source),
            hidden,
            layers,
            batch_first=True,
            bidirectional=both,
            bias=draw.random() < 0.8,
            **({"proj_size": proj} if proj else {}),
        )
        path, key = self.module("rnn", rnn)
        for layer in range(layers):
            out: list[int] = []
            for end in ("", "_reverse") if both else ("",):
                name = f"{path}.l{layer}{end}"
                self.ledger.read(source, f"{path}.weight_ih_l{layer}{end}")
                units = self.ledger.units[name] = self.ledger.new(hidden)
                if proj:
                    self.ledger.read(units, f"{path}.weight_hr_l{layer}{end}")
                    units = self.ledger.units[f"{name}.projected"] = self.ledger.new(proj)
                self.ledger.read(units, f"{path}.weight_hh_l{layer}{end}")
                out += units
            source = out
        if draw.random() < 0.25:  # the last layer's final states, at every time step
            self.add(
                f"h_n of {kind}",
                lambda m, ts: (
                    (
                        torch.cat(list(m[key](ts[at])[1][0][-1 - both :]), -1)
                        if kind == "LSTM"
                        else torch.cat(list(m[key](ts[at])[1][-1 - both :]), -1)
                    )
                    .unsqueeze(1)
                    .expand(-1, ts[at].shape[1], -1)
                ),
                source,
            )
        else:
            self.add(f"{kind} {hidden} x {layers}", lambda m, ts: m[key](ts[at])[0], source)

    def linear(self) -> None:
        at, out = self.latest(), self.random.choice([2, 3, 4])
        path, key = self.module("fc", nn.Linear(len(self.labels[at]), out))
        self.ledger.read(self.labels[at], f"{path}.weight")
        self.add("linear", lambda m, ts: m[key](ts[at]), self.ledger.new(out))

    def pointwise(self) -> None:
        at = self.latest()
        name, op = self.random.choice(
            [
                ("tanh", torch.tanh),
                ("relu", F.relu),
                ("sigmoid", torch.sigmoid),
                ("scaled", lambda x: 0.5 * x + 1),
                ("dropout", lambda x: F.dropout(x, 0.5, False)),
                ("cumulative mean", lambda x: x.mean(1, keepdim=True) + x),
                ("peak over time", lambda x: x.amax(dim=1, keepdim=True).expand_as(x)),
                ("backwards", lambda x: x.flip(1)),
                ("folded", lambda x: x.reshape(-1, x.shape[-1]).view_as(x)),
            ]
        )
        self.add(name, lambda m, ts: op(ts[at]), self.labels[at])

    def slice_units(self) -> None:
        at, size = self.latest(), len(self.labels[-1])
        start = self.random.randrange(size)
        stop = self.random.randrange(start, size) + 1
        negative = start - size
        self.add("slice", lambda m, ts: ts[at][..., negative:][..., : stop - start], self.labels[at][start:stop])

    def concat(self) -> None:
        at, other = self.latest(), self.random.randrange(len(self.labels))
        self.add("concat", lambda m, ts: torch.cat([ts[at], ts[other]], -1), self.labels[at] + self.labels[other])

    def _partner(self) -> int:
        same = [n for n, labels in enumerate(self.labels) if len(labels) == len(self.labels[-1])]
        return self.random.choice(same)

    def residual(self) -> None:
        at, other = self.latest(), self._partner()
        self.ledger.tie(self.labels[at], self.labels[other])
        self.add("residual", lambda m, ts: ts[at] + ts[other], self.labels[at])

    def product(self) -> None:
        at, other = self.latest(), self._partner()
        self.ledger.tie(self.labels[at], self.labels[other])
        self.add("product", lambda m, ts: ts[at] * torch.sigmoid(ts[other]), self.labels[at])

    def mixture(self) -> None:
        at, other = self.latest(), self._partner()
        self.ledger.tie(self.labels[at], self.labels[other])
        self.add("mixture", lambda m, ts: torch.stack([ts[at], ts[other]]).mean(0), self.labels[at])

    def permute(self) -> None:
        at, size = self.latest(), len(self.labels[-1])
        order = self.random.sample(range(size), size)
        self.add("permute", lambda m, ts: ts[at][..., order], [self.labels[at][n] for n in order])

    def shift(self) -> None:
        at = self.latest()
        self.add("shift", lambda m, ts: F.pad(ts[at], (0, 0, 1, 0))[:, :-1], self.labels[at])

    def conv(self) -> None:
        at, out = self.latest(), self.random.choice([2, 3])
        path, key = self.module("conv", nn.Conv1d(len(self.labels[at]), out, 3, padding=1))
        self.ledger.read(self.labels[at], f"{path}.weight")
        self.add("conv", lambda m, ts: m[key](ts[at].transpose(1, 2)).transpose(1, 2), self.ledger.new(out))

    def norm(self) -> None:
        at, size = self.latest(), len(self.labels[-1])
        if self.random.random() < 0.5:
            _, key = self.module("norm", nn.LayerNorm(size))
            self.ledger.keep(self.labels[at])
            self.add("layer norm", lambda m, ts: m[key](ts[at]), self.ledger.new(size))
            self.ledger.unsure.update(self.labels[-1])
        else:
            _, key = self.module("norm", nn.BatchNorm1d(size))
            self.add("batch norm", lambda m, ts: m[key](ts[at].mT).mT, self.labels[at])

    def gate(self) -> None:
        at, size = self.latest(), len(self.labels[-1])
        path, key = self.module("gate", nn.Linear(size, size))
        self.ledger.read(self.labels[at], f"{path}.weight")
        self.ledger.tie(self.labels[at], self.ledger.new(size))
        self.add("gate", lambda m, ts: torch.sigmoid(m[key](ts[at])) * ts[at], self.labels[at])

    def finish(self) -> None:
        self.linear() if self.random.random() < 0.85 else self.ledger.keep(self.labels[-1])
        # The output of a last Linear goes to the caller: its rows are no units, but they have to stay.
        self.ledger.keep(self.labels[-1])
