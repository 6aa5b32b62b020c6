"""Where the first NaN of a run arises: in which module, by which operation, at which source line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from .._modules import copied
from . import examples
from .frames import operation_name, source_line
from .operations import VALUE_FREE
from .runs import results


def first_nan(model: nn.Module, calls: list[examples.Call], dtype: torch.dtype | None) -> str | None:
    """Example and place of the first NaN among all values of a run, in words; None if there is none."""
    for number, call in enumerate(calls, start=1):
        twin = copied(model)
        for name, tensor in (*twin.named_parameters(), *twin.named_buffers()):
            if has_nan(tensor):
                return f"NaN on example {number}: {name} holds it"
        same = [examples.fresh(call, dtype), examples.fresh(call, dtype)]
        if any(map(has_nan, examples.tensors_in(same[0]))):
            return f"NaN on example {number}, which holds it already"
        search = _Search(twin)
        try:
            shown = [t for result in results(twin, same, number, search) for t in examples.tensors_in(result)]
        except ValueError:
            continue
        if any(map(has_nan, shown)):
            return f"NaN on example {number}, first {search.found or 'in code that torch does not show'}"
    return None


class _Search(TorchFunctionMode):
    """`found`: where a NaN came out of an operation that none went into, the first time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found = ""
        self._inside: list[str] = [""]
        for path, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, path=path: self._inside.append(path))
            module.register_forward_hook(lambda *_: self._leave(), always_call=True)

    def _leave(self) -> None:
        self._inside.pop()

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation_name(func)
        if self.found or name in VALUE_FREE:  # new memory (empty_like) may hold anything
            return func(*args, **(kwargs or {}))
        before = any(map(has_nan, tree_iter((args, kwargs))))
        result = func(*args, **(kwargs or {}))
        if not before and any(map(has_nan, tree_iter(result))):
            path = self._inside[-1]
            self.found = f"in {path + ', ' if path else ''}{name} at {source_line()}"
        return result


def has_nan(value: Any) -> bool:
    """Whether `value` is a tensor with a NaN in it."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()) and _any_nan(value)


def _any_nan(value: Tensor) -> bool:
    try:
        return bool(value.detach().isnan().any())
    except (RuntimeError, NotImplementedError):  # types without isnan
        return bool(value.detach().to(torch.float32).isnan().any())
