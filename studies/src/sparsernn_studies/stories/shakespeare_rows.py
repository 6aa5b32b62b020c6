"""The rows of the tiny Shakespeare table: the sparse one by group lasso with a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.target import Ramp

from ..scores import as_recorded
from .characters import Characters, CharacterSettings

ROWS = {
    "dense": "dense",
    "direct": "equal-size dense, trained directly",
    "sparse": "sparse, not compacted",
    "compact": "compact (torch)",
    "fast": "compact (sparsernn)",
    "int8": "compact (sparsernn, int8)",
}


@dataclass(frozen=True)
class Settings(CharacterSettings):
    """`target`: share of the recurrent weights kept, a half of the units; `ramp_begin`, `ramp_end` and `freeze`: when
    they go, in shares of the steps.
    """

    target: float = 0.286
    ramp_begin: float = 0.1
    ramp_end: float = 0.35
    freeze: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._shares("target")


class Shakespeare(Characters):
    """The rows; half of the units go by group lasso."""

    rows = ROWS
    precisions = {"fast": "float32", "int8": "int8"}  # noqa: RUF012

    def sparse(self) -> Mapping[str, Any]:
        s = self.settings

        def sparsify(model: nn.Module) -> GroupLasso:
            ramp = Ramp(begin=s.ramp_begin, end=s.ramp_end, freeze=s.freeze)
            return GroupLasso(
                model, self.example_inputs, target=s.target, steps=s.steps, ramp=ramp, score=as_recorded()
            )

        measured = self._train("sparse", self.model(), sparsify)
        return {**measured, "density": measured["nonzero"] / measured["weights"]}


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
