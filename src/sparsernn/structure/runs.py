"""Runs of a model for a check: they leave it as it was, and show what it makes of a state that it keeps.

Models keep states from call to call in buffers, in attributes of any kind (`self.hidden = h`), in objects of their own.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .._modules import copied, kept_by_functions, set_seed
from . import examples

_PLAIN = (int, float, str, bool, type(None))


def outcomes(
    model: nn.Module,
    calls: list[examples.Call],
    dtype: torch.dtype | None,
    within: AbstractContextManager | None = None,
) -> Iterator[tuple[int, int, Any]]:
    """(example, place, output) of every output; each example runs on a copy of its own, with the same random numbers.

    `within` is entered round each call. ValueError with a sentence where the model can't take an example.
    """
    for number, call in enumerate(calls, start=1):
        twin = copied(model)
        same = [examples.fresh(call, dtype), examples.fresh(call, dtype)]
        for result in results(twin, same, number, within):
            for place, leaf in enumerate(examples.leaves_in(result)):
                yield number, place, leaf


def results(
    model: nn.Module, same: list[examples.Call], number: int, within: AbstractContextManager | None = None
) -> Iterator[Any]:
    """The result of one example, and of a second call where the first has changed what the model holds.

    `same`: the call twice, in copies. What is done with a state that was kept is seen at the second call only.
    `within` is entered round each call.
    """
    before, within = _held(model), within or nullcontext()
    set_seed(number)
    with within:
        once = examples.run(model, same[0], number)
    yield once
    if _changed(before, _held(model)):
        try:
            with within:
                again = examples.run(model, same[1], number)
        except ValueError:  # a model that can be called once
            return
        yield again


def _held(model: nn.Module) -> list[Any]:
    """What the modules hold beside parameters, as a flat list: tensors with their versions, numbers, other objects."""
    found: list[Any] = []
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_modules"):
                found.append(name)
                if type(value) in _PLAIN:
                    found.append(value)
                elif type(value) is not OrderedDict or value:  # most are tables of hooks, and empty
                    _collect(value, found, 0)
    _collect(kept_by_functions(model), found, 0)
    return found


def _collect(value: Any, found: list[Any], depth: int) -> None:
    if isinstance(value, Tensor):
        found += [value, -1 if value.is_inference() else value._version]
    elif isinstance(value, (list, tuple, set, frozenset, deque)) and depth < 6:
        found.append(len(value))
        for item in value:
            _collect(item, found, depth + 1)
    elif isinstance(value, Mapping) and depth < 6:
        found += [*value]
        for item in value.values():
            _collect(item, found, depth + 1)
    else:
        found.append(value)
        if hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)) and not callable(value):
            _collect(vars(value), found, depth + 1)


def _changed(before: list[Any], after: list[Any]) -> bool:
    return len(before) != len(after) or any(
        a is not b and not (isinstance(a, _PLAIN) and type(a) is type(b) and a == b) for a, b in zip(before, after)
    )
