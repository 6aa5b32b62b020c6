"""The table of operators: `@operator("Add")` puts a function into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_NUMBERS = 2**28  # of a tensor that a few numbers of a file ask for

# ONNX's numbers of element types; 1, the file's float32, is whatever precision the model has.
DTYPES = {
    2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16,
    11: torch.float64,
}  # fmt: skip


@dataclass(frozen=True)
class Operator:
    """run(step, *operands) gives one value, or a tuple of them. sizes: operands that stay arrays of whole numbers;
    numbers: whether Python numbers may come as they are. The first argument after the step is, with `module`, the
    submodule that holds the weights, with `like` a tensor of the model's precision and device."""

    run: Callable[..., Any]
    sizes: tuple[int, ...] = ()
    numbers: bool = False
    module: bool = False
    like: bool = False


TABLE: dict[str, Operator] = {}


def operator(*names: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a function into the table; options: the fields of `Operator`."""

    def put(run: Callable[..., Any]) -> Callable[..., Any]:
        TABLE.update({name: Operator(run, **options) for name in names})
        return run

    return put


def whole(value: Any) -> list[Any]:
    """Sizes, axes or places as a list; a size that is being traced stays what it is."""
    if isinstance(value, (np.ndarray, Tensor)):
        value = value.reshape(-1).tolist()
    numbers = value if isinstance(value, (list, tuple)) else [value]
    return [int(number) if isinstance(number, (float, bool)) else number for number in numbers]


def room(shape: list[Any]) -> list[Any]:
    """`shape`, if a tensor of that shape may be made of nothing."""
    count = 1
    for size in shape:
        if isinstance(size, Tensor):  # traced
            return shape
        count *= max(size, 0)
    if count > MAX_NUMBERS:
        raise ValueError(f"it asks for a tensor of shape {shape[:8]}; at most {MAX_NUMBERS} numbers are made of none.")
    return shape


def axes_of(step: Any, given: Any) -> list[int] | None:
    """The axes of an operator that has them as an attribute, or in newer versions as an input."""
    axes = step.get("axes") if given is None else given
    return None if axes is None else whole(axes)
