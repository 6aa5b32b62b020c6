"""One step computed: on sizes as plain numbers, on tensors by torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .graph import number
from .operators import elementwise, making, movement, padding, products, reductions
from .operators.hosted import HOSTED
from .operators.table import TABLE
from .steps import Step

# Imported for what they put into the table.
FILLED = (elementwise, making, movement, padding, products, reductions)


def compute(step: Step, operands: Sequence[Any], like: Tensor, module: nn.Module | None = None) -> tuple[Any, ...]:
    """What `step` gives for these operands. like: a tensor of the model's precision, on its device."""
    if module is None and step.op in HOSTED and operands and not any(isinstance(v, Tensor) for v in operands):
        found = HOSTED[step.op](step, *(np.asarray(v) if isinstance(v, (int, float)) else v for v in operands))
        return tuple(map(np.asarray, found)) if isinstance(found, tuple) else (np.asarray(found),)
    operator = TABLE[step.op]
    given = [v if n in operator.sizes else _as_tensor(v, like, operator.numbers) for n, v in enumerate(operands)]
    before = ([module] if operator.module else []) + ([like] if operator.like else [])
    found = operator.run(step, *before, *given)
    return found if isinstance(found, tuple) else (found,)


def _as_tensor(value: Any, like: Tensor, numbers: bool) -> Any:
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, np.ndarray):
        if value.dtype != object:
            return torch.from_numpy(np.ascontiguousarray(value)).to(like.device)
        parts = [v if isinstance(v, Tensor) else torch.tensor(v, device=like.device) for v in value.reshape(-1)]
        return torch.stack(parts).reshape(value.shape) if parts else torch.zeros(0, dtype=torch.int64)
    if numbers or isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=like.dtype if isinstance(value, float) else None, device=like.device)


def literal(array: np.ndarray) -> Any:
    """A constant as an operand: a number, an array of whole numbers, or a tensor."""
    if array.dtype.kind != "f":
        return array
    if array.ndim == 0:
        return number(array) if array.dtype == np.float32 else float(array)
    return torch.from_numpy(np.ascontiguousarray(array))
