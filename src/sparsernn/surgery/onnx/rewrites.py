"""Calls that the exporter can't translate, made as others that it can, while it records the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DATA = Tensor.data.__get__  # pyright: ignore[reportAttributeAccessIssue]


class Longest(int):
    """The length of the longest packed sequence, which padding takes where no `total_length` is given."""


class Rewritten(TorchFunctionMode):
    """`scatter` of a number becomes one of a tensor. `pad_packed_sequence` says whether its length was asked for: in
    the file `batch_sizes` holds the lengths, so that its size is another number."""

    def __init__(self, fixed: Callable[[str], None]) -> None:
        """fixed: called where a size becomes a number of which torch's tracer says nothing."""
        super().__init__()
        self.fixed = fixed
        self.batch_sizes: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("scatter", "scatter_") and "reduce" not in kwargs:
            return _scattered(func, args, kwargs)
        if name == "__index__" or (
            "pool" in name and any(isinstance(one, Tensor) for one in (*args[1:], *kwargs.values()))
        ):
            self.fixed("a size becomes a Python number")
        if func == _DATA:
            return args[0].detach()  # which the exporter follows; `.data` it does not
        if name == "size" and len(args) == 2 and any(args[0] is known for known in self.batch_sizes):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a number is made of a size, as it is meant to be
                return Longest(func(*args))
        if name == "_pad_packed_sequence" and isinstance(args[-1], Longest):
            args = (*args[:-1], -1)
        result = func(*args, **kwargs)
        if name == "_pack_padded_sequence":
            self.batch_sizes.append(result[1])
        return result


def _scattered(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    names = ("input", "dim", "index", "value")
    given = dict(zip(names, args)) | {"value" if name == "src" else name: v for name, v in kwargs.items()}
    if set(given) != set(names) or not isinstance(given["value"], (bool, int, float)):
        return func(*args, **kwargs)
    number = given["value"]
    # Of a bool the exporter makes no constant either.
    kind = torch.float32 if isinstance(number, float) else torch.int64
    source = torch.full_like(given["index"], number * 1, dtype=kind).to(given["input"].dtype)
    return func(given["input"], given["dim"], given["index"], source)
