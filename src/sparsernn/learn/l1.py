"""L1: the penalty on single weights, by its strength or by the number of weights to keep."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from .governed import Include
from .lasso import GroupLasso
from .scores import Score
from .target import Ramp


class L1(GroupLasso):
    """`GroupLasso` on single weights: strength * sum |w|, or the smallest weights go until `target` is left.

    With update="subgradient" and SGD this is Wen's non-structured baseline (arXiv 1709.05027, appendix A: strength
    1e-4 on all weights but the embedding, threshold 2e-4).
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any = None,
        *,
        target: float | None = None,
        steps: int | None = None,
        strength: float | None = None,
        update: Literal["proximal", "subgradient"] = "proximal",
        threshold: float | None = None,
        score: Score | None = None,
        ramp: Ramp | None = None,
        include: Include = "recurrent",
    ) -> None:
        super().__init__(
            model,
            example_inputs,
            target=target,
            steps=steps,
            strength=strength,
            level="weight",
            update=update,
            threshold=threshold,
            score=score,
            ramp=ramp,
            include=include,
        )
