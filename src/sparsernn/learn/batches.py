"""Inputs out of whatever a user has at hand: tensors, tuples, dicts, the batches of a DataLoader with their labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..structure import examples


def inputs_of(
    batches: Iterable[Any], model: nn.Module, choose: Callable[[Any], Any] | None, name: str
) -> Iterator[examples.Call]:
    """The call of each batch. Of a list (a DataLoader's batch) only as many items as `forward` requires are inputs, and
    of a tuple only as many as it takes; the rest are labels. `choose` takes the inputs out of a batch by itself.

    Raises TypeError if `batches` is no iterable of batches.
    """
    if isinstance(batches, (str, bytes, dict, nn.Module, Tensor)) or not isinstance(batches, Iterable):
        raise TypeError(
            f"{name}: batches is {type(batches).__name__}, expected an iterable of batches: a DataLoader, or a list of "
            "inputs as the model takes them."
        )
    required, most = _places(model)
    for batch in batches:
        if choose is not None:
            batch = choose(batch)
        elif isinstance(batch, list):
            batch = tuple(batch[: max(1, required)])
        elif type(batch) is tuple:
            batch = batch[:most]
        yield examples.calls([batch])[0]


def _places(model: nn.Module) -> tuple[int, int | None]:
    """How many positional arguments `forward` requires, and how many it takes (None: any number)."""
    kinds = inspect.Parameter
    found = list(inspect.signature(model.forward).parameters.values())
    placed = [p for p in found if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    several = any(p.kind is kinds.VAR_POSITIONAL for p in found)
    return sum(p.default is kinds.empty for p in placed), None if several else len(placed)


def positions_in(call: examples.Call) -> int:
    """Batch times steps, as near as the first tensor of the call tells."""
    for tensor in examples.tensors_in(call):
        if isinstance(tensor, Tensor) and tensor.dim():
            return int(torch.Size(tensor.shape[:2]).numel())
    return 1
