"""L1: the penalty on single weights."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from .governed import Include
from .lasso import GroupLasso


class L1(GroupLasso):
    """`GroupLasso` on single weights: strength * sum |w|.

    With update="subgradient" and SGD this is Wen's non-structured baseline (arXiv 1709.05027, appendix A: strength
    1e-4 on all weights but the embedding, threshold 2e-4). `Shrink(level="weight")` leaves a given number of weights.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any = None,
        *,
        strength: float,
        update: Literal["proximal", "subgradient"] = "proximal",
        threshold: float | None = None,
        include: Include = "recurrent",
    ) -> None:
        super().__init__(
            model,
            example_inputs,
            strength=strength,
            level="weight",
            update=update,
            threshold=threshold,
            include=include,
        )
