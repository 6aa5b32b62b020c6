"""The studies' data: strings; and graphs in chunks that are trained together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from sparsernn.nn.layering import layers_of

from ..tasks import reber
from ..tasks.sequences import Classification, padded

SYMBOLS = len(reber.LETTERS) + 1
TEST = 1000


@dataclass(frozen=True)
class Data:
    """Strings x_TN (padded), lengths_N, classes_N; the last TEST (at most a quarter) are for testing."""

    x_TN: Tensor
    lengths_N: Tensor
    classes_N: Tensor

    @property
    def train(self) -> int:
        return len(self.classes_N) - min(TEST, len(self.classes_N) // 4)

    def objective(self, batch: int, seed: int) -> Classification:
        n = self.train
        return Classification(self.x_TN[:, :n], self.lengths_N[:n], self.classes_N[:n], batch, seed)

    def test(self) -> tuple[Tensor, Tensor, Tensor]:
        n = self.train
        return self.x_TN[:, n:], self.lengths_N[n:], self.classes_N[n:]

    def examples(self) -> tuple[Tensor, Tensor]:
        """The first eight strings of the test, x_TN and lengths_N."""
        x_TN, lengths_N, _ = self.test()
        return x_TN[: int(lengths_N[:8].max()), :8], lengths_N[:8]


def strings(count: int, longest: int, seed: int) -> Data:
    """Reber strings of 8 to `longest` letters, as many valid as invalid ones, chosen from `count` generated ones."""
    return balanced(reber.generate(count, seed, shortest=8), longest, seed)


def balanced(made: reber.Strings, longest: int, seed: int, letters: str = reber.LETTERS) -> Data:
    """Of the strings made those of up to `longest` letters, as many valid as invalid ones, in random order."""
    valid = [s for s, right in zip(made.strings, made.valid) if right and len(s) <= longest]
    wrong = [s for s, right in zip(made.strings, made.valid) if not right and len(s) <= longest]
    each = min(len(valid), len(wrong))
    chosen = [(s, 1) for s in valid[:each]] + [(s, 0) for s in wrong[:each]]
    random.Random(seed).shuffle(chosen)
    x_TN, lengths_N = padded([s for s, _ in chosen], letters)
    return Data(x_TN, lengths_N, torch.tensor([c for _, c in chosen]))


def length_alone(data: Data) -> float:
    """Test accuracy of one who sees no letter, only how long a string is, and knows the training set."""
    n = data.train
    seen = Counter(zip(data.lengths_N[:n].tolist(), data.classes_N[:n].tolist()))
    _, lengths_N, classes_N = data.test()
    right = [(seen[k, 1] > seen[k, 0]) == bool(c) for k, c in zip(lengths_N.tolist(), classes_N.tolist())]
    return sum(right) / len(right)


def chunks(graphs: Sequence[nx.Graph], size: int) -> list[list[int]]:
    """Numbers of the graphs, `size` at a time, those with like many layers together: a union is as deep as its
    deepest graph."""
    order = sorted(range(len(graphs)), key=lambda n: (len(layers_of(graphs[n])), n))
    return [order[begin : begin + size] for begin in range(0, len(order), size)]


def in_order(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What the chunks gave, as lists over all graphs in their own order."""
    places = [n for part in parts for n in part["graph"]]
    names = [name for name in parts[0] if name != "graph"]
    values = {name: [v for part in parts for v in part[name]] for name in names}
    return {name: [v for _, v in sorted(zip(places, values[name]))] for name in names}
