"""A forward in the place of a recurrent stack's own, layer by layer in Python, on whatever `Swapped` draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.layers import LayeredRecurrent
from ..nn.packing import widths_of
from ..structure.cells import MODES


class StandIn(LayeredRecurrent):
    """Runs `module`, a stack of torch or with its parameters and call. A subclass says how one layer or direction runs,
    by the weights of `self._source[0]`."""

    def __init__(self, module: nn.Module) -> None:
        source: Any = module
        self.cell = MODES[source.mode]
        projected = widths_of(source, "proj_size")
        super().__init__(
            source.input_size,
            widths_of(source, "hidden_size"),
            bias=source.bias,
            batch_first=source.batch_first,
            dropout=source.dropout if source.num_layers > 1 else 0.0,
            bidirectional=source.bidirectional,
            proj_sizes=projected if projected[0][0] else None,
        )
        self._source = [source]  # in a list: not a part of this module
        self._draw: Any = None

    def drawing(self, draw: Any) -> Callable[..., Any]:
        """The forward on what was drawn."""
        self._draw = draw
        self.train(self._source[0].training)
        return self.forward

    def _check_input(self, x: Tensor, packed: bool) -> None:
        dtype = next(self._source[0].parameters()).dtype
        if x.dtype != dtype and not torch._C._is_any_autocast_enabled():
            raise ValueError(f"{self.kind} got an input of {x.dtype}, its weights are {dtype}: convert one of them.")
        if x.dim() != (2 if packed else 3) or x.size(-1) != self.input_size:
            raise RuntimeError(
                f"{self.kind}: expected an input with {self.input_size} features in its last axis, "
                f"got shape {tuple(x.shape)}."
            )
