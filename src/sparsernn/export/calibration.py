"""`calibrate=`: the number that 127 stands for in the inputs of each product in int8, from steps that a model meets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..runtime.program.program import Program
from ..structure.grids import LARGEST
from .agreement import Steps
from .lowering import Plan
from .oracle import Oracle
from .places import Memory
from .plan import lower
from .products import Product
from .source import Source

SHARES = (1.0, 0.9999, 0.999, 0.99)  # of the inputs' sizes that may stay below the limit
KEPT = 1024  # rows of a product's inputs, evenly spread, that errors are worked out on
LEAST = 1e-30  # below it inputs count as zeros


@dataclass
class Watched:
    """A product that remembers what went in."""

    product: Product
    weight: np.ndarray  # (rows, columns)
    rows: list[np.ndarray] = field(default_factory=list)
    largest: float = 0.0
    count: int = 0
    every: int = 1

    def run(self, memory: Memory) -> None:
        x = self.product.x.of(memory).reshape(-1, self.weight.shape[1])
        y = self.product.y.of(memory)
        self.largest = float(np.maximum(self.largest, np.abs(x).max()))  # keeps what is no number
        for row in x:
            if self.count % self.every == 0:
                self.rows.append(row.copy())
            self.count += 1
            if len(self.rows) == 2 * KEPT:
                self.rows, self.every = self.rows[::2], 2 * self.every
        y += (x @ self.weight.T).reshape(y.shape)

    def write(self, source: Source) -> None:
        self.product.write(source)

    def limit(self) -> float:
        """Of the candidates the one with the smallest square error of the product, all other things exact."""
        if self.largest < LEAST:
            return 1.0  # nothing is known of inputs that were always zero
        x = np.stack(self.rows).astype(np.float64)  # squares of large floats are none in float32
        sizes = np.abs(x)
        found = [self.largest, *(float(np.quantile(sizes, share)) for share in SHARES[1:])]
        found = [limit for limit in found if limit >= LEAST]

        def error(limit: float) -> float:
            scale = limit / LARGEST
            off = np.clip(np.round(x / scale), -LARGEST, LARGEST) * scale - x
            return float(np.square(off @ self.weight.T).sum())

        return min(found, key=error)


def limits_of(program: Program, runs: Iterable[Steps]) -> list[float]:
    """For each product of `program`, in the order of its plan, the limit of its inputs. runs: sequences from their
    start on, each step an array for every input.

    Raises ValueError for no steps at all, for inputs or states that are not finite, and for a product that no run
    comes to.
    """
    plan = lower(program)
    watched: list[Watched] = []
    for timed in plan.timed:
        watched += [Watched(step, step.matrix.weight) for step in timed.steps if isinstance(step, Product)]
    left = iter(watched)
    timed = [
        replace(t, steps=tuple(next(left) if isinstance(step, Product) else step for step in t.steps))
        for t in plan.timed
    ]
    oracle = Oracle(replace(plan, timed=timed))
    steps = 0
    for run in runs:
        oracle.reset()
        for inputs in run:
            _check_tokens(plan, inputs)
            oracle.step(*inputs)
            steps += 1
    if not steps:
        raise ValueError("export_c: got calibrate= without a step, expected batches of what the model takes.")
    if any(not np.isfinite(w.largest) for w in watched):
        raise ValueError("export_c: on the batches of calibrate= the model gives NaN or infinity: no scale has room.")
    if never := sum(w.count == 0 for w in watched):
        raise ValueError(
            f"export_c: {never} of {len(watched)} products are not due in the {steps} steps of calibrate=, which are "
            "too short: give longer sequences."
        )
    return [w.limit() for w in watched]


def _check_tokens(plan: Plan, inputs: Sequence[np.ndarray]) -> None:
    for argument, x in zip(plan.inputs, inputs, strict=True):
        rows = plan.bounds.get(argument.port.view.buffer)
        if rows is not None and (bad := x[(x < 0) | (x >= rows)]).size:
            raise ValueError(
                f"export_c: calibrate= has the token {bad[0]} in {argument.port.name}, expected 0 to {rows - 1}."
            )
